/* Echo server on level-triggered epoll, one thread. Prints its port and serves until it is killed. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "../fail.h"

enum { BACKLOG = 4096, EVENTS = 512, BUFFER = 65536 };

/* Listen on a free port of 127.0.0.1 and print the port. */
static int listen_anywhere(void)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t length = sizeof address;
    int listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);

    if (listener < 0 || bind(listener, (struct sockaddr *)&address, length) || listen(listener, BACKLOG)
        || getsockname(listener, (struct sockaddr *)&address, &length))
        fail("listen");
    printf("%d\n", ntohs(address.sin_port));
    fflush(stdout);
    return listener;
}

static void watch(int poller, int descriptor)
{
    struct epoll_event interest = {.events = EPOLLIN, .data.fd = descriptor};

    if (epoll_ctl(poller, EPOLL_CTL_ADD, descriptor, &interest))
        fail("epoll_ctl");
}

static void accept_all(int poller, int listener)
{
    int connection;

    while ((connection = accept4(listener, NULL, NULL, SOCK_NONBLOCK)) >= 0)
        watch(poller, connection);
    if (errno != EAGAIN)
        fail("accept4");
}

/* A request always fits into the send buffer of its connection, so a write is never partial. */
static void echo(int connection)
{
    static char buffer[BUFFER];
    ssize_t length = recv(connection, buffer, sizeof buffer, 0);

    if (length <= 0 || send(connection, buffer, length, MSG_NOSIGNAL) != length)
        close(connection);
}

int main(void)
{
    int listener = listen_anywhere(), poller = epoll_create1(0);
    struct epoll_event events[EVENTS];

    watch(poller, listener);
    for (;;) {
        int ready = epoll_wait(poller, events, EVENTS, -1);

        for (int i = 0; i < ready; i++) {
            if (events[i].data.fd == listener)
                accept_all(poller, listener);
            else
                echo(events[i].data.fd);
        }
    }
}
