/* Whether a socket is readable in the sense of select(2). */

#if !defined(_WIN32)
#include <poll.h>
#include <sys/select.h>
#define VT_FD_SETSIZE FD_SETSIZE

/* 0: no. -1: only the original can decide, because select(2) does not accept the number, or it is not a descriptor. */
static int vt_may_read(int fd) {
    struct pollfd one = {fd, POLLIN | POLLRDNORM | POLLRDBAND, 0};
    if (fd < 0 || fd >= FD_SETSIZE || poll(&one, 1, 0) < 0 || one.revents & POLLNVAL) return -1;
    return one.revents ? 1 : 0;
}
#else
#define VT_FD_SETSIZE 0
static int vt_may_read(int fd) { return -1; }
#endif
