/* Reads and writes that answer EAGAIN instead of blocking. */

#if defined(__linux__)
#include <fcntl.h>
#include <limits.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>
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
/* The number of bytes between the position and the end of a file; negative if it is unknown. */
static Py_ssize_t vt_left(int fd) {
    struct stat status;
    off_t position = lseek(fd, 0, SEEK_CUR);
    return position < 0 || fstat(fd, &status) != 0 ? -1 : (Py_ssize_t)(status.st_size - position);
}
static void vt_step_back(int fd, Py_ssize_t count) {
    lseek(fd, -(off_t)count, SEEK_CUR);
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
static Py_ssize_t vt_left(int fd) { return -1; }
static void vt_step_back(int fd, Py_ssize_t count) {}
static Py_ssize_t vt_write_now(int fd, char *data, Py_ssize_t size) { return -1; }
#endif
