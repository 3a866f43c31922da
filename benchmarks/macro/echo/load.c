/*
 * Send requests to an echo server: load PORT CONNECTIONS REQUESTS. REQUESTS is per connection.
 *
 * Prints "ready" when every connection has received one answer, waits for a line on stdin, and prints the number of
 * answers after the last one. Each connection has one request in flight.
 */
#include <arpa/inet.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

enum { REQUEST = 1024, EVENTS = 512 };

struct connection {
    int socket;
    int received; /* bytes received of the current answer */
    long left;    /* requests not yet sent */
};

static void fail(const char *what)
{
    perror(what);
    exit(1);
}

static void send_request(struct connection *to)
{
    static char request[REQUEST];

    to->left--;
    if (send(to->socket, request, REQUEST, MSG_NOSIGNAL) != REQUEST)
        fail("send");
}

static void connect_to(int port, int poller, struct connection *connection)
{
    struct sockaddr_in address = {
        .sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    struct epoll_event interest = {.events = EPOLLIN, .data.ptr = connection};
    struct linger at_once = {.l_onoff = 1}; /* leaves no port in TIME_WAIT */
    int yes = 1;

    connection->socket = socket(AF_INET, SOCK_STREAM, 0);
    if (connection->socket < 0 || connect(connection->socket, (struct sockaddr *)&address, sizeof address)
        || setsockopt(connection->socket, IPPROTO_TCP, TCP_NODELAY, &yes, sizeof yes)
        || setsockopt(connection->socket, SOL_SOCKET, SO_LINGER, &at_once, sizeof at_once)
        || epoll_ctl(poller, EPOLL_CTL_ADD, connection->socket, &interest))
        fail("connect");
}

/* Receive available bytes; return whether an answer is complete. */
static int answered(struct connection *from)
{
    static char answer[65536];
    ssize_t length = recv(from->socket, answer, sizeof answer, MSG_DONTWAIT);

    if (length <= 0)
        fail("recv");
    from->received += length;
    if (from->received < REQUEST)
        return 0;
    from->received -= REQUEST;
    return 1;
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

int main(int argc, char **argv)
{
    if (argc != 4) {
        fprintf(stderr, "usage: load PORT CONNECTIONS REQUESTS\n");
        return 2;
    }
    int port = atoi(argv[1]), poller = epoll_create1(0);
    long number = atol(argv[2]), each = atol(argv[3]);
    struct connection *connections = calloc(number, sizeof *connections);

    for (long i = 0; i < number; i++)
        connect_to(port, poller, &connections[i]);
    exchange(poller, connections, number, 1);
    printf("ready\n");
    fflush(stdout);
    getchar();
    printf("%ld\n", exchange(poller, connections, number, each));
    return 0;
}
