# cython: language_level=3, binding=False, boundscheck=False, wraparound=False, initializedcheck=False
"""The engine compiled: the same contract as `reference.py`, which says what each part is for.

Kept line for line like it where that costs nothing. What differs: switches go through greenlet's C API, the run queue
of a first-in-first-out order is a ring, epoll is polled without a list, the frame stacks of finished greenlets are kept,
and who runs here is a variable of the OS thread.

Behind the engine proper stands what is hot in the layers above (`compiled`), in the order of the layers: spawn and the
end of a thread, checkpoints, locks, semaphores, queues, and last the calls of sockets.
"""

import os
import socket
from collections import deque
from contextvars import Context
from errno import EBADF, EPERM
from functools import update_wrapper
from math import ceil, inf
from sys import _getframe, maxsize as ssize_max, modules
from types import FunctionType, GenericAlias, MethodType
from weakref import ref

cimport cython
from cpython.buffer cimport PyBUF_SIMPLE, PyBUF_WRITABLE, PyBuffer_Release, PyObject_GetBuffer
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize
from cpython.exc cimport PyErr_CheckSignals, PyErr_SetFromErrno
from cpython.mem cimport PyMem_Free, PyMem_Malloc, PyMem_Realloc
from cpython.object cimport PyObject
from cpython.ref cimport Py_DECREF, Py_INCREF

from _thread import TIMEOUT_MAX

from ...errors import Cancelled, Empty, Full, ShutDown
from ..clock import MonotonicClock
from ..order import FifoOrder
from ..originals import sleep as original_sleep
from ..spawn_site import LONGEST_CHAIN as _LONGEST_CHAIN
from ..spawn_site import SpawnSite
from .descriptors import CLOSED as _CLOSED
from .pollers import HANGUP as _HANGUP
from .pollers import READ as _READ
from .pollers import WRITE as _WRITE
from .states import ABORTED as _ABORTED
from .states import LONGEST_WAIT as _LONGEST_WAIT
from .states import NOTHING as _NOTHING
from .states import SLICE as _SLICE
from .states import STUCK_AGAIN_AFTER as _STUCK_AGAIN_AFTER
from .states import SWITCHES_PER_POLL as _SWITCHES_PER_POLL
from .states import TIMED_OUT as _TIMED_OUT
from .states import State, call_in_a_frame, carriers as _carriers, landed
from . import states

cdef extern from "greenlet/greenlet.h":
    ctypedef class greenlet.greenlet [object PyGreenlet, check_size ignore]:
        pass

    void PyGreenlet_Import() except *
    greenlet PyGreenlet_New(object run, greenlet parent)
    greenlet PyGreenlet_GetCurrent()
    object PyGreenlet_Switch(greenlet target, PyObject *args, PyObject *kwargs)

cdef extern from *:
    """
    #if defined(_MSC_VER)
    #define VT_THREAD __declspec(thread)
    #else
    #define VT_THREAD __thread
    #endif

    /* The scheduler of this OS thread; the registry of carriers keeps it alive. */
    static VT_THREAD PyObject *vt_here = NULL;

    #include <time.h>
    #if defined(_WIN32)
    static double vt_monotonic(void) { return (double)time(NULL); }
    #else
    static double vt_monotonic(void) {
        struct timespec now;
        clock_gettime(CLOCK_MONOTONIC, &now);
        return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
    }
    #endif
    /* Whether that is what time.monotonic() reads, without making a float of it. */
    #if defined(__linux__)
    #define VT_HAS_MONOTONIC 1
    #else
    #define VT_HAS_MONOTONIC 0
    #endif
    """
    PyObject *vt_here
    double vt_monotonic() nogil
    bint VT_HAS_MONOTONIC
    unsigned long PyThread_get_thread_ident()

cdef extern from *:
    """
    /* --- epoll */
    #if defined(__linux__)
    #include <sys/epoll.h>
    #define VT_HAS_EPOLL 1
    typedef struct epoll_event vt_event;
    static int vt_epoll_wait(int epoll, vt_event *events, int room, int milliseconds) {
        return epoll_wait(epoll, events, room, milliseconds);
    }
    /* Ask for both edges of `fd` once and for all, as the readable poller does; 0 or the error. */
    static int vt_epoll_add(int epoll, int fd) {
        struct epoll_event interest = {EPOLLIN | EPOLLOUT | EPOLLPRI | EPOLLRDHUP | EPOLLET, {0}};
        interest.data.fd = fd;
        if (epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &interest) == 0) return 0;
        /* The same open file under the same number, left by an owner who gave the number away. */
        return errno == EEXIST && epoll_ctl(epoll, EPOLL_CTL_MOD, fd, &interest) == 0 ? 0 : errno;
    }
    static int vt_event_fd(vt_event *event) { return event->data.fd; }
    /* The sum of READ 1, WRITE 2 and HANGUP 4. */
    static int vt_event_ready(vt_event *event) {
        unsigned int mask = event->events;
        int ended = mask & (EPOLLRDHUP | EPOLLHUP | EPOLLERR) ? 4 : 0;
        int readable = ended || mask & (EPOLLIN | EPOLLPRI) ? 1 : 0;
        return readable | (mask & (EPOLLOUT | EPOLLHUP | EPOLLERR) ? 2 : 0) | ended;
    }
    #else
    #define VT_HAS_EPOLL 0
    typedef struct { int fd; } vt_event;
    static int vt_epoll_wait(int epoll, vt_event *events, int room, int milliseconds) { return 0; }
    static int vt_epoll_add(int epoll, int fd) { return -1; }
    static int vt_event_fd(vt_event *event) { return -1; }
    static int vt_event_ready(vt_event *event) { return 0; }
    #endif

    /* --- sockets that answer EAGAIN instead of blocking */
    #include <errno.h>
    #include <string.h>
    #if !defined(_WIN32)
    #include <sys/types.h>
    #include <sys/socket.h>
    #include <sys/un.h>
    #include <netinet/in.h>
    #include <arpa/inet.h>
    #include <fcntl.h>
    #include <poll.h>
    #include <unistd.h>
    #define VT_HAS_SOCKETS 1
    typedef struct { struct sockaddr_storage is; socklen_t size; } vt_address;

    static Py_ssize_t vt_recv(int fd, char *buffer, Py_ssize_t room) {
        return recv(fd, buffer, (size_t)room, MSG_DONTWAIT);
    }
    static Py_ssize_t vt_send(int fd, const char *data, Py_ssize_t size) {
        return send(fd, data, (size_t)size, MSG_DONTWAIT);
    }
    static Py_ssize_t vt_recvfrom(int fd, char *buffer, Py_ssize_t room, vt_address *from) {
        from->size = sizeof from->is;
        return recvfrom(fd, buffer, (size_t)room, MSG_DONTWAIT, (struct sockaddr *)&from->is, &from->size);
    }
    static Py_ssize_t vt_sendto(int fd, const char *data, Py_ssize_t size, vt_address *to) {
        return sendto(fd, data, (size_t)size, MSG_DONTWAIT, (struct sockaddr *)&to->is, to->size);
    }
    /* accept(2) has no flag for it: the listening socket is made non-blocking for the one call, if it is not. One that
       other programs may share is looked at instead, as `at_once` of the readable calls says. */
    static int vt_accept(int fd, vt_address *from) {
        int flags = fcntl(fd, F_GETFL), blocking = flags >= 0 && !(flags & O_NONBLOCK), accepted, error;
        from->size = sizeof from->is;
        if (blocking && !(fcntl(fd, F_GETFD) & FD_CLOEXEC)) {
            struct pollfd interest = {fd, POLLIN, 0};
            if (poll(&interest, 1, 0) == 0) {
                errno = EAGAIN;
                return -1;
            }
            blocking = 0;
        }
        if (blocking) fcntl(fd, F_SETFL, flags | O_NONBLOCK);
    #if defined(__linux__)
        accepted = accept4(fd, (struct sockaddr *)&from->is, &from->size, SOCK_CLOEXEC);
    #else
        accepted = accept(fd, (struct sockaddr *)&from->is, &from->size);
    #endif
        error = errno;
        if (blocking) fcntl(fd, F_SETFL, flags);
    #if !defined(__linux__)
        if (accepted >= 0) {
            /* Some systems let it inherit O_NONBLOCK. */
            fcntl(accepted, F_SETFD, FD_CLOEXEC);
            fcntl(accepted, F_SETFL, fcntl(accepted, F_GETFL) & ~O_NONBLOCK);
        }
    #endif
        errno = error;
        return accepted;
    }
    static int vt_close(int fd) { return close(fd); }
    static int vt_is_stream(int fd) {
        int type = 0;
        socklen_t size = sizeof type;
        return getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &size) == 0 && type == SOCK_STREAM;
    }
    /* The address as CPython tells it, or None if there is none: of a peer in IPv4, IPv6, or a Unix socket. */
    static PyObject *vt_tell(vt_address *address) {
        char text[INET6_ADDRSTRLEN] = "";
        if (address->size == 0) Py_RETURN_NONE;
        if (address->is.ss_family == AF_INET) {
            struct sockaddr_in *ipv4 = (struct sockaddr_in *)&address->is;
            inet_ntop(AF_INET, &ipv4->sin_addr, text, sizeof text);
            return Py_BuildValue("(si)", text, (int)ntohs(ipv4->sin_port));
        }
        if (address->is.ss_family == AF_INET6) {
            struct sockaddr_in6 *ipv6 = (struct sockaddr_in6 *)&address->is;
            inet_ntop(AF_INET6, &ipv6->sin6_addr, text, sizeof text);
            return Py_BuildValue("(siII)", text, (int)ntohs(ipv6->sin6_port),
                                 (unsigned)ntohl(ipv6->sin6_flowinfo), (unsigned)ipv6->sin6_scope_id);
        }
        if (address->is.ss_family == AF_UNIX) {
            char *path = ((struct sockaddr_un *)&address->is)->sun_path;
            Py_ssize_t size = (char *)&address->is + address->size - path;
    #if defined(__linux__)
            /* Of the abstract kind, which may have zeros in it. */
            if (size > 0 && path[0] == 0) return PyBytes_FromStringAndSize(path, size);
    #endif
            /* Other programs may leave out the zero at the end; there is room for it. */
            path[size > 0 ? size : 0] = 0;
            return PyUnicode_DecodeFSDefault(path);
        }
        Py_RETURN_NONE;
    }
    /* Whether `text` is a number of the family, IPv4 or IPv6; then it is in `address`. */
    static int vt_read(vt_address *address, int family, const char *text, int port, unsigned flow, unsigned scope) {
        memset(&address->is, 0, sizeof address->is);
        if (family == AF_INET) {
            struct sockaddr_in *ipv4 = (struct sockaddr_in *)&address->is;
            ipv4->sin_family = AF_INET;
            ipv4->sin_port = htons((unsigned short)port);
            address->size = sizeof *ipv4;
            return inet_pton(AF_INET, text, &ipv4->sin_addr) == 1;
        } else {
            struct sockaddr_in6 *ipv6 = (struct sockaddr_in6 *)&address->is;
            ipv6->sin6_family = AF_INET6;
            ipv6->sin6_port = htons((unsigned short)port);
            ipv6->sin6_flowinfo = htonl(flow);
            ipv6->sin6_scope_id = scope;
            address->size = sizeof *ipv6;
            return inet_pton(AF_INET6, text, &ipv6->sin6_addr) == 1;
        }
    }
    /* 0 or the error. Nobody else reads or writes a socket that is not connected yet, so the flag is not in their way. */
    static int vt_connect(int fd, vt_address *to) {
        int flags = fcntl(fd, F_GETFL), blocking = flags >= 0 && !(flags & O_NONBLOCK), error;
        if (blocking) fcntl(fd, F_SETFL, flags | O_NONBLOCK);
        error = connect(fd, (struct sockaddr *)&to->is, to->size) ? errno : 0;
        if (blocking) fcntl(fd, F_SETFL, flags);
        return error;
    }
    static int vt_has_peer(int fd) {
        vt_address peer;
        peer.size = sizeof peer.is;
        return getpeername(fd, (struct sockaddr *)&peer.is, &peer.size) == 0 || errno != ENOTCONN;
    }
    /* The error that the socket keeps. */
    static int vt_kept_error(int fd) {
        int error = 0;
        socklen_t size = sizeof error;
        return getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &size) ? errno : error;
    }
    #define VT_IS_CONNECTING(error) ((error) == EINPROGRESS || (error) == EALREADY || VT_WOULD_BLOCK(error))
    #else
    #define VT_HAS_SOCKETS 0
    typedef struct { int size; } vt_address;
    static Py_ssize_t vt_recv(int fd, char *buffer, Py_ssize_t room) { return -1; }
    static Py_ssize_t vt_send(int fd, const char *data, Py_ssize_t size) { return -1; }
    static Py_ssize_t vt_recvfrom(int fd, char *buffer, Py_ssize_t room, vt_address *from) { return -1; }
    static Py_ssize_t vt_sendto(int fd, const char *data, Py_ssize_t size, vt_address *to) { return -1; }
    static int vt_accept(int fd, vt_address *from) { return -1; }
    static int vt_connect(int fd, vt_address *to) { return -1; }
    static int vt_has_peer(int fd) { return 0; }
    static int vt_kept_error(int fd) { return -1; }
    #define VT_IS_CONNECTING(error) 0
    static int vt_close(int fd) { return -1; }
    static int vt_is_stream(int fd) { return 0; }
    static PyObject *vt_tell(vt_address *address) { Py_RETURN_NONE; }
    static int vt_read(vt_address *address, int family, const char *text, int port, unsigned flow, unsigned scope) {
        return 0;
    }
    #endif
    #if EAGAIN == EWOULDBLOCK
    #define VT_WOULD_BLOCK(error) ((error) == EAGAIN)
    #else
    #define VT_WOULD_BLOCK(error) ((error) == EAGAIN || (error) == EWOULDBLOCK)
    #endif

    /* Whether the weak reference `owner` leads to `object`. */
    static int vt_owns(PyObject *owner, PyObject *object) {
    #if PY_VERSION_HEX >= 0x030D0000
        PyObject *found = NULL;
        if (PyWeakref_GetRef(owner, &found) < 0) PyErr_Clear();
        Py_XDECREF(found);
        return found == object;
    #else
        return PyWeakref_GET_OBJECT(owner) == object;
    #endif
    }
    """
    bint VT_HAS_EPOLL, VT_HAS_SOCKETS
    ctypedef struct vt_event:
        pass
    ctypedef struct vt_address:
        pass
    int vt_epoll_wait(int epoll, vt_event *events, int room, int milliseconds) nogil
    int vt_epoll_add(int epoll, int fd)
    int vt_event_fd(vt_event *event)
    int vt_event_ready(vt_event *event)
    Py_ssize_t vt_recv(int fd, char *buffer, Py_ssize_t room)
    Py_ssize_t vt_send(int fd, const char *data, Py_ssize_t size)
    Py_ssize_t vt_recvfrom(int fd, char *buffer, Py_ssize_t room, vt_address *sender)
    Py_ssize_t vt_sendto(int fd, const char *data, Py_ssize_t size, vt_address *receiver)
    int vt_accept(int fd, vt_address *peer)
    int vt_connect(int fd, vt_address *to)
    bint vt_has_peer(int fd)
    int vt_kept_error(int fd)
    bint VT_IS_CONNECTING(int error)
    int vt_close(int fd)
    bint vt_is_stream(int fd)
    object vt_tell(vt_address *address)
    bint vt_read(vt_address *address, int family, const char *text, int port, unsigned flow, unsigned scope)
    bint VT_WOULD_BLOCK(int error)
    bint vt_owns(object owner, object owned)
    int errno
    int EINTR

cdef extern from *:
    """
    /* A new object of `type` as its tp_new makes it, without its __init__. */
    static PyObject *vt_new(PyObject *type) {
        static PyObject *nothing = NULL;
        if (nothing == NULL && (nothing = PyTuple_New(0)) == NULL) return NULL;
        return ((PyTypeObject *)type)->tp_new((PyTypeObject *)type, nothing, NULL);
    }
    """
    object vt_new(object type)

cdef extern from *:
    """
    /* The result, or NULL with an exception set, which Cython is not told of. */
    static PyObject *vt_call(PyObject *function, PyObject *arguments, PyObject *keywords) {
        if (keywords != Py_None) return PyObject_Call(function, arguments, keywords);
        return PyObject_Vectorcall(
            function, ((PyTupleObject *)arguments)->ob_item, (size_t)PyTuple_GET_SIZE(arguments), NULL);
    }
    static PyObject *vt_call_in_a_frame(PyObject *caller, PyObject *function, PyObject *arguments, PyObject *keywords) {
        PyObject *given[] = {function, arguments, keywords};
        return PyObject_Vectorcall(caller, given, 3, NULL);
    }
    static int vt_failed(void) { return -1; }
    /* A builtin function by name of time.sleep that calls `call`. */
    static PyMethodDef vt_sleep_def = {"sleep", NULL, METH_O, NULL};
    static PyObject *vt_time_sleep(PyObject *(*call)(PyObject *, PyObject *)) {
        PyObject *module = PyUnicode_FromString("time"), *function;
        if (module == NULL) return NULL;
        vt_sleep_def.ml_meth = call;
        function = PyCFunction_NewEx(&vt_sleep_def, NULL, module);
        Py_DECREF(module);
        return function;
    }
    static int vt_has_context(void) { return PyThreadState_Get()->context != NULL; }
    /* A copy of the context, None for an empty one. */
    static PyObject *vt_copy_context(void) {
        PyObject *context = PyThreadState_Get()->context;
        Py_ssize_t count = context == NULL ? 0 : PyObject_Size(context);
        if (count < 0) return NULL;
        if (count == 0) Py_RETURN_NONE;
        return PyContext_CopyCurrent();
    }
    /* The context itself, made if there is none. */
    static PyObject *vt_context(void) {
        PyObject *copy = vt_has_context() ? NULL : PyContext_CopyCurrent();
        if (PyErr_Occurred()) return NULL;
        Py_XDECREF(copy);
        return Py_NewRef(PyThreadState_Get()->context);
    }
    static int vt_is_traced(void) { return PyThreadState_Get()->c_tracefunc != NULL; }
    """
    bint vt_is_traced()
    bint vt_has_context()
    object vt_copy_context()
    object vt_context()
    object vt_time_sleep(object (*call)(object, object))
    PyObject *vt_call(object function, object arguments, object keywords)
    PyObject *vt_call_in_a_frame(object caller, object function, object arguments, object keywords)
    int vt_failed() except -1

cdef extern from *:
    """
    /* Where the innermost Python code is: its code, globals and instruction; 0 if there is none. */
    static int vt_place(PyObject **code, PyObject **globals, int *instruction) {
        PyFrameObject *frame = PyEval_GetFrame();
        if (frame == NULL) return 0;
        *code = (PyObject *)PyFrame_GetCode(frame);
        *globals = PyFrame_GetGlobals(frame);
        *instruction = PyFrame_GetLasti(frame);
        return 1;
    }
    /* Its instruction as a number; see `instruction_number` of the module that asks. */
    static unsigned long long vt_instruction(void) {
        PyFrameObject *frame = PyEval_GetFrame();
        if (frame == NULL) return 0;
        PyCodeObject *code = PyFrame_GetCode(frame);
        unsigned long long number = ((unsigned long long)(uintptr_t)code << 17) + (unsigned)PyFrame_GetLasti(frame);
        Py_DECREF(code);
        return number;
    }
    """
    unsigned long long vt_instruction()
    bint vt_place(PyObject **code, PyObject **globals, int *instruction)

cdef extern from "Python.h":
    ctypedef struct PyTypeObject:
        const char *tp_name
        const char *tp_doc
    void PyType_Modified(type changed)

cdef extern from "pythread.h":
    ctypedef void *PyThread_type_lock
    PyThread_type_lock PyThread_allocate_lock()
    void PyThread_free_lock(PyThread_type_lock lock)
    int PyThread_acquire_lock(PyThread_type_lock lock, int wait) nogil
    void PyThread_release_lock(PyThread_type_lock lock)
    enum: NOWAIT_LOCK, WAIT_LOCK

cdef extern from "Python.h":
    int PyWeakref_CheckRef(object reference)
    int _PyBytes_Resize(PyObject **data, Py_ssize_t size) except -1
    int PySys_Audit(const char *event, const char *format, ...) except -1

cdef extern from *:
    """
    /* --- frame stacks

       CPython maps 16 KiB for the frames of each greenlet and unmaps them when it ends, which costs more than all the
       rest of its life. They are kept here instead: warm ones with their pages, cold ones whose pages were given back.
       What nobody has wanted for a second becomes cold, but for a few. The method: PyObject_SetArenaAllocator is
       public, and asked for blocks of just this size for nothing else. */
    #if defined(__linux__) && !defined(Py_GIL_DISABLED)
    #include <pthread.h>
    #include <stdatomic.h>
    #include <stdlib.h>
    #include <sys/mman.h>
    #define VT_CHUNK ((size_t)16384)
    #define VT_SLAB (128 * VT_CHUNK)
    #define VT_ALWAYS_WARM ((size_t)1024)

    static PyObjectArenaAllocator vt_others;
    static struct {
        void **warm, **cold;
        size_t warm_count, cold_count, room, all, unwanted;
        char *slab;
        size_t left;
        /* Interpreters with a GIL of their own share the allocator. */
        atomic_flag busy;
    } vt_stacks = {.busy = ATOMIC_FLAG_INIT};

    static void vt_lock(void) { while (atomic_flag_test_and_set_explicit(&vt_stacks.busy, memory_order_acquire)); }
    static void vt_unlock(void) { atomic_flag_clear_explicit(&vt_stacks.busy, memory_order_release); }

    /* Room in both lists for every chunk there is. */
    static int vt_make_room(size_t more) {
        size_t room = vt_stacks.room;
        void **larger;
        if (vt_stacks.all + more <= room) return 1;
        room = 2 * (vt_stacks.all + more);
        if ((larger = realloc(vt_stacks.warm, room * sizeof(void *))) == NULL) return 0;
        vt_stacks.warm = larger;
        if ((larger = realloc(vt_stacks.cold, room * sizeof(void *))) == NULL) return 0;
        vt_stacks.cold = larger;
        vt_stacks.room = room;
        return 1;
    }
    static void *vt_carve(void) {
        void *chunk;
        if (vt_stacks.left < VT_CHUNK) {
            if (!vt_make_room(VT_SLAB / VT_CHUNK)) return NULL;
            chunk = mmap(NULL, VT_SLAB, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
            if (chunk == MAP_FAILED) return NULL;
            vt_stacks.slab = chunk;
            vt_stacks.left = VT_SLAB;
            vt_stacks.all += VT_SLAB / VT_CHUNK;
        }
        chunk = vt_stacks.slab;
        vt_stacks.slab += VT_CHUNK;
        vt_stacks.left -= VT_CHUNK;
        return chunk;
    }
    static void *vt_take(void *context, size_t size) {
        void *chunk;
        if (size != VT_CHUNK) return vt_others.alloc(vt_others.ctx, size);
        vt_lock();
        if (vt_stacks.warm_count) {
            chunk = vt_stacks.warm[--vt_stacks.warm_count];
            if (vt_stacks.warm_count < vt_stacks.unwanted) vt_stacks.unwanted = vt_stacks.warm_count;
        }
        else chunk = vt_stacks.cold_count ? vt_stacks.cold[--vt_stacks.cold_count] : vt_carve();
        vt_unlock();
        return chunk != NULL ? chunk : vt_others.alloc(vt_others.ctx, size);
    }
    static void vt_give(void *context, void *chunk, size_t size) {
        int kept = 0;
        if (size == VT_CHUNK) {
            vt_lock();
            /* One from before is kept as well: it was mapped in the same way. */
            if (vt_stacks.warm_count + vt_stacks.cold_count < vt_stacks.room) {
                vt_stacks.warm[vt_stacks.warm_count++] = chunk;
                kept = 1;
            }
            vt_unlock();
        }
        if (!kept) vt_others.free(vt_others.ctx, chunk, size);
    }
    static void vt_keep_stacks(void) {
        PyObjectArenaAllocator ours = {NULL, vt_take, vt_give}, present;
        PyObject_GetArenaAllocator(&present);
        if (present.alloc == vt_take || !vt_make_room(VT_SLAB / VT_CHUNK)) return;
        /* No child of a fork may find it held by a thread of its parent. */
        if (pthread_atfork(vt_lock, vt_unlock, vt_unlock)) return;
        vt_others = present;
        PyObject_SetArenaAllocator(&ours);
    }
    /* Give back the pages of those that nobody wanted since the last time; whether more than a few are left warm. */
    static int vt_cool_stacks(void) {
        size_t spare, i;
        vt_lock();
        spare = vt_stacks.warm_count > VT_ALWAYS_WARM ? vt_stacks.warm_count - VT_ALWAYS_WARM : 0;
        if (spare > vt_stacks.unwanted) spare = vt_stacks.unwanted;
        for (i = 0; i < spare; i++) {
            madvise(vt_stacks.warm[i], VT_CHUNK, MADV_DONTNEED);
            vt_stacks.cold[vt_stacks.cold_count++] = vt_stacks.warm[i];
        }
        vt_stacks.warm_count -= spare;
        if (spare) memmove(vt_stacks.warm, vt_stacks.warm + spare, vt_stacks.warm_count * sizeof(void *));
        vt_stacks.unwanted = vt_stacks.warm_count;
        vt_unlock();
        return vt_stacks.warm_count > VT_ALWAYS_WARM;
    }
    static int vt_many_warm(void) { return vt_stacks.warm_count > VT_ALWAYS_WARM; }
    #else
    static void vt_keep_stacks(void) {}
    static int vt_cool_stacks(void) { return 0; }
    static int vt_many_warm(void) { return 0; }
    #endif
    """
    void vt_keep_stacks()
    bint vt_cool_stacks()
    bint vt_many_warm()

PyGreenlet_Import()

cdef object ABORTED = _ABORTED
cdef object TIMED_OUT = _TIMED_OUT
cdef object NOTHING = _NOTHING
cdef object MINUS_ONE = -1
cdef object CLOSED = _CLOSED
cdef int READ = _READ
cdef int WRITE = _WRITE
cdef int HANGUP = _HANGUP
cdef object carriers = _carriers
cdef object NEW = State.NEW
cdef object READY = State.READY
cdef object RUNNING = State.RUNNING
cdef object PARKED = State.PARKED
cdef object ENDED = State.ENDED
cdef double INF = inf
cdef double SLICE = _SLICE
cdef double LONGEST_WAIT = _LONGEST_WAIT
cdef double STUCK_AGAIN_AFTER = _STUCK_AGAIN_AFTER
cdef int SWITCHES_PER_POLL = _SWITCHES_PER_POLL
cdef int LONGEST_CHAIN = _LONGEST_CHAIN
cdef Py_ssize_t SHRINK_BY = states.SHRINK_BY
cdef double SHRINK_PAUSE = states.SHRINK_PAUSE
# Events taken from epoll at once, and the bytes that a read without a buffer of its own is given.
cdef enum:
    EVENTS = 256
    SCRATCH = 65536


# --- the run queue


cdef class RunQueue:
    """Fibers in the order in which they became ready: a ring that grows."""

    cdef PyObject **_ring
    cdef Py_ssize_t _first, _count, _room

    def __cinit__(self):
        self._room = 64
        self._ring = <PyObject **>PyMem_Malloc(self._room * sizeof(PyObject *))
        if self._ring is NULL:
            raise MemoryError

    def __dealloc__(self):
        while self._count:
            self.popleft()
        PyMem_Free(self._ring)

    def __len__(self):
        return self._count

    cpdef int append(self, fiber) except -1:
        if self._count == self._room:
            self._grow()
        Py_INCREF(fiber)
        self._ring[(self._first + self._count) & (self._room - 1)] = <PyObject *>fiber
        self._count += 1
        return 0

    cpdef object popleft(self):
        if not self._count:
            raise IndexError("nobody is ready")
        fiber = <object>self._ring[self._first]
        Py_DECREF(fiber)
        self._first = (self._first + 1) & (self._room - 1)
        self._count -= 1
        return fiber

    cdef int _grow(self) except -1:
        cdef Py_ssize_t i
        cdef PyObject **larger = <PyObject **>PyMem_Malloc(2 * self._room * sizeof(PyObject *))
        if larger is NULL:
            raise MemoryError
        for i in range(self._count):
            larger[i] = self._ring[(self._first + i) & (self._room - 1)]
        PyMem_Free(self._ring)
        self._ring, self._first, self._room = larger, 0, 2 * self._room
        return 0


# --- timers


# Not looked at by the garbage collector, which has enough to do with the threads: an entry lets go of its owner when it
# expires or is cancelled, and until then the heap keeps both.
@cython.no_gc
@cython.freelist(256)
cdef class Timer:
    """One entry of the heap; cancelled by dropping its owner."""

    cdef readonly double when
    cdef unsigned long long _number
    cdef public object owner

    cdef bint _before(self, Timer other):
        return self.when < other.when or (self.when == other.when and self._number < other._number)


cdef class Timers:
    """Timers of one scheduler; used on its OS thread only."""

    cdef list _heap
    cdef unsigned long long _numbers
    cdef Py_ssize_t _cancelled

    def __cinit__(self):
        self._heap = []

    def __len__(self):
        return len(self._heap) - self._cancelled

    def __iter__(self):
        """Each timer that was not cancelled, as time and owner. For looking at, from any OS thread."""
        cdef Timer timer
        return iter([(timer.when, timer.owner) for timer in self._heap if timer.owner is not None])

    cpdef Timer add(self, double when, owner):
        cdef Timer timer = Timer.__new__(Timer)
        timer.when = when
        timer._number = self._numbers
        timer.owner = owner
        self._numbers += 1
        self._heap.append(timer)
        self._rise(len(self._heap) - 1)
        return timer

    cpdef cancel(self, Timer timer):
        """Nothing happens if it expired already."""
        cdef Timer entry
        cdef Py_ssize_t i
        if timer.owner is None:
            return
        timer.owner = None
        self._cancelled += 1
        # Most timeouts are cancelled long before they are due; left in place they would fill the heap.
        if self._cancelled > 64 and self._cancelled * 2 > len(self._heap):
            self._heap = [entry for entry in self._heap if entry.owner is not None]
            for i in range(len(self._heap) // 2 - 1, -1, -1):
                self._sink(i)
            self._cancelled = 0

    cpdef double due(self):
        """When the earliest timer is due; `inf` without one."""
        while self._heap and (<Timer>self._heap[0]).owner is None:
            self._pop()
            self._cancelled -= 1
        return (<Timer>self._heap[0]).when if self._heap else INF

    cpdef bint expire(self, double now) except -1:
        """Expire all that are due, earliest first; tell whether there was one."""
        cdef Timer timer
        cdef bint any_expired = False
        while self.due() <= now and self._heap:
            timer = self._pop()
            owner, timer.owner = timer.owner, None
            owner.expire()
            any_expired = True
        return any_expired

    cdef Timer _pop(self):
        cdef list heap = self._heap
        cdef Timer first = <Timer>heap[0]
        last = heap.pop()
        if heap:
            heap[0] = last
            self._sink(0)
        return first

    cdef int _rise(self, Py_ssize_t place) except -1:
        cdef list heap = self._heap
        cdef Timer timer = <Timer>heap[place]
        cdef Py_ssize_t parent
        while place:
            parent = (place - 1) >> 1
            if not timer._before(<Timer>heap[parent]):
                break
            heap[place] = heap[parent]
            place = parent
        heap[place] = timer
        return 0

    cdef int _sink(self, Py_ssize_t place) except -1:
        cdef list heap = self._heap
        cdef Py_ssize_t count = len(heap), child
        cdef Timer timer = <Timer>heap[place]
        while True:
            child = 2 * place + 1
            if child >= count:
                break
            if child + 1 < count and (<Timer>heap[child + 1])._before(<Timer>heap[child]):
                child += 1
            if not (<Timer>heap[child])._before(timer):
                break
            heap[place] = heap[child]
            place = child
        heap[place] = timer
        return 0


# --- descriptors


cdef class Descriptor:
    """One entry: number, owner, what is known to be ready, and who waits."""

    cdef readonly int fd
    cdef readonly object owner
    cdef public bint readable, writable, hung_up, always_ready
    cdef bint _is_stream
    cdef list _readers, _writers

    def __init__(self, int fd, owner):
        self.fd = fd
        self.owner = owner
        self.readable = self.writable = True
        # After a hangup no further edge may come, so readiness is never forgotten again.
        self.hung_up = False
        self.always_ready = False
        self._is_stream = owner is not None and vt_is_stream(fd)
        self._readers = []
        self._writers = []

    @property
    def idle(self):
        return not self._readers and not self._writers

    cpdef drained(self):
        """A read took all there was: the next edge will say when there is more."""
        self.readable = self.hung_up

    cdef list _waiting(self, int direction):
        return self._readers if direction & READ else self._writers

    cpdef enlist(self, int direction, waiter):
        self._waiting(direction).append(waiter)

    cpdef withdraw(self, int direction, waiter):
        cdef list waiting = self._waiting(direction)
        if waiting and waiter in waiting:
            waiting.remove(waiter)

    cpdef report(self, int events):
        if events & HANGUP:
            self.hung_up = True
        if events & (READ | HANGUP):
            self.readable = True
            if self._readers:
                _unpark_all(self._readers, True)
        if events & WRITE:
            self.writable = True
            if self._writers:
                _unpark_all(self._writers, True)

    def close(self):
        _unpark_all(self._readers, CLOSED)
        _unpark_all(self._writers, CLOSED)

    cdef bint _is_of(self, owner) except -1:
        if self.owner is None:
            return False
        if PyWeakref_CheckRef(self.owner):
            return vt_owns(self.owner, owner)
        return self.owner() is owner


cdef int _unpark_all(list waiting, value) except -1:
    # All and not one: two readers may want different things of one descriptor, and each tries again for itself.
    cdef list woken = waiting[:]
    waiting.clear()
    for waiter in woken:
        if isinstance(waiter, Fiber):
            (<Fiber>waiter).unpark(value)
        else:
            waiter.unpark(value)
    return 0


cdef class Descriptors:
    """The descriptors of one scheduler; used on its OS thread only."""

    cdef object _poller
    cdef readonly Py_ssize_t waiting
    # By number: a borrowed place in `_entries`, which owns them.
    cdef dict _entries
    cdef PyObject **_places
    cdef Py_ssize_t _room
    # Of epoll, whose registration stands: nothing has to be said again before each wait. -1 with another poller.
    cdef int _epoll

    def __cinit__(self):
        self._entries = {}

    def __init__(self, poller):
        self._poller = poller
        self._epoll = poller.fileno() if VT_HAS_EPOLL and poller.name == "epoll" else -1

    def __dealloc__(self):
        PyMem_Free(self._places)

    cdef Descriptor _at(self, int fd):
        if fd < 0 or fd >= self._room or self._places[fd] is NULL:
            return None
        return <Descriptor>self._places[fd]

    cdef int _place(self, int fd, Descriptor entry) except -1:
        cdef Py_ssize_t room = self._room
        cdef PyObject **larger
        if fd >= room:
            room = max(2 * room, fd + 64)
            larger = <PyObject **>PyMem_Realloc(self._places, room * sizeof(PyObject *))
            if larger is NULL:
                raise MemoryError
            self._places = larger
            while self._room < room:
                larger[self._room] = NULL
                self._room += 1
        self._entries[fd] = entry
        self._places[fd] = <PyObject *>entry
        return 0

    cpdef Descriptor find(self, int fd, owner):
        """The entry of `owner`, if `fd` is known and still its own."""
        cdef Descriptor entry = self._at(fd)
        return entry if entry is not None and entry._is_of(owner) else None

    cpdef Descriptor claim(self, int fd, owner):
        """The entry of `owner()`, made and registered if need be."""
        cdef Descriptor entry = self.find(fd, owner())
        if entry is None:
            self.forget(fd)
            entry = self._register(Descriptor(fd, owner))
        return entry

    def borrow(self, int fd):
        """An entry for somebody who has only the number: whatever file it means now."""
        cdef Descriptor entry = self._at(fd)
        return self._register(Descriptor(fd, None)) if entry is None else entry

    cdef Descriptor _register(self, Descriptor entry):
        cdef int error
        if self._epoll >= 0:
            error = vt_epoll_add(self._epoll, entry.fd)
            # A regular file, for example.
            entry.always_ready = error == EPERM
            if error and error != EPERM:
                raise OSError(error, os.strerror(error))
        else:
            try:
                self._poller.register(entry.fd)
            except PermissionError:
                entry.always_ready = True
        self._place(entry.fd, entry)
        return entry

    def enlist(self, Descriptor entry, int direction, waiter, *, bint by_number):
        """Queue `waiter` for `direction` (READ or WRITE); see the reference engine."""
        if by_number:
            self._poller.rearm(entry.fd, direction)
        elif self._epoll < 0:
            self._poller.arm(entry.fd, direction)
        entry.enlist(direction, waiter)
        self.waiting += 1

    cpdef withdraw(self, Descriptor entry, int direction, waiter):
        """Undo `enlist`; due after every wait, however it ended."""
        self.waiting -= 1
        entry.withdraw(direction, waiter)
        if entry.owner is None and entry.idle and self._at(entry.fd) is entry:
            self.forget(entry.fd)

    cpdef forget(self, int fd):
        """`fd` is about to be closed, or means another file by now: whoever waits for it gets CLOSED."""
        cdef Descriptor entry = self._at(fd)
        if entry is not None:
            self._places[fd] = NULL
            del self._entries[fd]
            self._poller.unregister(fd)
            entry.close()

    def get(self, fd):
        """The entry of number `fd`, whoever owns it. From any OS thread."""
        return self._entries.get(fd)

    def forget_entry(self, Descriptor entry):
        """`forget`, unless the number belongs to a later entry by now."""
        if self._at(entry.fd) is entry:
            self.forget(entry.fd)

    def waits(self):
        """Who waits for which entry and direction. For looking at, from any OS thread."""
        cdef Descriptor entry
        return [
            (entry, direction, waiter)
            for entry in list(self._entries.values())
            for direction in (READ, WRITE)
            for waiter in list(entry._waiting(direction))
        ]

    cpdef report(self, int fd, int events):
        """The poller says that `fd` is ready."""
        cdef Descriptor entry = self._at(fd)
        if entry is not None:
            entry.report(events)


# --- fibers


cdef class Fiber:
    """What the scheduler switches. It stays on its scheduler for life: greenlets cannot change their OS thread."""

    cdef public Scheduler scheduler
    cdef public object state, _greenlet, _abort, _wake
    # None while it is empty: then the interpreter makes one when the first variable is set.
    cdef object _context
    # The name of a compiled call that parks, and its object.
    cdef object _waits_in, _waits_on
    cdef public double parked_at
    # Places for what a virtual thread keeps, which gives itself slots for those that its engine has not.
    cdef public object _affected_by, _cancel_reason, _cancel_source, _children, _parent, cleanup_grace
    cdef object _function, _arguments, _keywords
    cdef public object _deliveries, _interrupts, _joiners, _name, _roused_by
    cdef public object future, group, innermost, locals, sites, thread_ident
    cdef public bint cancel_called, _listens, hurried, queued
    cdef public int _deferred
    cdef public double _patience
    cdef public bint pending

    def __cinit__(self):
        self.state = NEW
        self._wake = NOTHING
        self.parked_at = -INF

    def __init__(self, Scheduler scheduler, context):
        self.scheduler = scheduler
        self.context = context

    def run(self):
        """What the fiber does. Must not raise."""
        raise NotImplementedError(f"{type(self).__name__} brings its own run()")

    def frame(self):
        """The innermost frame of the fiber, wherever it is; None before its first run and after its end."""
        if self._greenlet is PyGreenlet_GetCurrent() or self.scheduler.running is self:
            # Parked or not, it is the one whose greenlet runs: whoever finds nobody ready polls on its own stack.
            return _getframe(0)
        return None if self._greenlet is None else self._greenlet.gr_frame

    # --- checkpoints

    cpdef check(self):
        """The beginning of every checkpoint: raise what is pending, and yield after a long run."""
        cdef Scheduler scheduler
        if self.pending:
            self.raise_due()
        scheduler = self.scheduler
        if scheduler.now() >= scheduler.slice_end:
            scheduler.yield_now()
            if self.pending:
                self.raise_due()

    cpdef give_way(self):
        """Let others run after a long run, for calls that are no checkpoints but may be all that a loop does."""
        cdef Scheduler scheduler = self.scheduler
        if scheduler.now() >= scheduler.slice_end:
            scheduler.yield_now()

    cpdef yield_now(self):
        """A checkpoint that lets every ready fiber run once."""
        if self.pending:
            self.raise_due()
        self.scheduler.yield_now()
        if self.pending:
            self.raise_due()

    @property
    def context(self):
        if self._context is None:
            self._context = self._own_context()
        return self._context

    @context.setter
    def context(self, context):
        self._context = context

    cdef object _own_context(self):
        """The context that the interpreter made for it, or a new one that it runs in from now on."""
        if self._greenlet is PyGreenlet_GetCurrent() or self.scheduler.running is self:
            return vt_context()
        if self._greenlet is None:
            return Context()
        found = self._greenlet.gr_context
        if found is None:
            found = self._greenlet.gr_context = Context()
        return found

    @property
    def _call(self):
        """What a virtual thread runs: a function, its arguments and keywords; kept without a tuple of their own."""
        return None if self._function is None else (self._function, self._arguments, self._keywords or {})

    @_call.setter
    def _call(self, call):
        self._function, self._arguments, self._keywords = (None, None, None) if call is None else call

    @property
    def waits_for(self):
        """What a compiled call parks for: its name and its object; None where a Python frame tells."""
        return None if self._waits_in is None else (self._waits_in, self._waits_on)

    def park(self, abort=None, timeout=None):
        """Park, after `check()`: what the fiber was unparked with, or TIMED_OUT after `timeout` seconds."""
        return self._park(abort, INF if timeout is None else self.scheduler.now() + <double>timeout)

    cdef object _stay(self, abort, double deadline):
        """Park for a compiled call: its answer, ABORTED or what it raised, with the word on what for taken back.

        Without a `finally`, which would make a large frame on the C stack.
        """
        answer = self._stay_pending(abort, deadline) if self.pending else self.scheduler.park(abort, deadline)
        self._waits_in = self._waits_on = None
        return answer

    cdef object _stay_pending(self, abort, double deadline):
        try:
            return self.park_pending(abort, deadline)
        except BaseException as error:  # raised by the caller, when it has taken itself out of where it waited
            return error

    cdef object _park(self, abort, double deadline):
        if self.pending:
            return self.park_pending(abort, deadline)
        answer = self.scheduler.park(abort, deadline)
        if answer is ABORTED:
            self.raise_aborted()
        return answer

    def raise_due(self):
        """Raise what has to be raised now, if anything: `pending` says that there may be something."""

    def park_pending(self, abort, double deadline):
        """`park` while `pending` is set."""
        return self.scheduler.park(abort, deadline)

    def raise_aborted(self):
        """Raise what `park` was aborted for."""

    # --- the end of a virtual thread

    cdef int _succeed(self, PyObject *owned) except -1:
        value = <object>owned
        Py_DECREF(value)
        self._function = self._arguments = self._keywords = None
        if not _end_quietly(self, value):
            self.end(value, None)
        return 0

    cdef int _fail(self, bint is_framed) except -1:
        error = None
        try:
            vt_failed()
        except BaseException as raised:  # carried to whoever asks for the result
            error = raised
        # The frames of this call and of the one around the function would only be noise in the user's traceback.
        traceback = error.__traceback__ and error.__traceback__.tb_next
        error.__traceback__ = traceback.tb_next if is_framed and traceback is not None else traceback
        self._function = self._arguments = self._keywords = None
        self.end(None, error)
        return 0

    # --- being unparked

    def may_be_roused(self):
        """Asked on the fiber's OS thread before `rouse` takes effect."""
        return True

    cpdef unpark(self, value=True):
        """Make ready, with `value` as the answer of `park`. Thread-safe; true unless it was no longer parked."""
        cdef Scheduler scheduler = self.scheduler
        if PyThread_get_thread_ident() != scheduler.ident:
            scheduler.post(self._unpark_here, value)
            return True
        return self._unpark_here(value)

    cpdef _unpark_here(self, value):
        if self.state is PARKED:
            self._wake = value
            self.scheduler.make_ready(self)
            return True
        if self._wake is NOTHING and (self.state is RUNNING or self.state is READY):
            # It stands in a queue but has not parked yet: its park will return at once.
            self._wake = value
            return True
        return False

    cpdef _take_wake(self):
        wake, self._wake = self._wake, NOTHING
        return wake

    def rouse(self):
        """Let the fiber look after itself: if its wait can be withdrawn, `park` returns ABORTED. Thread-safe."""
        if PyThread_get_thread_ident() == self.scheduler.ident:
            self._rouse_here()
        else:
            self.scheduler.post(self._rouse_here)

    def _rouse_here(self):
        if self.state is PARKED and self.may_be_roused():
            self._withdraw(ABORTED)

    cpdef expire(self):
        """The deadline of `park` has come."""
        if self.state is PARKED:
            self._withdraw(TIMED_OUT)

    cdef _withdraw(self, answer):
        cdef bint withdrawn
        if self._abort is None:
            withdrawn = True
        elif type(self._abort) is WaitQueue:
            # It stands in that queue itself: see `WaitQueue.park`.
            withdrawn = (<WaitQueue>self._abort).withdraw(self)
        else:
            withdrawn = self._abort()
        if withdrawn:
            self._wake = answer
            self.scheduler.make_ready(self)


# --- the scheduler


cdef class Scheduler:
    """Run queue, timers, poller and inbox of one carrier; its arguments are those of the reference engine."""

    cdef readonly unsigned long ident
    cdef readonly object clock, poller
    cdef readonly Timers timers
    cdef readonly Descriptors descriptors
    # Polled from here, if the poller is epoll: its descriptor, else -1; where events come; where reads come.
    cdef int _epoll, _wakeup
    cdef vt_event *_events
    cdef char *_scratch
    cdef public object running
    # The observer, and what it is told by: looked up once.
    cdef object _observer, _tell_parked, _tell_readied, _tell_runs, _tell_ended
    cdef public Py_ssize_t outside
    cdef public double slice_end
    cdef readonly bint closed
    # For the layers above: see the reference engine.
    cdef public object background, threads, daemons, root
    cdef object _is_stuck, _when_stuck, _when_signalled
    cdef bint _real_time
    cdef object _clock_now
    cdef readonly object _ready
    cdef RunQueue _fifo
    cdef readonly list _spawners
    cdef object _inbox
    cdef bint _asleep
    cdef readonly unsigned long long switches
    cdef unsigned long long _poll_at_switch
    cdef double _poll_at
    cdef greenlet _starter
    cdef readonly list _pool
    cdef Py_ssize_t _pool_size, _unwanted
    cdef double _shrink_every, _shrink_at
    cdef Fiber _next, _chosen
    cdef object _life
    # The place of the last spawn, and the sites made of it.
    cdef object _site_code, _site_inherited
    cdef int _site_instruction
    cdef tuple _sites
    cdef object __weakref__

    def __cinit__(self):
        self._events = <vt_event *>PyMem_Malloc(EVENTS * sizeof(vt_event))
        self._scratch = <char *>PyMem_Malloc(SCRATCH)
        if self._events is NULL or self._scratch is NULL:
            raise MemoryError

    def __dealloc__(self):
        PyMem_Free(self._events)
        PyMem_Free(self._scratch)

    def __init__(self, poller, clock, order, is_stuck, when_stuck, when_signalled):
        self.ident = PyThread_get_thread_ident()
        self.clock = clock
        self.poller = poller
        self.timers = Timers()
        self.descriptors = Descriptors(poller)
        self._epoll = self.descriptors._epoll
        self._wakeup = poller.wakeup_fd if self._epoll >= 0 else -1
        self.running = None
        self.outside = 0
        self.observer = None
        self.slice_end = INF
        self.closed = False
        self._is_stuck = is_stuck
        self._when_stuck = when_stuck
        self._when_signalled = when_signalled
        self._real_time = VT_HAS_MONOTONIC and type(clock) is MonotonicClock
        self._clock_now = clock.now
        self._fifo = RunQueue() if type(order) is FifoOrder else None
        self._ready = order.run_queue() if self._fifo is None else self._fifo
        # Who runs before anyone else, the latest first: above all fibers whose spawn started another one.
        self._spawners = []
        self._inbox = deque()
        self._asleep = False
        self.switches = 0
        self._poll_at_switch = 0
        self._poll_at = -INF
        self._starter = PyGreenlet_New(self._start_greenlets, PyGreenlet_GetCurrent())
        self._pool = []
        self._pool_size, self._shrink_every = states.POOL_SIZE, states.SHRINK_EVERY
        # How many of them nobody has taken since the last look, and when the next one is due.
        self._unwanted = 0
        self._shrink_at = -INF
        self._life = self._carry
        vt_keep_stacks()
        self._next = None

    cdef double now(self) except? -1:
        return vt_monotonic() if self._real_time else self._clock_now()

    @property
    def observer(self):
        return self._observer

    @observer.setter
    def observer(self, observer):
        told = (None,) * 4
        if observer is not None:
            told = observer.parked, observer.readied, observer.runs, observer.ended
        self._tell_parked, self._tell_readied, self._tell_runs, self._tell_ended = told
        self._observer = observer

    # --- from any OS thread

    def post(self, function, *args):
        """Have `function(*args)` called on the carrier, between two switches. It must not park or raise."""
        self._inbox.append((function, args))
        if self._asleep:
            self.poller.interrupt()

    # --- on the carrier

    def adopt(self, Fiber fiber):
        """The code that is running becomes `fiber`."""
        fiber.state = RUNNING
        self.running = fiber
        self.slice_end = self.now() + SLICE

    cpdef make_ready(self, Fiber fiber):
        """Queue a parked or new fiber."""
        if self._observer is not None:
            self._tell_readied(fiber)
        fiber.state = READY
        if self._fifo is not None:
            self._fifo.append(fiber)
        else:
            self._ready.append(fiber)

    def make_next(self, Fiber fiber):
        """Let a new fiber run at the next switch, before anyone else."""
        fiber.state = READY
        self._spawners.append(fiber)

    cpdef start(self, Fiber fiber):
        """Run a new fiber at once, up to its first park; then the caller goes on, before anyone else."""
        cdef Fiber spawner = self.running
        # As in `_take_next`, whatever comes before the switch is on no fiber: it must not park this one.
        self.running = None
        spawner.state = READY
        spawner._greenlet = PyGreenlet_GetCurrent()
        self._spawners.append(spawner)
        self._chosen = fiber
        self._switch()

    cpdef park(self, abort=None, double deadline=inf):
        """Run others until the running fiber is unparked; the value it was unparked with, TIMED_OUT or ABORTED."""
        cdef Fiber fiber = self.running
        cdef Timer timer = None
        # Before the look: a clock may be readable code, and a finalizer come in the midst of it and unpark.
        cdef double now = self.now()
        if fiber._wake is NOTHING:
            fiber._abort = abort
            fiber._greenlet = PyGreenlet_GetCurrent()
            fiber.parked_at = now
            fiber.state = PARKED
            if self._observer is not None:
                self._tell_parked(fiber)
            if deadline < INF:
                timer = self.timers.add(deadline, fiber)
            self._take_next(now)
            self._switch()
            fiber._abort = None
            if timer is not None:
                self.timers.cancel(timer)
        return fiber._take_wake()

    cpdef yield_now(self):
        """Let every fiber that is ready run once."""
        cdef Fiber fiber = self.running
        fiber._greenlet = PyGreenlet_GetCurrent()
        self.make_ready(fiber)
        self._take_next(self.now())
        self._switch()

    def close(self):
        """End the pooled greenlets and give the poller back. No fiber but the running one may be left."""
        self.closed = True
        self._next = None
        self._end_pooled(len(self._pool))
        self._starter.parent = PyGreenlet_GetCurrent()
        self._starter.switch(None)
        self.poller.close()

    # --- switching

    cdef bint _nobody_is_ready(self) except -1:
        return self._fifo._count == 0 if self._fifo is not None else not len(self._ready)

    # Handed on by `_chosen` and not as an argument: whoever switches away holds its arguments until it comes back, and
    # must not keep the other fiber alive.

    cdef int _take_next(self, double now) except -1:
        """Choose who runs next; poll until there is somebody."""
        # Nobody runs while this looks for the next one: a signal handler or finalizer in here is on no fiber.
        self.running = None
        self.switches += 1
        if self.switches >= self._poll_at_switch or now >= self._poll_at:
            self._look_outside(0.0)
        if self._inbox:
            self._empty_inbox()
        if self._spawners:
            self._chosen = self._spawners.pop()
            return 0
        if self._nobody_is_ready():
            while self._nobody_is_ready():
                self._idle()
                if self._spawners:
                    self.slice_end = self.now() + SLICE
                    self._chosen = self._spawners.pop()
                    return 0
            now = self.now()
        self.slice_end = now + SLICE
        self._chosen = self._fifo.popleft() if self._fifo is not None else self._ready.popleft()
        return 0

    cdef int _switch(self) except -1:
        """Switch to the one that was chosen."""
        cdef Fiber fiber = self._chosen
        cdef greenlet target = fiber._greenlet
        cdef bint is_new = False
        if self._observer is not None:
            self._tell_runs(fiber)
        self._chosen = None
        if target is None:
            is_new = not self._pool
            target = PyGreenlet_New(self._life, self._starter) if is_new else self._pool.pop()
            if len(self._pool) < self._unwanted:
                self._unwanted = len(self._pool)
            self._next = fiber
        fiber.state = RUNNING
        self.running = fiber
        fiber = None
        if is_new:
            self._starter.switch(target)
        elif target is not PyGreenlet_GetCurrent():
            PyGreenlet_Switch(target, NULL, NULL)
        if vt_is_traced():
            landed()
        return 0

    def _start_greenlets(self, target):
        """The life of the starter, by which no greenlet begins with the recursion depth of the one before."""
        while target is not None:
            target = target.switch()

    def _carry(self):
        """The life of a greenlet: run fiber after fiber. It ends when it is switched to with none to run."""
        cdef Fiber fiber
        me = PyGreenlet_GetCurrent()
        while self._next is not None:
            fiber, self._next = self._next, None
            # Set from inside: greenlet takes one that is suspended without any Python frame for one that runs elsewhere.
            if fiber._context is not None or vt_has_context():
                me.gr_context = fiber._context
            if type(fiber) is VirtualThread:
                _run(fiber)
            else:
                fiber.run()
            fiber.state = ENDED
            if self._observer is not None:
                self._tell_ended(fiber)
            fiber._greenlet = None
            fiber = None
            self._pool.append(me)
            self._take_next(self.now())
            self._switch()

    cdef int _give_back(self) except -1:
        """End greenlets, and give back the memory of frame stacks, that nobody has wanted for a while."""
        cdef Py_ssize_t spare
        cdef double now
        if len(self._pool) <= self._pool_size and not vt_many_warm():
            return 0
        now = vt_monotonic()
        if now < self._shrink_at:
            return 0
        spare = min(self._unwanted, len(self._pool) - self._pool_size)
        self._end_pooled(max(0, min(spare, SHRINK_BY)))
        self._unwanted = len(self._pool)
        vt_cool_stacks()
        self._shrink_at = now + (SHRINK_PAUSE if spare > SHRINK_BY else self._shrink_every)
        return 0

    cdef int _end_pooled(self, Py_ssize_t count) except -1:
        """End the `count` greenlets that have been in the pool for longest."""
        cdef list ended = self._pool[:count]
        del self._pool[:count]
        for pooled in ended:
            pooled.parent = PyGreenlet_GetCurrent()
            pooled.switch()
        return 0

    # --- the outside world

    cdef int _idle(self) except -1:
        """Nobody is ready: wait for a timer, a descriptor or a message."""
        cdef double due = self.timers.due()
        cdef bint outside = self.outside > 0 or self.descriptors.waiting > 0
        cdef double patience
        cdef bint heard
        if due == INF and not outside and not self._inbox and self._is_stuck():
            # An OS thread may be about to start, which nobody can see yet.
            if not self._look_outside(STUCK_AGAIN_AFTER) and self._nobody_is_ready() and self._is_stuck():
                self._when_stuck()
            return 0
        patience = self._patience(due, outside)
        if len(self._pool) > self._pool_size or vt_many_warm():
            # Woken for nothing if it must be, until what the last rush needed is given back.
            patience = min(patience, max(0.0, self._shrink_at - vt_monotonic()))
        heard = self._look_outside(-1.0 if patience == INF else patience)
        # Without a timer the wait may still end for nothing: a late byte in the wakeup pipe, a signal.
        if not heard and self._nobody_is_ready() and due < INF:
            self.clock.jump(due)
            self.timers.expire(self.now())
        return 0

    cdef double _patience(self, double due, bint outside) except -1:
        """How many seconds the clock lets the outside world have, until `due`."""
        if self._real_time:
            return max(0.0, due - vt_monotonic())
        seconds = self.clock.patience(due, outside)
        return INF if seconds is None else seconds

    cdef bint _look_outside(self, double seconds) except -1:
        """Poll for up to `seconds` (negative: until something comes), then see to timers and messages."""
        cdef double now
        cdef bint heard = False
        self._asleep = True
        # Who posts looks at the flag after appending: either it is seen here, or it interrupts the wait.
        if self._inbox:
            seconds = 0
        elif seconds > LONGEST_WAIT:
            seconds = LONGEST_WAIT
        try:
            heard = self._poll_quickly(seconds) if self._epoll >= 0 else self._poll(seconds)
        except BaseException as error:  # of no concern to whichever fiber polled; told to the layer above
            self._when_signalled(error)
        self._asleep = False
        heard = heard or bool(self._inbox)
        self._empty_inbox()
        now = self.now()
        self._poll_at_switch = self.switches + SWITCHES_PER_POLL
        self._poll_at = now + SLICE
        self._give_back()
        return self.timers.expire(now) or heard

    cdef bint _poll(self, double seconds) except -1:
        """Wait by the poller's own means, and report; tell whether anything came."""
        events = self.poller.wait(None if seconds < 0 else seconds)
        self._asleep = False
        for fd, ready in events:
            self.descriptors.report(fd, ready)
        return bool(events)

    cdef bint _poll_quickly(self, double seconds) except -1:
        """The same by epoll, without a list of what came."""
        cdef int i, count, error, milliseconds
        cdef double until = vt_monotonic() + seconds if seconds > 0 else 0
        cdef bint heard = False, interrupted = False
        while True:
            # Rounded up: waking before a timer is due would spin through the last millisecond.
            milliseconds = -1 if seconds < 0 else <int>(seconds * 1000 + 0.999999)
            if milliseconds:
                with nogil:
                    count = vt_epoll_wait(self._epoll, self._events, EVENTS, milliseconds)
                    error = errno
            else:
                count = vt_epoll_wait(self._epoll, self._events, EVENTS, 0)
                error = errno
            if count >= 0 or error != EINTR:
                break
            PyErr_CheckSignals()
            if seconds > 0:
                seconds = max(0.0, until - vt_monotonic())
        self._asleep = False
        if count < 0:
            raise OSError(error, os.strerror(error))
        for i in range(count):
            if vt_event_fd(&self._events[i]) == self._wakeup:
                interrupted = True
            else:
                heard = True
                self.descriptors.report(vt_event_fd(&self._events[i]), vt_event_ready(&self._events[i]))
        if interrupted:
            # Readable code, in which a signal handler may raise: edges not reported by then would be lost.
            self.poller.drain()
        return heard

    cdef int _empty_inbox(self) except -1:
        # Only what is there now: a message may post another one.
        for _ in range(len(self._inbox)):
            function, args = self._inbox.popleft()
            function(*args)
        return 0


# --- who runs here


def become_carrier(Scheduler scheduler):
    """This OS thread runs the fibers of `scheduler` from now on."""
    global vt_here
    carriers[scheduler.ident] = scheduler
    vt_here = <PyObject *>scheduler


def cease_carrier():
    """This OS thread is no carrier any more."""
    global vt_here
    vt_here = NULL
    carriers.pop(PyThread_get_thread_ident(), None)


def running():
    """The fiber that runs on this OS thread; None on a plain OS thread and inside the scheduler."""
    return None if vt_here is NULL else (<Scheduler>vt_here).running


# --- what stands above the engine, and is hot enough to be compiled


cdef class Section:
    """A reentrant lock for a few instructions: `with section:`. A finalizer may run inside."""

    cdef PyThread_type_lock _lock
    cdef unsigned long _owner
    cdef int _count

    def __cinit__(self):
        self._lock = PyThread_allocate_lock()
        if self._lock is NULL:
            raise MemoryError

    def __dealloc__(self):
        if self._lock is not NULL:
            PyThread_free_lock(self._lock)

    cdef void _enter(self) noexcept:
        cdef unsigned long me = PyThread_get_thread_ident()
        if self._owner != me:
            if not PyThread_acquire_lock(self._lock, NOWAIT_LOCK):
                with nogil:
                    PyThread_acquire_lock(self._lock, WAIT_LOCK)
            self._owner = me
        self._count += 1

    cdef void _leave(self) noexcept:
        self._count -= 1
        if not self._count:
            self._owner = 0
            PyThread_release_lock(self._lock)

    def __enter__(self):
        self._enter()
        return True

    def __exit__(self, kind, error, traceback):
        self._leave()

    def _at_fork_reinit(self):
        """In the child of a fork: whoever was inside is not in this process. As CPython's locks name it."""
        # The old one may be taken, and is lost: it could not be destroyed.
        self._lock = PyThread_allocate_lock()
        if self._lock is NULL:
            raise MemoryError
        self._owner, self._count = 0, 0


@cython.freelist(64)
cdef class _Place:
    """Where a waiter stands in its queue: between two others."""

    cdef object waiter
    cdef _Place before, behind


cdef class _Withdrawal:
    """The undo of a wait in a queue."""

    cdef WaitQueue _queue
    cdef object _waiter

    def __call__(self):
        return self._queue.withdraw(self._waiter)


cdef class WaitQueue:
    """Waiters in the order in which they came: a ring of places, and who stands where."""

    # Made late, since most queues stay empty.
    cdef dict _places
    cdef _Place _first, _last

    def __len__(self):
        return len(self._places) if self._places is not None else 0

    cpdef add(self, waiter):
        cdef _Place place = _Place.__new__(_Place)
        cdef dict places = {} if self._places is None else self._places
        place.waiter = waiter
        # A finalizer may have run since, and have added the first.
        if self._places is None:
            self._places = places
        if self._places.setdefault(waiter, place) is not place:
            # It stands there already, left behind by a wait that a signal handler ended.
            return
        place.before = self._last
        if self._last is None:
            self._first = place
        else:
            self._last.behind = place
        self._last = place

    cpdef bint withdraw(self, waiter) except -1:
        """Take `waiter` out. False: somebody else did, and its wake-up is on its way."""
        cdef _Place place
        if not self._places:
            return False
        place = self._places.pop(waiter, None)
        if place is None:
            return False
        if place.before is None:
            self._first = place.behind
        else:
            place.before.behind = place.behind
        if place.behind is None:
            self._last = place.before
        else:
            place.behind.before = place.before
        place.before = place.behind = None
        return True

    cpdef park(self, waiter, timeout=None):
        """Park `waiter`, which stands in this queue: what it was unparked with, or TIMED_OUT. May raise Cancelled."""
        cdef _Withdrawal withdrawal
        cdef Fiber fiber
        cdef double deadline
        if isinstance(waiter, Fiber):
            fiber = <Fiber>waiter
            # Before the look: a clock may be readable code, and an interrupt come in the midst of it.
            deadline = INF if timeout is None else fiber.scheduler.now() + <double>timeout
            if not fiber.pending:
                return fiber._park(self, deadline)
        withdrawal = _Withdrawal.__new__(_Withdrawal)
        withdrawal._queue, withdrawal._waiter = self, waiter
        return waiter.park(withdrawal, timeout)

    cpdef bint unpark_one(self, value=True) except -1:
        """Unpark the first; false if nobody waits."""
        while self._first is not None:
            waiter = self._first.waiter
            if self.withdraw(waiter) and waiter.unpark(value):
                return True
        return False

    def first(self):
        """The one who waits longest, left in the queue; None if nobody waits."""
        return None if self._first is None else self._first.waiter

    cpdef Py_ssize_t unpark_all(self, value=True) except -1:
        """Unpark those who wait now; how many."""
        cdef Py_ssize_t unparked = 0
        if self._places:
            for _ in range(len(self._places)):
                unparked += self.unpark_one(value)
        return unparked

    def forget_all(self):
        """After a fork: the waiters are not in this process."""
        self._places = self._first = self._last = None


cdef class Roster:
    """The places of a group: what is asked at each spawn and at each end."""

    cdef public object _body, _closed, _ended, _listeners, _permits, _phase, _scope
    cdef public dict _members
    cdef public Section _changing
    cdef public WaitQueue _empty


cdef class Outcome:
    """The places of a future, which gives itself slots for those that its engine has not."""

    cdef public object thread, _state, _result, _exception, _waiting, _callbacks, _made_condition, _made_waiters
    cdef public bint failure_taken


# What is compiled here of the layers above, as it reads there.
cdef dict readable_parts = {}
# What the compiled parts use of these layers, found when the first thread is spawned.
cdef object ThreadGroup = None, VirtualThread = None, Future, OPEN, FINISHED, FUTURE_RUNNING, idents
cdef Section changing_futures


cdef int _learn() except -1:
    global ThreadGroup, VirtualThread, Future, OPEN, FINISHED, FUTURE_RUNNING, idents, changing_futures
    group = readable_parts["vthreads._core.group.ThreadGroup.spawn"].__globals__
    VirtualThread, Future = group["VirtualThread"], group["Future"]
    OPEN, FINISHED = group["OPEN"], group["FINISHED"]
    idents = readable_parts["vthreads._core.thread.VirtualThread.run"].__globals__["idents"]
    future = Future.settle.__globals__
    FUTURE_RUNNING, changing_futures = future["RUNNING"], future["changing_futures"]
    ThreadGroup = group["ThreadGroup"]
    return 0


@cython.binding(True)
def spawn(self, fn, /, *args, **kwargs):
    cdef Scheduler scheduler
    cdef Fiber caller, thread
    cdef Roster group = <Roster>self if isinstance(self, Roster) else None
    if vt_here is NULL or (<Scheduler>vt_here).running is None or group is None:
        return readable_parts["vthreads._core.group.ThreadGroup.spawn"](self, fn, *args, **kwargs)
    if group._body is None or group._permits is not None:
        return readable_parts["vthreads._core.group.ThreadGroup.spawn"](self, fn, *args, **kwargs)
    if ThreadGroup is None:
        _learn()
    scheduler = <Scheduler>vt_here
    caller = <Fiber>scheduler.running
    scope = group._scope
    if (
        (<Fiber>group._body).scheduler is not scheduler
        or group._phase is not OPEN
        or group._closed is not None
        or scope._affected_by is not None
    ):
        return readable_parts["vthreads._core.group.ThreadGroup.spawn"](self, fn, *args, **kwargs)
    sites = _sites_here(scheduler, caller)
    if sites is None:
        return readable_parts["vthreads._core.group.ThreadGroup.spawn"](self, fn, *args, **kwargs)
    thread = <Fiber>vt_new(VirtualThread)
    thread.scheduler = scheduler
    thread._context = vt_copy_context()
    thread.group = self
    thread._function, thread._arguments, thread._keywords = fn, args, kwargs if kwargs else None
    thread.sites = sites
    thread.thread_ident = next(idents)
    thread.innermost = thread
    thread._patience = -INF
    thread._listens = True
    future = vt_new(Future)
    (<Outcome>future).thread = thread
    (<Outcome>future)._state = FUTURE_RUNNING
    thread.future = future
    group._changing._enter()
    # A finalizer or another OS thread may have come in the midst of the making, and have ended the group. From this
    # look to the start nothing else runs.
    if group._phase is not OPEN or group._closed is not None or scope._affected_by is not None:
        group._changing._leave()
        thread.future = None
        return readable_parts["vthreads._core.group.ThreadGroup.spawn"](self, fn, *args, **kwargs)
    group._members[thread] = None
    group._changing._leave()
    thread._parent = scope
    scope._children[thread] = None
    scheduler.start(thread)
    return future


cdef tuple _sites_here(Scheduler scheduler, Fiber caller):
    """Where the user's code called, and where it was spawned; None if a call of this package lies between."""
    cdef PyObject *code
    cdef PyObject *globals
    cdef int instruction
    if not vt_place(&code, &globals, &instruction):
        return None
    found, names = <object>code, <object>globals
    Py_DECREF(found)
    Py_DECREF(names)
    if (
        found is scheduler._site_code
        and instruction == scheduler._site_instruction
        and caller.sites is scheduler._site_inherited
    ):
        # The same as the last time, as in a loop.
        return scheduler._sites
    name = (<dict>names).get("__name__")
    if type(name) is not str or (<str>name).startswith("vthreads") and (name == "vthreads" or (<str>name)[8] == "."):
        return None
    site = vt_new(SpawnSite)
    site._code, site._instruction = found, instruction
    scheduler._site_code, scheduler._site_instruction, scheduler._site_inherited = found, instruction, caller.sites
    scheduler._sites = (site, *(<tuple>caller.sites)[: LONGEST_CHAIN - 1])
    return scheduler._sites


@cython.binding(True)
def instruction_here(int depth):
    if depth > 0:
        return readable_parts["vthreads._core.current.instruction_here"](depth)
    return vt_instruction()


@cython.binding(True)
def run_thread(self):
    _run(<Fiber?>self)


cdef int _run(Fiber thread) except -1:
    # What stands on the C stack is copied at each switch, so this keeps little there: what comes after the call is in
    # methods, which are not inlined.
    cdef PyObject *value
    cdef bint is_framed = False
    if thread.queued or thread._affected_by is not None or thread._function is None:
        readable_parts["vthreads._core.thread.VirtualThread.run"](thread)
        return 0
    if type(thread._function) is FunctionType or type(thread._function) is MethodType:
        value = vt_call(thread._function, thread._arguments, thread._keywords)
    else:
        is_framed = True
        value = vt_call_in_a_frame(call_in_a_frame, thread._function, thread._arguments, thread._keywords)
    return thread._fail(is_framed) if value is NULL else thread._succeed(value)


cdef bint _end_quietly(Fiber thread, value) except -1:
    """The end of a thread about which nobody has to be told anything special; false if it is not of that kind."""
    cdef Outcome future
    cdef Roster group
    if ThreadGroup is None or type(thread.group) is not ThreadGroup or thread.innermost is not thread:
        return False
    group = <Roster>thread.group
    if thread._children or thread._joiners is not None or group._permits is not None:
        return False
    if thread.locals is not None:
        # Their finalizers may do anything, as `end` expects.
        return False
    future = <Outcome>thread.future
    thread._deferred += 1
    changing_futures._enter()
    if future._callbacks is not None or future._made_condition is not None:
        changing_futures._leave()
        thread._deferred -= 1
        return False
    future._result, future._state = value, FINISHED
    changing_futures._leave()
    if future._waiting is not None:
        (<WaitQueue>future._waiting).unpark_all()
    # It may have been cancelled by now, and have interrupts: nothing is delivered any more.
    scope = thread._parent
    scope._children.pop(thread, None)
    thread.state = ENDED
    thread._deliveries = thread._roused_by = None
    group._changing._enter()
    try:
        del group._members[thread]
        group._ended.append(future)
        if group._listeners is not None:
            for listener in group._listeners:
                listener.add(future)
    finally:
        group._changing._leave()
    if not group._members:
        group._empty.unpark_all()
    # Without these cycles, thread and future go as soon as the last user lets go of them.
    thread.future = thread._affected_by = None
    thread.innermost = scope
    if thread._joiners is not None:
        thread._joiners.unpark_all()
    return True


# --- checkpoints


cdef inline Fiber _here():
    """The fiber that runs on this OS thread."""
    return None if vt_here is NULL or (<Scheduler>vt_here).running is None else <Fiber>(<Scheduler>vt_here).running


@cython.binding(True)
def checkpoint():
    cdef Fiber fiber = _here()
    if fiber is not None:
        fiber.yield_now()


cdef inline int _check() except -1:
    cdef Fiber fiber = _here()
    if fiber is not None:
        fiber.check()
    return 0


@cython.binding(True)
def check_here():
    _check()


@cython.binding(True)
def give_way_here():
    cdef Fiber fiber = _here()
    if fiber is not None:
        fiber.give_way()


@cython.binding(True)
def sleep(seconds):
    cdef Fiber fiber = _here()
    cdef double span = seconds if type(seconds) is float or type(seconds) is int else -1
    # Whatever else is asked for, the readable call does, or says what is wrong with it.
    return readable_parts["vthreads.timeouts.sleep"](seconds) if fiber is None or not span > 0 else _sleep(fiber, span)


cdef object _sleep_here(self, seconds):
    cdef Fiber fiber = _here()
    cdef double span = seconds if type(seconds) is float or type(seconds) is int else -1
    if fiber is None:
        return original_sleep(seconds)
    return readable_parts["vthreads.timeouts.sleep_here"](seconds) if not span > 0 else _sleep(fiber, span)


# A builtin function as the original is, by name and module: called as fast, and no method where a class keeps it.
cdef object sleep_here = vt_time_sleep(_sleep_here)


cdef object _sleep(Fiber fiber, double span):
    fiber.check()
    fiber._waits_in = "sleep"
    answer = fiber._stay(None, fiber.scheduler.now() + span)
    if answer is ABORTED:
        fiber.raise_aborted()
    if isinstance(answer, BaseException):
        raise answer


# --- locks


cdef object _waiter_here():
    cdef Fiber fiber = _here()
    return modules["vthreads._core.wait_queue"].OSThreadWaiter() if fiber is None else fiber


cdef object _park_in(WaitQueue queue, waiter, timeout, str name, of):
    """Park a waiter of `queue`, with a word on what for."""
    cdef Fiber fiber
    cdef double deadline
    if not isinstance(waiter, Fiber):
        return queue.park(waiter, timeout)
    fiber = <Fiber>waiter
    # Before the look: a clock may be readable code, and an interrupt come in the midst of it.
    deadline = INF if timeout is None else fiber.scheduler.now() + <double>timeout
    fiber._waits_in, fiber._waits_on = name, of
    if not fiber.pending:
        answer = fiber._stay(queue, deadline)
        if answer is ABORTED:
            fiber.raise_aborted()
        return answer
    try:
        return queue.park(fiber, timeout)
    finally:
        fiber._waits_in = fiber._waits_on = None


cdef object _seconds(blocking, timeout):
    """The arguments of `acquire` as seconds, or None for no limit. Checked here, as it works to the very end."""
    if timeout == -1:
        return None
    if not blocking:
        raise ValueError("can't specify a timeout for a non-blocking call")
    if not timeout >= 0:
        raise ValueError("timeout value must be a non-negative number")
    if timeout > TIMEOUT_MAX:
        raise OverflowError("timeout value is too large")
    return timeout


cdef class Lock:
    """As `threading.Lock`, fair. Any thread may release it. See the readable class of this name.

    Between a look at its state and a change, no other Python code can run: that is what the other one has a lock of the
    operating system for.
    """

    cdef bint _taken, _checks, _is_plain
    cdef readonly WaitQueue _waiting
    cdef object __weakref__

    _always_checks = True

    def __cinit__(self, *_, **__):
        self._waiting = WaitQueue.__new__(WaitQueue)
        self._checks = type(self)._always_checks
        # Whether no subclass makes something else of them.
        self._is_plain = type(self).acquire is Lock.acquire and type(self).release is Lock.release

    def __init__(self):
        pass

    def __repr__(self):
        return f"<{type(self).__name__} {'locked' if self.locked() else 'unlocked'} waiting={len(self._waiting)}>"

    cdef bint _acquire(self) except -1:
        cdef Fiber fiber
        if self._checks:
            fiber = _here()
            if fiber is not None:
                fiber.check()
        if not self._taken:
            self._taken = True
            return True
        return self._wait(None)

    @cython.binding(True)
    def acquire(self, blocking=True, timeout=-1):
        if blocking is True and timeout is MINUS_ONE:
            return self._acquire()
        seconds = _seconds(blocking, timeout)
        waits = blocking and seconds != 0
        if waits and self._checks:
            _check()
        return self._take() or bool(waits and self._wait(seconds))

    cpdef bint _take(self):
        """Take it if it is free."""
        if self._taken:
            return False
        self._taken = True
        return True

    cdef bint _wait(self, timeout) except -1:
        if not self._checks:
            _check()
        waiter = _waiter_here()
        self._waiting.add(waiter)
        if self._take():
            # A finalizer released it. Only who holds the lock takes waiters out, so this one is in.
            self._waiting.withdraw(waiter)
            return True
        return _park_in(self._waiting, waiter, timeout, "Lock.acquire", self) is not TIMED_OUT

    cdef int _release(self) except -1:
        if not self._taken:
            raise RuntimeError("release unlocked lock")
        while not self._waiting.unpark_one():
            self._taken = False
            # Somebody may have queued after the look and before the release.
            if self._waiting._first is None or not self._take():
                return 0
        return 0

    @cython.binding(True)
    def release(self):
        self._release()

    @cython.binding(True)
    def locked(self):
        return self._taken

    def __enter__(self):
        return self._acquire() if self._is_plain else self.acquire()

    def __exit__(self, kind, error, traceback):
        if self._is_plain:
            self._release()
        else:
            self.release()

    @cython.binding(True)
    def statistics(self):
        return modules["vthreads.locks"].LockStatistics(self.locked(), None, len(self._waiting))

    def _at_fork_reinit(self):
        """Start afresh, in the child of a fork: whoever held it may not be here."""
        self._taken = False
        self._waiting.forget_all()


cdef inline unsigned long long _ident_here() except? 0:
    cdef Fiber fiber = _here()
    return PyThread_get_thread_ident() if fiber is None else fiber.thread_ident


cdef class _HoldWanted:
    """Somebody who waits for an RLock, and how it will be held then."""

    cdef readonly object _waiter
    cdef unsigned long long _owner
    cdef int _count

    def unpark(self, RLock lock):
        lock._owner, lock._count = self._owner, self._count
        return self._waiter.unpark(True)


cdef class _HoldWithdrawal:
    """The undo of a wait for an RLock."""

    cdef WaitQueue _queue
    cdef _HoldWanted _wanted

    def __call__(self):
        return self._queue.withdraw(self._wanted)


cdef class RLock:
    """As `threading.RLock`, fair: its owner, virtual or OS thread, may take it again. See the readable class."""

    cdef unsigned long long _owner
    cdef int _count
    cdef bint _checks, _is_plain
    cdef readonly WaitQueue _waiting
    cdef object __weakref__

    _always_checks = True

    def __cinit__(self, *_, **__):
        self._waiting = WaitQueue.__new__(WaitQueue)
        self._checks = type(self)._always_checks
        # Whether no subclass makes something else of them.
        self._is_plain = type(self).acquire is RLock.acquire and type(self).release is RLock.release

    def __init__(self):
        pass

    def __repr__(self):
        state = f"locked owner={self._owner} count={self._count}" if self._count else "unlocked"
        return f"<{type(self).__name__} {state} waiting={len(self._waiting)}>"

    cpdef _held(self):
        """Owner and count; zeros while it is free."""
        return self._owner, self._count

    cdef bint _take(self, unsigned long long me, int count):
        if self._count:
            return False
        self._owner, self._count = me, count
        return True

    cdef bint _acquire(self, timeout, bint waits) except -1:
        cdef unsigned long long me
        if waits and self._checks:
            _check()
        me = _ident_here()
        if self._count and self._owner == me:
            self._count += 1
            return True
        return self._take(me, 1) or (waits and self._wait(me, 1, timeout))

    @cython.binding(True)
    def acquire(self, blocking=True, timeout=-1):
        if blocking is True and timeout is MINUS_ONE:
            return self._acquire(None, True)
        seconds = _seconds(blocking, timeout)
        return self._acquire(seconds, bool(blocking and seconds != 0))

    cdef bint _wait(self, unsigned long long me, int count, timeout) except -1:
        cdef _HoldWanted wanted
        cdef _HoldWithdrawal withdrawal
        cdef Fiber fiber
        if not self._checks:
            _check()
        wanted = _HoldWanted.__new__(_HoldWanted)
        wanted._waiter, wanted._owner, wanted._count = _waiter_here(), me, count
        self._waiting.add(wanted)
        if self._take(me, count):
            # A finalizer released it, or handed it over. If the latter, its wake-up is there.
            return self._waiting.withdraw(wanted) or bool(wanted._waiter.park_through())
        withdrawal = _HoldWithdrawal.__new__(_HoldWithdrawal)
        withdrawal._queue, withdrawal._wanted = self._waiting, wanted
        if not isinstance(wanted._waiter, Fiber):
            return wanted._waiter.park(withdrawal, timeout) is not TIMED_OUT
        fiber = <Fiber>wanted._waiter
        fiber._waits_in, fiber._waits_on = "RLock.acquire", self
        try:
            return fiber.park(withdrawal, timeout) is not TIMED_OUT
        finally:
            fiber._waits_in = fiber._waits_on = None

    cdef int _release(self) except -1:
        if not self._count or self._owner != _ident_here():
            raise RuntimeError("cannot release un-acquired lock")
        if self._count > 1:
            self._count -= 1
            return 0
        return self._hand_on(self._owner)

    cdef int _hand_on(self, unsigned long long me) except -1:
        while not self._waiting.unpark_one(self):
            self._owner, self._count = 0, 0
            # Somebody may have queued after the look and before this.
            if self._waiting._first is None or not self._take(me, 1):
                return 0
        return 0

    @cython.binding(True)
    def release(self):
        self._release()

    def __enter__(self):
        return self._acquire(None, True) if self._is_plain else self.acquire()

    def __exit__(self, kind, error, traceback):
        if self._is_plain:
            self._release()
        else:
            self.release()

    @cython.binding(True)
    def locked(self):
        return self._count > 0

    @cython.binding(True)
    def statistics(self):
        owner = self._owner if self._count else None
        return modules["vthreads.locks"].LockStatistics(self._count > 0, owner, len(self._waiting))

    # What the standard library's Condition and its like ask of a lock.

    def _is_owned(self):
        return self._recursion_count() > 0

    def _recursion_count(self):
        return self._count if self._count and self._owner == _ident_here() else 0

    def _release_save(self):
        state = self._count, self._owner
        if not self._count:
            raise RuntimeError("cannot release un-acquired lock")
        self._hand_on(self._owner)
        return state

    def _acquire_restore(self, state):
        count, owner = state
        with modules["vthreads._core.delivery"].deferred_delivery():
            if not self._take(owner, count):
                self._wait(owner, count, None)

    def _at_fork_reinit(self):
        self._owner, self._count = 0, 0
        self._waiting.forget_all()


# --- semaphores and queues


cdef class Semaphore:
    """As `threading.Semaphore`, fair. See the readable class of this name."""

    cdef public object _value
    cdef readonly object _initial
    cdef readonly WaitQueue _waiting
    cdef readonly Section _changing
    cdef object __weakref__

    def __cinit__(self, *_, **__):
        self._waiting = WaitQueue.__new__(WaitQueue)
        self._changing = Section.__new__(Section)

    def __init__(self, value=1):
        if value < 0:
            raise ValueError(f"a semaphore starts with 0 permits or more, not {value}")
        self._value = self._initial = value

    def __repr__(self):
        return f"<{type(self).__name__} value={self._value} waiting={len(self._waiting)}>"

    @cython.binding(True)
    def acquire(self, blocking=True, timeout=None):
        if not blocking and timeout is not None:
            raise ValueError("can't specify timeout for non-blocking acquire")
        if not blocking or (timeout is not None and timeout <= 0):
            return self._take()
        _check()
        if self._take():
            return True
        waiter = _waiter_here()
        if self.take_or_queue(waiter):
            return True
        return _park_in(self._waiting, waiter, timeout, "Semaphore.acquire", self) is not TIMED_OUT

    def __enter__(self):
        return Semaphore.acquire(self)

    def __exit__(self, *_):
        self.release()

    cdef bint _take(self) except -1:
        cdef bint taken
        self._changing._enter()
        try:
            taken = self._value > 0
            if taken:
                self._value -= 1
        finally:
            self._changing._leave()
        return taken

    cpdef bint take_or_queue(self, waiter) except -1:
        """Take a permit now, or stand `waiter` in the queue: it is unparked holding one."""
        with self._changing:
            while not self._take():
                self._waiting.add(waiter)
                # A finalizer may have given one back before the waiter stood in the queue.
                if not self._value or not self._waiting.withdraw(waiter):
                    return False
            return True

    @cython.binding(True)
    def withdraw(self, waiter):
        return self._waiting.withdraw(waiter)

    @cython.binding(True)
    def release(self, n=1):
        if n < 1:
            raise ValueError(f"release() gives back 1 permit or more, not {n}")
        with self._changing:
            for _ in range(n):
                if not self._waiting.unpark_one():
                    self._value += 1

    @cython.binding(True)
    def statistics(self):
        return modules["vthreads._core.semaphore"].SemaphoreStatistics(self._value, len(self._waiting))


cdef class _Offer:
    """A putter that waits for room, with its item. Whoever makes room passes the queue that takes the item."""

    cdef readonly object _item, _waiter

    def unpark(self, answer):
        if not isinstance(answer, _Exchange):
            return self._waiter.unpark(answer)
        try:
            (<_Exchange>answer)._accept(self._item)
        except BaseException as error:  # raised in the putter, whose item it is
            self._waiter.unpark(modules["vthreads.queues"]._Refused(error))
            # The room is for the next one.
            return False
        return self._waiter.unpark(True)


cdef class _OfferWithdrawal:
    """The undo of a wait for room."""

    cdef WaitQueue _queue
    cdef _Offer _offer

    def __call__(self):
        return self._queue.withdraw(self._offer)


cdef bint _may_wait(block, timeout) except -1:
    if timeout is None:
        return bool(block)
    if block and not timeout >= 0:
        raise ValueError("'timeout' must be a non-negative number")
    return block and timeout != 0


cdef class _Exchange:
    """What all queues share: items, getters, putters. See the readable class of this name."""

    cdef public Py_ssize_t unfinished_tasks
    # The size of a queue that is full, if there is one; as the user gave it.
    cdef Py_ssize_t _limit
    cdef object _maxsize
    cdef public object _items
    cdef public bint is_shutdown
    cdef readonly Section _changing
    cdef readonly WaitQueue _getting, _putting
    # Whether items are kept first in, first out, and whether they are counted.
    cdef bint _is_fifo, _counts
    cdef object __weakref__

    def __cinit__(self, *_, **__):
        kind = type(self)
        self._changing = Section.__new__(Section)
        self._getting = WaitQueue.__new__(WaitQueue)
        self._putting = WaitQueue.__new__(WaitQueue)
        self._is_fifo = kind._store is _Exchange._store and kind._take is _Exchange._take
        self._counts = kind._accepted is not _Exchange._accepted

    def __init__(self, maxsize=0):
        self.maxsize = maxsize
        self._items = self._new_items()

    @property
    def maxsize(self):
        return self._maxsize

    @maxsize.setter
    def maxsize(self, maxsize):
        # More than there is memory for is no limit.
        self._limit = 0 if not 0 < maxsize < ssize_max else ceil(maxsize)
        self._maxsize = maxsize

    @classmethod
    def __class_getitem__(cls, item):
        return GenericAlias(cls, item)

    def __repr__(self):
        waiters = f"getters={len(self._getting)} putters={len(self._putting)}"
        return f"<{type(self).__name__} size={self.qsize()} maxsize={self.maxsize} {waiters}>"

    def _new_items(self):
        return deque()

    def _store(self, item):
        self._items.append(item)

    def _take(self):
        return self._items.popleft()

    def _accepted(self):
        """One more item was put."""

    cdef int _accept(self, item) except -1:
        """Hand `item` to a getter that waits, or store it."""
        if self._getting._first is None or not self._getting.unpark_one(item):
            if self._is_fifo:
                self._items.append(item)
            else:
                self._store(item)
        if self._counts:
            self.unfinished_tasks += 1
        return 0

    cdef bint _has_room(self) except -1:
        return self._limit <= 0 or len(self._items) < self._limit

    cpdef _put(self, item, block, timeout):
        cdef bint waits = _may_wait(block, timeout), missed
        cdef Fiber fiber
        cdef _Offer offer
        if waits:
            fiber = _here()
            if fiber is not None:
                if self._limit > 0:
                    fiber.check()
                else:
                    # An unbounded queue has room at once: a cancelled thread gives back what it has.
                    fiber.give_way()
        self._changing._enter()
        try:
            if self.is_shutdown:
                raise ShutDown
            if self._has_room():
                self._accept(item)
                return None
            if not waits:
                raise Full
            offer = _Offer.__new__(_Offer)
            offer._item, offer._waiter = item, _waiter_here()
            self._putting.add(offer)
            missed = (self._has_room() or self.is_shutdown) and self._putting.withdraw(offer)
        finally:
            self._changing._leave()
        if missed:
            # A finalizer got or shut down between the look and the queueing.
            return self._put(item, block, timeout)
        return self._wait_for_room(offer, timeout)

    cdef _wait_for_room(self, _Offer offer, timeout):
        cdef _OfferWithdrawal withdrawal = _OfferWithdrawal.__new__(_OfferWithdrawal)
        cdef Fiber fiber = None
        withdrawal._queue, withdrawal._offer = self._putting, offer
        if isinstance(offer._waiter, Fiber):
            fiber = <Fiber>offer._waiter
            fiber._waits_in, fiber._waits_on = "Queue.put", self
        try:
            answer = offer._waiter.park(withdrawal, timeout)
        finally:
            if fiber is not None:
                fiber._waits_in = fiber._waits_on = None
        if answer is True:
            return None
        if answer is TIMED_OUT:
            raise Full
        if answer is modules["vthreads.queues"].SHUT_DOWN:
            raise ShutDown
        raise answer.error

    cpdef _get(self, block, timeout):
        cdef bint waits = _may_wait(block, timeout), missed
        cdef Fiber fiber = _here()
        if waits and fiber is not None:
            fiber.check()
        self._changing._enter()
        try:
            if self._items:
                item = self._items.popleft() if self._is_fifo else self._take()
                if self._putting._first is not None:
                    self._putting.unpark_one(self)
                return item
            if self.is_shutdown:
                raise ShutDown
            if not waits:
                raise Empty
            waiter = _waiter_here() if fiber is None else fiber
            self._getting.add(waiter)
            missed = (self._items or self.is_shutdown) and self._getting.withdraw(waiter)
        finally:
            self._changing._leave()
        if missed:
            # A finalizer put or shut down between the look and the queueing.
            return self._get(block, timeout)
        answer = _park_in(self._getting, waiter, timeout, "Queue.get", self)
        if answer is TIMED_OUT:
            raise Empty
        if answer is modules["vthreads.queues"].SHUT_DOWN:
            raise ShutDown
        return answer

    @cython.binding(True)
    def qsize(self):
        return len(self._items)

    @cython.binding(True)
    def empty(self):
        return not self._items

    @cython.binding(True)
    def put_nowait(self, item):
        self._put(item, False, None)

    @cython.binding(True)
    def get_nowait(self):
        return self._get(False, None)

    def _waiting_to_join(self):
        return 0

    @cython.binding(True)
    def statistics(self):
        getters, putters, joiners = len(self._getting), len(self._putting), self._waiting_to_join()
        figures = modules["vthreads.queues"].QueueStatistics
        return figures(self.qsize(), getters + putters + joiners, getters, putters, joiners)


@cython.binding(True)
def queue_put(self, item, block=True, timeout=None):
    if not isinstance(self, _Exchange):
        return readable_parts["vthreads.queues.Queue.put"](self, item, block, timeout)
    return (<_Exchange>self)._put(item, block, timeout)


@cython.binding(True)
def queue_get(self, block=True, timeout=None):
    if not isinstance(self, _Exchange):
        return readable_parts["vthreads.queues.Queue.get"](self, block, timeout)
    return (<_Exchange>self)._get(block, timeout)


@cython.binding(True)
def simple_put(self, item, block=True, timeout=None):
    if not isinstance(self, _Exchange):
        return readable_parts["vthreads.queues.SimpleQueue.put"](self, item, block, timeout)
    return (<_Exchange>self)._put(item, False, None)


@cython.binding(True)
def simple_get(self, block=True, timeout=None):
    if not isinstance(self, _Exchange):
        return readable_parts["vthreads.queues.SimpleQueue.get"](self, block, timeout)
    return (<_Exchange>self)._get(block, timeout)


@cython.binding(True)
def future_result(self, timeout=None):
    cdef Outcome future = <Outcome>self if isinstance(self, Outcome) else None
    if future is None or future._state is not FINISHED or future._exception is not None:
        return readable_parts["vthreads._core.future.Future.result"](self, timeout)
    if timeout is None or timeout > 0:
        _check()
    future.failure_taken = True
    return future._result


# --- which parts there are


# By module and name: what is compiled of it.
cdef dict PARTS = {
    "vthreads._core.wait_queue.WaitQueue": WaitQueue,
    "vthreads._core.current.checkpoint": check_here,
    "vthreads._core.current.give_way": give_way_here,
    "vthreads._core.current.instruction_here": instruction_here,
    "vthreads._core.runtime.checkpoint": checkpoint,
    "vthreads._core.semaphore.Semaphore": Semaphore,
    "vthreads._core.future.Future.result": future_result,
    "vthreads.timeouts.sleep": sleep,
    "vthreads.timeouts.sleep_here": sleep_here,
    "vthreads.locks.Lock": Lock,
    "vthreads.locks.RLock": RLock,
    "vthreads.queues._Exchange": _Exchange,
    "vthreads.queues.Queue.put": queue_put,
    "vthreads.queues.Queue.get": queue_get,
    "vthreads.queues.SimpleQueue.put": simple_put,
    "vthreads.queues.SimpleQueue.get": simple_get,
    "vthreads._core.group.ThreadGroup.spawn": spawn,
    "vthreads._core.thread.VirtualThread.run": run_thread,
}


def compiled(part):
    """What is compiled of `part`, a class or function of the layers above; `part` itself if nothing is."""
    name = f"{part.__module__}.{part.__qualname__}"
    if name not in PARTS:
        return part
    readable_parts[name] = part
    if PARTS[name] is sleep_here:
        return sleep_here
    if isinstance(part, type):
        _describe(PARTS[name], part)
        return PARTS[name]
    return update_wrapper(PARTS[name], part)


# The names and texts of compiled classes, which C holds by their addresses.
cdef list descriptions = []


cdef int _describe(type quick, type part) except -1:
    """Give a compiled class and its methods the names, texts and signatures of the readable ones."""
    cdef bytes name = f"{part.__module__}.{part.__qualname__}".encode()
    # As CPython has its own classes tell their signatures.
    cdef bytes text = f"{part.__name__}({_parameters(part)})\n--\n\n{part.__doc__}".encode()
    descriptions.append((name, text))
    (<PyTypeObject *>quick).tp_name = name
    (<PyTypeObject *>quick).tp_doc = text
    PyType_Modified(quick)
    for name_of_method, method in vars(part).items():
        if hasattr(vars(quick).get(name_of_method), "__code__"):
            update_wrapper(vars(quick)[name_of_method], method)
    return 0


cdef str _parameters(type part):
    code, defaults = part.__init__.__code__, part.__init__.__defaults__ or ()
    names = code.co_varnames[1 : code.co_argcount]
    required = len(names) - len(defaults)
    return ", ".join([*names[:required], *(f"{name}={value!r}" for name, value in zip(names[required:], defaults))])


# --- the calls of sockets


# Asked of the C class, whatever a subclass or a patch makes of it.
cdef object Original = socket.socket.__mro__[1]
cdef object fileno = Original.fileno
cdef object gettimeout = Original.gettimeout
cdef object family = Original.family.__get__
cdef object original_recv = Original.recv, original_recv_into = Original.recv_into
cdef object original_send = Original.send, original_sendall = Original.sendall
cdef int AF_INET = socket.AF_INET
# Those whose addresses `vt_read` reads, and those whose addresses `vt_tell` tells.
cdef frozenset NUMERIC = frozenset([socket.AF_INET, socket.AF_INET6])
cdef frozenset TOLD = NUMERIC | {getattr(socket, "AF_UNIX", socket.AF_INET)}

# The same calls in readable Python, and the timeouts that are kept for CPython, by id of the socket.
cdef dict readable_calls = {}
cdef dict managed = {}


def quick_socket_calls(readable, managed_sockets):
    """The calls of sockets that are compiled, by name; see the contract."""
    global readable_calls, managed
    readable_calls, managed = readable, managed_sockets
    calls = (recv, recv_into, recvfrom, send, sendall, sendto, connect, _accept) if VT_HAS_SOCKETS else ()
    for call in calls:
        call.__qualname__ = f"socket.{call.__name__}"
    return {call.__name__: call for call in calls}


cdef inline bint _is_plain(sock) except -1:
    """Whether the original does all that is right: on a plain OS thread, with a timeout that CPython keeps, if any."""
    return (vt_here is NULL or (<Scheduler>vt_here).running is None) and (not managed or id(sock) not in managed)


cdef Fiber _caller(sock, int *fd, double *timeout):
    """Who calls on `sock`, after the checkpoint, or None: then it is for the readable call.

    That is so on a plain OS thread, on a socket that does not wait or is closed, and on one whose timeout CPython keeps.
    """
    cdef Fiber fiber
    if vt_here is NULL or (<Scheduler>vt_here).running is None:
        return None
    fiber = <Fiber>(<Scheduler>vt_here).running
    entry = managed.get(id(sock)) if managed else None
    seconds = gettimeout(sock) if entry is None else entry.timeout
    if seconds is not None and (entry is None or not seconds):
        return None
    timeout[0] = INF if seconds is None else <double>seconds
    fiber.check()
    fd[0] = fileno(sock)
    return None if fd[0] < 0 else fiber


cdef inline double _deadline(Fiber fiber, double timeout) except? -1:
    return INF if timeout == INF else fiber.scheduler.now() + timeout


cdef Descriptor _wait(Fiber fiber, sock, int fd, int direction, double deadline, str name):
    """After a try that would block, park until `sock` is ready; its entry. A checkpoint."""
    cdef Scheduler scheduler = fiber.scheduler
    cdef Descriptors descriptors = scheduler.descriptors
    cdef Descriptor entry
    if deadline < INF and deadline <= scheduler.now():
        raise TimeoutError("timed out")
    entry = descriptors.find(fd, sock)
    if entry is None:
        entry = descriptors.claim(fd, ref(sock))
    if descriptors._epoll < 0:
        descriptors._poller.arm(fd, direction)
    entry._waiting(direction).append(fiber)
    descriptors.waiting += 1
    fiber._waits_in, fiber._waits_on = name, sock
    answer = fiber._stay(None, deadline)
    descriptors.withdraw(entry, direction, fiber)
    if answer is not True:
        _raise_for(fiber, answer)
    fiber.check()
    # Others ran since the edge came. If one of them closed the socket, its number may be that of another file by now.
    if fileno(sock) != fd:
        raise OSError(EBADF, os.strerror(EBADF))
    return entry


cdef int _raise_for(Fiber fiber, answer) except -1:
    """Raise what ended the wait for a descriptor."""
    if answer is ABORTED:
        fiber.raise_aborted()
    if answer is CLOSED:
        raise OSError(EBADF, os.strerror(EBADF))
    if answer is TIMED_OUT:
        raise TimeoutError("timed out")
    # What was pending came out of the wait itself.
    raise answer


cdef bint _would_block(int error) except -1:
    """What to do after a failed try: wait (true) or try again; raises what it failed with otherwise."""
    if VT_WOULD_BLOCK(error):
        return True
    if error != EINTR:
        raise OSError(error, os.strerror(error))
    PyErr_CheckSignals()
    return False


cdef Py_ssize_t _receive(sock, Fiber fiber, int fd, double timeout, char *buffer, Py_ssize_t room, str name) except -1:
    """Read into `buffer` what there is, waiting for it if need be; how much."""
    cdef double deadline = _deadline(fiber, timeout)
    cdef Descriptor entry = fiber.scheduler.descriptors.find(fd, sock)
    cdef Py_ssize_t count
    while True:
        if entry is None or entry.readable:
            count = vt_recv(fd, buffer, room)
            if count >= 0:
                # A short read of a stream took all there was: the next call parks without trying.
                if 0 < count < room and entry is not None and entry._is_stream:
                    entry.drained()
                return count
            if not _would_block(errno):
                continue
            if entry is not None:
                entry.drained()
        entry = _wait(fiber, sock, fd, READ, deadline, name)


@cython.binding(True)
def recv(self, bufsize, flags=0, /):
    """`socket.recv`, which parks a virtual thread."""
    cdef int fd = -1
    cdef double timeout = 0
    cdef Py_ssize_t room, count
    cdef char *buffer
    cdef Fiber fiber = None
    if _is_plain(self):
        return original_recv(self, bufsize, flags)
    if type(bufsize) is int and bufsize > 0 and type(flags) is int and not flags:
        fiber = _caller(self, &fd, &timeout)
    if fiber is None:
        return readable_calls["recv"](self, bufsize, flags)
    room = bufsize
    if room <= SCRATCH:
        # Shared by the fibers of the scheduler: nothing runs between the read and the copy.
        buffer = fiber.scheduler._scratch
        return PyBytes_FromStringAndSize(buffer, _receive(self, fiber, fd, timeout, buffer, room, "socket.recv"))
    buffer = <char *>PyMem_Malloc(room)
    if buffer is NULL:
        raise MemoryError
    try:
        return PyBytes_FromStringAndSize(buffer, _receive(self, fiber, fd, timeout, buffer, room, "socket.recv"))
    finally:
        PyMem_Free(buffer)


@cython.binding(True)
def recv_into(self, buffer, nbytes=0, flags=0):
    """`socket.recv_into`, which parks a virtual thread."""
    cdef int fd = -1
    cdef double timeout = 0
    cdef Py_ssize_t wanted
    cdef Py_buffer view
    cdef Fiber fiber = None
    if _is_plain(self):
        return original_recv_into(self, buffer, nbytes, flags)
    if type(nbytes) is int and nbytes >= 0 and type(flags) is int and not flags:
        fiber = _caller(self, &fd, &timeout)
    if fiber is None:
        return readable_calls["recv_into"](self, buffer, nbytes, flags)
    try:
        PyObject_GetBuffer(buffer, &view, PyBUF_WRITABLE)
    except (TypeError, BufferError):
        # The readable call says what is wrong with it.
        return readable_calls["recv_into"](self, buffer, nbytes, flags)
    try:
        wanted = nbytes or view.len
        if not 0 < wanted <= view.len:
            return readable_calls["recv_into"](self, buffer, nbytes, flags)
        return _receive(self, fiber, fd, timeout, <char *>view.buf, wanted, "socket.recv_into")
    finally:
        PyBuffer_Release(&view)


@cython.binding(True)
def recvfrom(self, bufsize, flags=0, /):
    """`socket.recvfrom`, which parks a virtual thread."""
    cdef int fd = -1
    cdef double timeout = 0, deadline
    cdef Py_ssize_t room, count
    cdef vt_address sender
    cdef Fiber fiber = None
    if type(bufsize) is int and 0 < bufsize <= SCRATCH and type(flags) is int and not flags and family(self) in TOLD:
        fiber = _caller(self, &fd, &timeout)
    if fiber is None:
        return readable_calls["recvfrom"](self, bufsize, flags)
    deadline = _deadline(fiber, timeout)
    room = bufsize
    while True:
        count = vt_recvfrom(fd, fiber.scheduler._scratch, room, &sender)
        if count >= 0:
            data = PyBytes_FromStringAndSize(fiber.scheduler._scratch, count)
            return data, vt_tell(&sender)
        if _would_block(errno):
            _wait(fiber, self, fd, READ, deadline, "socket.recvfrom")


@cython.binding(True)
def send(self, data, flags=0, /):
    """`socket.send`, which parks a virtual thread."""
    cdef int fd = -1
    cdef double timeout = 0, deadline
    cdef Py_ssize_t count
    cdef Py_buffer view
    cdef Fiber fiber = None
    if _is_plain(self):
        return original_send(self, data, flags)
    if type(flags) is int and not flags:
        fiber = _caller(self, &fd, &timeout)
    if fiber is None:
        return readable_calls["send"](self, data, flags)
    deadline = _deadline(fiber, timeout)
    try:
        PyObject_GetBuffer(data, &view, PyBUF_SIMPLE)
    except (TypeError, BufferError):
        return readable_calls["send"](self, data, flags)
    try:
        while True:
            count = vt_send(fd, <const char *>view.buf, view.len)
            if count >= 0:
                return count
            if _would_block(errno):
                if not vt_is_stream(fd):
                    # Of a datagram to a Unix socket the receiver's queue decides, of which no readiness tells.
                    return readable_calls["send"](self, data, flags)
                _wait(fiber, self, fd, WRITE, deadline, "socket.send")
    finally:
        PyBuffer_Release(&view)


@cython.binding(True)
def sendall(self, data, flags=0, /):
    """`socket.sendall`, which parks a virtual thread."""
    cdef int fd = -1
    cdef double timeout = 0, deadline
    cdef Py_ssize_t count, sent = 0
    cdef Py_buffer view
    cdef Fiber fiber = None
    if _is_plain(self):
        return original_sendall(self, data, flags)
    if type(flags) is int and not flags:
        fiber = _caller(self, &fd, &timeout)
    if fiber is None:
        return readable_calls["sendall"](self, data, flags)
    deadline = _deadline(fiber, timeout)
    try:
        PyObject_GetBuffer(data, &view, PyBUF_SIMPLE)
    except (TypeError, BufferError):
        return readable_calls["sendall"](self, data, flags)
    try:
        while True:
            count = vt_send(fd, <const char *>view.buf + sent, view.len - sent)
            if count >= 0:
                sent += count
                if sent >= view.len:
                    return None
            elif _would_block(errno):
                _wait(fiber, self, fd, WRITE, deadline, "socket.sendall")
    except Cancelled as cancelled:
        cancelled.bytes_sent = sent
        raise
    finally:
        PyBuffer_Release(&view)


@cython.binding(True)
def sendto(self, data, *flags_and_address):
    """`socket.sendto`, which parks a virtual thread."""
    cdef int fd = -1
    cdef double timeout = 0, deadline
    cdef Py_ssize_t count
    cdef Py_buffer view
    cdef vt_address receiver
    cdef Fiber fiber = None
    if len(flags_and_address) == 1 and _read_address(self, flags_and_address[0], &receiver):
        fiber = _caller(self, &fd, &timeout)
    if fiber is None:
        return readable_calls["sendto"](self, data, *flags_and_address)
    deadline = _deadline(fiber, timeout)
    try:
        PyObject_GetBuffer(data, &view, PyBUF_SIMPLE)
    except (TypeError, BufferError):
        return readable_calls["sendto"](self, data, *flags_and_address)
    try:
        PySys_Audit("socket.sendto", "OO", <PyObject *>self, <PyObject *>flags_and_address[0])
        while True:
            count = vt_sendto(fd, <const char *>view.buf, view.len, &receiver)
            if count >= 0:
                return count
            if _would_block(errno):
                _wait(fiber, self, fd, WRITE, deadline, "socket.sendto")
    finally:
        PyBuffer_Release(&view)


cdef bint _read_address(sock, address, vt_address *read) except -1:
    """Whether `address` is a number of IPv4 or IPv6 and a port, as the family of `sock` asks, and needs no look-up."""
    cdef unsigned flow = 0, scope = 0
    if type(address) is not tuple:
        return False
    kind = family(sock)
    count = len(<tuple>address)
    if kind not in NUMERIC or count != 2 and (kind == AF_INET or count != 4):
        return False
    for number in (<tuple>address)[1:]:
        if type(number) is not int or number < 0:
            return False
    host, port = (<tuple>address)[:2]
    if port > 0xFFFF or type(host) is not str or not (<str>host).isascii() or "\0" in <str>host:
        return False
    if count == 4:
        if (<tuple>address)[2] > 0xFFFFF or (<tuple>address)[3] > 0xFFFFFFFF:
            return False
        flow, scope = (<tuple>address)[2:]
    return vt_read(read, kind, (<str>host).encode(), port, flow, scope)


@cython.binding(True)
def connect(self, address, /):
    """`socket.connect`, which parks a virtual thread."""
    cdef int fd = -1, error
    cdef double timeout = 0, deadline
    cdef vt_address peer
    cdef Fiber fiber = None
    if _read_address(self, address, &peer):
        fiber = _caller(self, &fd, &timeout)
    if fiber is None:
        return readable_calls["connect"](self, address)
    deadline = _deadline(fiber, timeout)
    PySys_Audit("socket.connect", "OO", <PyObject *>self, <PyObject *>address)
    while True:
        error = vt_connect(fd, &peer)
        if VT_IS_CONNECTING(error) or error == EINTR:
            # On the same machine the connection is there by now, as a rule.
            if not vt_has_peer(fd):
                _wait(fiber, self, fd, WRITE, deadline, "socket.connect")
            error = vt_kept_error(fd)
            # A fresh socket is reported as writable once before it is connecting: only a peer proves the connection.
            if not error and not vt_has_peer(fd):
                continue
        if error:
            raise OSError(error, os.strerror(error))
        return None


@cython.binding(True)
def _accept(self, /):
    """`socket._accept`, which parks a virtual thread."""
    cdef int fd = -1, accepted
    cdef double timeout = 0, deadline
    cdef vt_address peer
    cdef Fiber fiber = _caller(self, &fd, &timeout) if family(self) in TOLD else None
    if fiber is None:
        return readable_calls["_accept"](self)
    deadline = _deadline(fiber, timeout)
    while True:
        # Even after readiness the connection may be gone, taken by another process that listens with us.
        accepted = vt_accept(fd, &peer)
        if accepted >= 0:
            try:
                return accepted, vt_tell(&peer)
            except BaseException:
                vt_close(accepted)
                raise
        if _would_block(errno):
            _wait(fiber, self, fd, READ, deadline, "socket.accept")
