/* Reads and writes of pipes that answer EAGAIN instead of blocking. */

#if defined(__linux__)
#include <fcntl.h>
#include <limits.h>
#include <sys/stat.h>
#include <sys/uio.h>
#endif
#if defined(__linux__) && defined(RWF_NOWAIT)
#define VT_HAS_NOWAIT 1
#define VT_PIPE_BUF PIPE_BUF

/* Whether `fd` is a pipe in blocking mode. */
static int vt_is_blocking_pipe(int fd) {
    struct stat status;
    int flags = fcntl(fd, F_GETFL);
    return flags >= 0 && !(flags & O_NONBLOCK) && fstat(fd, &status) == 0 && S_ISFIFO(status.st_mode);
}
static Py_ssize_t vt_read_now(int fd, char *buffer, Py_ssize_t room) {
    struct iovec part = {buffer, (size_t)room};
    return preadv2(fd, &part, 1, -1, RWF_NOWAIT);
}
static Py_ssize_t vt_write_now(int fd, char *data, Py_ssize_t size) {
    struct iovec part = {data, (size_t)size};
    return pwritev2(fd, &part, 1, -1, RWF_NOWAIT);
}
#else
#define VT_HAS_NOWAIT 0
#define VT_PIPE_BUF 0
static int vt_is_blocking_pipe(int fd) { return 0; }
static Py_ssize_t vt_read_now(int fd, char *buffer, Py_ssize_t room) { return -1; }
static Py_ssize_t vt_write_now(int fd, char *data, Py_ssize_t size) { return -1; }
#endif
