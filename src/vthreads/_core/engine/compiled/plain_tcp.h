/* The protocol of a socket. */

#include <string.h>
#if !defined(_WIN32)
#include <sys/types.h>
#include <sys/socket.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#endif

/* Whether it is TCP without a protocol on top, such as TLS or MPTCP; `_is_plain_tcp` has the reason. */
static int vt_is_plain_tcp(int fd) {
#if defined(TCP_ULP) && !defined(_WIN32)
    char above[16] = "";
    socklen_t size = sizeof above;
    return getsockopt(fd, IPPROTO_TCP, TCP_ULP, above, &size) == 0 && (size == 0 || above[0] == 0);
#else
    return 0;
#endif
}
