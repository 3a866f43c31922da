/* Whether a socket has bytes to read. */

#if !defined(_WIN32)
#include <sys/ioctl.h>

static int vt_has_nothing(int fd) {
    int size = 0;
    return ioctl(fd, FIONREAD, &size) == 0 && size == 0;
}
#else
static int vt_has_nothing(int fd) { return 0; }
#endif
