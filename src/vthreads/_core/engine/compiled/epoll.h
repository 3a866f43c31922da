/* epoll, polled without a list of events. Elsewhere nothing calls these functions. */

#include <errno.h>
#include <unistd.h>

/* Write a byte into a pipe that does not block; a full one wakes its reader anyway. Returns 0 or the error. */
static int vt_write_wakeup(int fd) {
    if (write(fd, "", 1) == 1) return 0;
    return errno == EAGAIN ? 0 : errno;
}
/* Empty a pipe that does not block. If another thread has emptied it, there is nothing to do. */
static void vt_drain_wakeup(int fd) {
    char bytes[256];
    while (read(fd, bytes, sizeof bytes) == sizeof bytes) {}
}

#if defined(__linux__)
#include <sys/epoll.h>
#define VT_HAS_EPOLL 1
typedef struct epoll_event vt_event;
static int vt_epoll_wait(int epoll, vt_event *events, int room, int milliseconds) {
    return epoll_wait(epoll, events, room, milliseconds);
}
/* Register both edges of `fd`, once, as the Python poller does. Returns 0 or the error. */
static int vt_epoll_add(int epoll, int fd) {
    struct epoll_event interest = {EPOLLIN | EPOLLOUT | EPOLLPRI | EPOLLRDHUP | EPOLLET, {0}};
    interest.data.fd = fd;
    if (epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &interest) == 0) return 0;
    /* The same open file is still registered with this number, by a previous owner of the number. */
    return errno == EEXIST && epoll_ctl(epoll, EPOLL_CTL_MOD, fd, &interest) == 0 ? 0 : errno;
}
/* Register `fd` anew, for a caller that has only the number. If the number still means the registered file, the
   modification reports readiness that exists already. Else it fails, and the new file is added: see the Python poller.
   Returns 0 or the error. */
static int vt_epoll_rearm(int epoll, int fd) {
    struct epoll_event interest = {EPOLLIN | EPOLLOUT | EPOLLPRI | EPOLLRDHUP | EPOLLET, {0}};
    interest.data.fd = fd;
    if (epoll_ctl(epoll, EPOLL_CTL_MOD, fd, &interest) == 0) return 0;
    return errno == ENOENT ? vt_epoll_add(epoll, fd) : errno;
}
/* An error means that `fd` is closed already, which has removed it. */
static void vt_epoll_remove(int epoll, int fd) {
    struct epoll_event none = {0, {0}};
    epoll_ctl(epoll, EPOLL_CTL_DEL, fd, &none);
}
static int vt_event_fd(vt_event *event) { return event->data.fd; }
/* The sum of READ 1, WRITE 2, HANGUP 4 and URGENT 8. */
static int vt_event_ready(vt_event *event) {
    unsigned int mask = event->events;
    int ended = mask & (EPOLLRDHUP | EPOLLHUP | EPOLLERR) ? 4 : 0;
    int readable = ended || mask & (EPOLLIN | EPOLLPRI) ? 1 : 0;
    return readable | (mask & (EPOLLOUT | EPOLLHUP | EPOLLERR) ? 2 : 0) | ended | (mask & EPOLLPRI ? 8 : 0);
}
#else
#define VT_HAS_EPOLL 0
typedef struct { int fd; } vt_event;
static int vt_epoll_wait(int epoll, vt_event *events, int room, int milliseconds) { return 0; }
static int vt_epoll_add(int epoll, int fd) { return -1; }
static int vt_epoll_rearm(int epoll, int fd) { return -1; }
static void vt_epoll_remove(int epoll, int fd) {}
static int vt_event_fd(vt_event *event) { return -1; }
static int vt_event_ready(vt_event *event) { return 0; }
#endif
