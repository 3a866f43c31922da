/* Calls of sockets that answer EAGAIN instead of blocking, and addresses as CPython shows them. */

#include <errno.h>
#include <string.h>
#include <structmember.h>
#if !defined(_WIN32)
#include <sys/types.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <arpa/inet.h>
#include <fcntl.h>
#include <poll.h>
#include <unistd.h>
#define VT_HAS_SOCKETS 1
typedef struct { struct sockaddr_storage is; socklen_t size; } vt_address;

/* A method without arguments of the C class of sockets. A request calls such methods five times, so their C functions are
   called directly: the way of a call from Python takes ten times as many instructions. */
typedef struct { PyObject *descriptor; PyCFunction function; } vt_getter;

/* `descriptor` must stay alive: it belongs to the class. */
static vt_getter vt_getter_of(PyObject *descriptor) {
    vt_getter getter = {descriptor, NULL};
    if (Py_IS_TYPE(descriptor, &PyMethodDescr_Type)) {
        PyMethodDef *method = ((PyMethodDescrObject *)descriptor)->d_method;
        if (method->ml_flags == METH_NOARGS) getter.function = method->ml_meth;
    }
    return getter;
}
/* Not by the C function for another object than a socket, and if this Python defines the method differently. */
static PyObject *vt_call_getter(vt_getter *getter, PyObject *sock) {
    if (getter->function != NULL && PyObject_TypeCheck(sock, PyDescr_TYPE(getter->descriptor)))
        return getter->function(sock, NULL);
    return PyObject_CallOneArg(getter->descriptor, sock);
}
static PyObject *vt_member(PyObject *descriptor, PyObject *sock) {
    if (Py_IS_TYPE(descriptor, &PyMemberDescr_Type) && PyObject_TypeCheck(sock, PyDescr_TYPE(descriptor)))
        return PyMember_GetOne((char *)sock, ((PyMemberDescrObject *)descriptor)->d_member);
    return Py_TYPE(descriptor)->tp_descr_get(descriptor, sock, (PyObject *)Py_TYPE(sock));
}

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
/* accept on a listener that is kept non-blocking, as the Python version explains. `kept`: whether it has that mark. */
static int vt_accept(int fd, vt_address *from, int *kept) {
    int flags = fcntl(fd, F_GETFL), accepted;
    from->size = sizeof from->is;
    if (flags >= 0 && !(flags & O_NONBLOCK)) {
        flags |= O_NONBLOCK | O_APPEND;
        fcntl(fd, F_SETFL, flags);
    }
    *kept = flags & O_APPEND ? 1 : 0;
#if defined(__linux__)
    accepted = accept4(fd, (struct sockaddr *)&from->is, &from->size, SOCK_CLOEXEC);
#else
    accepted = accept(fd, (struct sockaddr *)&from->is, &from->size);
#endif
#if !defined(__linux__)
    if (accepted >= 0) {
        /* On some systems an accepted socket inherits O_NONBLOCK from its listener. */
        fcntl(accepted, F_SETFD, FD_CLOEXEC);
        fcntl(accepted, F_SETFL, fcntl(accepted, F_GETFL) & ~O_NONBLOCK);
    }
#endif
    return accepted;
}
static int vt_close(int fd) { return close(fd); }
static int vt_is_blocking(int fd) { return !(fcntl(fd, F_GETFL) & O_NONBLOCK); }

/* Whether the reading end of `fd` was shut down. */
static int vt_has_read_end(int fd) {
#ifdef POLLRDHUP
    struct pollfd interest = {fd, POLLRDHUP, 0};
    return poll(&interest, 1, 0) == 1 && (interest.revents & POLLRDHUP);
#else
    return 0;
#endif
}
static int vt_is_stream(int fd) {
    int type = 0;
    socklen_t size = sizeof type;
    return getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &size) == 0 && type == SOCK_STREAM;
}

/* Without `inet_ntop` and the formats of Python, which together take longer than a system call. */
static PyObject *vt_ipv4_object(struct sockaddr_in *address) {
    const unsigned char *bytes = (const unsigned char *)&address->sin_addr;
    char text[INET_ADDRSTRLEN], *end = text;
    PyObject *host, *port, *pair;
    int i;
    for (i = 0; i < 4; i++) {
        if (i > 0) *end++ = '.';
        if (bytes[i] >= 100) *end++ = (char)('0' + bytes[i] / 100);
        if (bytes[i] >= 10) *end++ = (char)('0' + bytes[i] / 10 % 10);
        *end++ = (char)('0' + bytes[i] % 10);
    }
    host = PyUnicode_DecodeASCII(text, end - text, NULL);
    port = PyLong_FromLong(ntohs(address->sin_port));
    pair = host != NULL && port != NULL ? PyTuple_Pack(2, host, port) : NULL;
    Py_XDECREF(host);
    Py_XDECREF(port);
    return pair;
}
/* The address of a peer in CPython's form (IPv4, IPv6 or Unix socket); None if there is none. */
static PyObject *vt_address_object(vt_address *address) {
    char text[INET6_ADDRSTRLEN] = "";
    if (address->size == 0) Py_RETURN_NONE;
    if (address->is.ss_family == AF_INET) return vt_ipv4_object((struct sockaddr_in *)&address->is);
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
        /* An abstract address, which may contain zeros. */
        if (size > 0 && path[0] == 0) return PyBytes_FromStringAndSize(path, size);
#endif
        /* Other programs may omit the zero at the end; the buffer has room for it. */
        path[size > 0 ? size : 0] = 0;
        return PyUnicode_DecodeFSDefault(path);
    }
    Py_RETURN_NONE;
}
/* Whether `text` is a numeric address of the family, IPv4 or IPv6; if so, `address` is set. */
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
/* Whether `pair` is a numeric IPv4 address and a port; if so, `address` is set. */
static int vt_read_pair(vt_address *address, PyObject *pair) {
    PyObject *host, *number;
    long port;
    int overflow;
    if (!PyTuple_CheckExact(pair) || PyTuple_GET_SIZE(pair) != 2) return 0;
    host = PyTuple_GET_ITEM(pair, 0);
    number = PyTuple_GET_ITEM(pair, 1);
    if (!PyUnicode_CheckExact(host) || !PyUnicode_IS_COMPACT_ASCII(host) || !PyLong_CheckExact(number)) return 0;
    if (strlen((char *)PyUnicode_1BYTE_DATA(host)) != (size_t)PyUnicode_GET_LENGTH(host)) return 0;
    port = PyLong_AsLongAndOverflow(number, &overflow);
    if (overflow || port < 0 || port > 0xFFFF) return 0;
    return vt_read(address, AF_INET, (char *)PyUnicode_1BYTE_DATA(host), (int)port, 0, 0);
}
/* Returns 0 or the error. Sets O_NONBLOCK for a moment: no other call can read or write an unconnected socket. */
static int vt_connect(int fd, vt_address *to, int *was_blocking) {
    int flags = fcntl(fd, F_GETFL), blocking = flags >= 0 && !(flags & O_NONBLOCK), error;
    *was_blocking = blocking;
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
/* Whether the socket neither connects nor is connected: another thread has shut it down. */
static int vt_was_reset(int fd) {
    struct pollfd hang_up = {.fd = fd};
    return poll(&hang_up, 1, 0) == 1 && hang_up.revents & POLLHUP;
}
/* The pending error of the socket. */
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
static int vt_accept(int fd, vt_address *from, int *kept) { return -1; }
static int vt_is_blocking(int fd) { return 1; }
static int vt_has_read_end(int fd) { return 0; }
static int vt_connect(int fd, vt_address *to, int *was_blocking) { return -1; }
static int vt_has_peer(int fd) { return 0; }
static int vt_was_reset(int fd) { return 0; }
static int vt_kept_error(int fd) { return -1; }
#define VT_IS_CONNECTING(error) 0
static int vt_close(int fd) { return -1; }
static int vt_is_stream(int fd) { return 0; }

static PyObject *vt_address_object(vt_address *address) { Py_RETURN_NONE; }
static int vt_read(vt_address *address, int family, const char *text, int port, unsigned flow, unsigned scope) {
    return 0;
}
static int vt_read_pair(vt_address *address, PyObject *pair) { return 0; }
#endif
#if EAGAIN == EWOULDBLOCK
#define VT_WOULD_BLOCK(error) ((error) == EAGAIN)
#else
#define VT_WOULD_BLOCK(error) ((error) == EAGAIN || (error) == EWOULDBLOCK)
#endif
