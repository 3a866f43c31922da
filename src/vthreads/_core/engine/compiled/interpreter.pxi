# The C interfaces of CPython and greenlet that the parts share.

cimport cython
from cpython.exc cimport PyErr_CheckSignals
from cpython.mem cimport PyMem_Free, PyMem_Malloc, PyMem_Realloc
from cpython.object cimport PyObject
from cpython.ref cimport Py_DECREF, Py_INCREF

cdef extern from "greenlet/greenlet.h":
    ctypedef class greenlet.greenlet [object PyGreenlet, check_size ignore]:
        pass

    void PyGreenlet_Import() except *
    greenlet PyGreenlet_New(object run, greenlet parent)
    greenlet PyGreenlet_GetCurrent()
    object PyGreenlet_Switch(greenlet target, PyObject *args, PyObject *kwargs)

cdef extern from "errno.h":
    int errno
    int EINTR

cdef extern from "Python.h":
    ctypedef struct PyTypeObject:
        const char *tp_name
        const char *tp_doc
    void PyType_Modified(type changed)
    int PyGC_Disable()
    int PyGC_Enable()
    void PyObject_GC_Track(PyObject *thing)
    void PyObject_GC_UnTrack(PyObject *thing)
    int PyObject_GC_IsTracked(PyObject *thing)
    int PyWeakref_CheckRef(object reference)

cdef extern from "pythread.h":
    unsigned long PyThread_get_thread_ident()
    ctypedef void *PyThread_type_lock
    PyThread_type_lock PyThread_allocate_lock()
    void PyThread_free_lock(PyThread_type_lock lock)
    int PyThread_acquire_lock(PyThread_type_lock lock, int wait) nogil
    void PyThread_release_lock(PyThread_type_lock lock)
    enum: NOWAIT_LOCK, WAIT_LOCK

cdef extern from "_core/engine/compiled/here.h":
    PyObject *vt_here

cdef extern from "_core/engine/compiled/clock.h":
    double vt_monotonic() nogil
    bint VT_HAS_MONOTONIC

cdef extern from "_core/engine/compiled/thread_state.h":
    bint vt_lacks_room(int room)
    bint vt_is_traced()
    bint vt_suspend_tracing(bint always)
    void vt_resume_tracing()
    bint vt_has_context()
    object vt_copy_context()
    object vt_context()
    void vt_leave_context()

cdef extern from "_core/engine/compiled/methods.h":
    bint vt_is_method(object self, str name, object function) except -1
    bint vt_class_has(object kind, str name, object function)

cdef extern from "_core/engine/compiled/named_errors.h":
    bint vt_refuse_as_readable(object function)

cdef extern from "_core/engine/compiled/weak_references.h":
    bint vt_owns(object owner, object owned)

cdef extern from "_core/engine/compiled/frame_stacks.h":
    void vt_keep_stacks()
    bint vt_cool_stacks()
    bint vt_many_warm()

PyGreenlet_Import()
