/*
 * Send requests to an echo server: load PORT CONNECTIONS REQUESTS. REQUESTS is per connection.
 *
 * Prints "ready" when every connection has received one answer, waits for a line on stdin, and prints the number of
 * answers after the last one. Each connection has one request in flight.
 */
#include <string.h>
#include <sys/socket.h>

#include "../fail.h"

enum { REQUEST = 1024 };

struct connection {
    int socket;
    int received; /* bytes received of the current answer */
    long left;    /* requests not yet sent */
};

static void send_request(struct connection *to)
{
    static char request[REQUEST];

    to->left--;
    if (send(to->socket, request, REQUEST, MSG_NOSIGNAL) != REQUEST)
        fail("send");
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

#include "../load.h"

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
        add_connection(port, poller, &connections[i]);
    exchange(poller, connections, number, 1);
    wait_for_start();
    printf("%ld\n", exchange(poller, connections, number, each));
    return 0;
}
