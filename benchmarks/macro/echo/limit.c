/* Echo server on level-triggered epoll, one thread. Prints its port and serves until it is killed.

   With a number of bytes as argument, it copies that much for each request, as greenlet copies the C stacks of the
   thread that waits next and of the one that goes on: out into a new block, and in from the block of the connection. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "../fail.h"

enum { BACKLOG = 4096, EVENTS = 512, BUFFER = 65536, MOST_DESCRIPTORS = 65536, MOST_COPIED = 65536 };

static size_t copied;                   /* bytes of each stack */
static char stack[MOST_COPIED];         /* the stack that runs */
static char *stacks[MOST_DESCRIPTORS];  /* those that wait, by descriptor */
static int running;                     /* the descriptor whose stack runs */

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

static void switch_to(int connection)
{
    char *left;

    if (connection == running)
        return;
    if ((left = malloc(copied)) == NULL)
        fail("malloc");
    stacks[running] = memcpy(left, stack, copied);
    if (stacks[connection] != NULL)
        memcpy(stack, stacks[connection], copied);
    free(stacks[connection]);
    stacks[connection] = NULL;
    running = connection;
}

/* A request always fits into the send buffer of its connection, so a write is never partial. */
static void echo(int connection)
{
    static char buffer[BUFFER];
    ssize_t length = recv(connection, buffer, sizeof buffer, 0);

    if (length <= 0 || send(connection, buffer, length, MSG_NOSIGNAL) != length)
        close(connection);
}

int main(int count, char **arguments)
{
    int listener = listen_anywhere(), poller = epoll_create1(0);
    struct epoll_event events[EVENTS];

    copied = count > 1 ? strtoul(arguments[1], NULL, 10) : 0;
    if (copied > MOST_COPIED)
        fail("too many bytes");
    watch(poller, listener);
    for (;;) {
        int ready = epoll_wait(poller, events, EVENTS, -1);

        for (int i = 0; i < ready; i++) {
            if (events[i].data.fd == listener)
                accept_all(poller, listener);
            else {
                if (copied)
                    switch_to(events[i].data.fd);
                echo(events[i].data.fd);
            }
        }
    }
}
