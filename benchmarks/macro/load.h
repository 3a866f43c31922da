/*
 * The connections of a load generator, and its closed loop: each connection has one request in flight.
 *
 * A program defines, before it includes this file, `struct connection` with the members `socket` and `left`,
 * `send_request`, and `answered`, which receives available bytes and returns whether an answer is complete.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <sys/epoll.h>
#include <time.h>
#include <unistd.h>

enum { EVENTS = 512, RETRIES = 2000 };

/* Connect; the server may have announced its port before it listens. */
static int connected(int port)
{
    struct sockaddr_in address = {
        .sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    struct timespec pause = {.tv_nsec = 10 * 1000 * 1000};

    for (int tries = 0; tries < RETRIES; tries++) {
        int fd = socket(AF_INET, SOCK_STREAM, 0);

        if (fd < 0)
            fail("socket");
        if (!connect(fd, (struct sockaddr *)&address, sizeof address))
            return fd;
        if (errno != ECONNREFUSED)
            fail("connect");
        close(fd);
        nanosleep(&pause, NULL);
    }
    fail("connect");
    return -1;
}

static void add_connection(int port, int poller, struct connection *connection)
{
    struct epoll_event interest = {.events = EPOLLIN, .data.ptr = connection};
    struct linger at_once = {.l_onoff = 1}; /* leaves no port in TIME_WAIT */
    int yes = 1;

    connection->socket = connected(port);
    if (setsockopt(connection->socket, IPPROTO_TCP, TCP_NODELAY, &yes, sizeof yes)
        || setsockopt(connection->socket, SOL_SOCKET, SO_LINGER, &at_once, sizeof at_once)
        || epoll_ctl(poller, EPOLL_CTL_ADD, connection->socket, &interest))
        fail("add_connection");
}

/* Send `each` requests on every connection; return the number of answers. */
static long exchange(int poller, struct connection *connections, long number, long each)
{
    struct epoll_event events[EVENTS];
    long answers = 0;

    for (long i = 0; i < number; i++) {
        connections[i].left = each;
        send_request(&connections[i]);
    }
    while (answers < number * each) {
        int ready = epoll_wait(poller, events, EVENTS, -1);

        for (int i = 0; i < ready; i++) {
            struct connection *connection = events[i].data.ptr;

            if (!answered(connection))
                continue;
            answers++;
            if (connection->left)
                send_request(connection);
        }
    }
    return answers;
}

/* Report that every connection has received one answer, and wait for a line on stdin. */
static void wait_for_start(void)
{
    printf("ready\n");
    fflush(stdout);
    getchar();
}
