/*
 * Send requests to an HTTP server: http_load PORT CONNECTIONS REQUESTS KIND [RATE]. REQUESTS is per connection.
 *
 * KIND is "http": GET /, which is answered with 200 and Content-Length; "varied": the same with another path, query and
 * cookie in each request; or "websocket": a handshake, then messages of 100 bytes that are echoed. Prints "ready" when
 * every connection has received one answer, waits for a line on stdin, and prints the number of answers and the seconds
 * that they took.
 *
 * Without RATE, each connection has one request in flight (closed loop). With RATE, requests arrive at random times, so
 * many a second on average; each waits for a free connection, and its latency begins at its arrival (open loop). The
 * median and the 99th percentile of the latencies are printed as well, in microseconds.
 */
#define _GNU_SOURCE
#include <math.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>

#include "fail.h"

enum { ANSWER = 8192, MESSAGE = 100 };

struct connection {
    int socket;
    int received; /* bytes received of the current answer */
    long left;    /* requests not yet sent */
    double since; /* when the current request arrived */
    char answer[ANSWER];
};

struct message {
    char bytes[512];
    int length;
    int answer_length; /* 0: the answer is a response with Content-Length; -1: a head alone */
};

static struct message request;
static int is_varied; /* each request has another path, query and cookie */

static double now(void)
{
    struct timespec time;

    clock_gettime(CLOCK_MONOTONIC, &time);
    return time.tv_sec + time.tv_nsec / 1e9;
}

/* Make the next request of a client with a session, as an API gets it: no head occurs twice. */
static void vary_request(void)
{
    static unsigned number;

    number++;
    request.length = sprintf(
        request.bytes,
        "GET /items/%u?page=%u HTTP/1.1\r\nHost: 127.0.0.1:8000\r\nUser-Agent: http_load\r\nAccept: */*\r\n"
        "Cookie: session=%08x\r\n\r\n",
        number, number % 7, number * 2654435761u);
}

static void send_request(struct connection *to)
{
    to->left--;
    if (is_varied)
        vary_request();
    if (send(to->socket, request.bytes, request.length, MSG_NOSIGNAL) != request.length)
        fail("send");
}

/* Return the length of the answer whose head has arrived; 0 if the head is not complete. */
static int length_of(const char *answer)
{
    const char *end = strstr(answer, "\r\n\r\n"), *field;

    if (end == NULL)
        return 0;
    if (request.answer_length < 0 && !strncmp(answer, "HTTP/1.1 101 ", 13))
        return end + 4 - answer;
    field = strcasestr(answer, "\r\ncontent-length:");
    if (strncmp(answer, "HTTP/1.1 200 ", 13) || field == NULL || field > end) {
        fprintf(stderr, "unexpected answer: %.*s\n", (int)(end - answer), answer);
        exit(1);
    }
    return end + 4 - answer + atoi(field + strlen("\r\ncontent-length:"));
}

/* Receive available bytes; return whether an answer is complete. */
static int answered(struct connection *from)
{
    ssize_t length = recv(from->socket, from->answer + from->received, ANSWER - 1 - from->received, MSG_DONTWAIT);
    int wanted;

    if (length <= 0)
        fail("recv");
    from->received += length;
    from->answer[from->received] = 0;
    wanted = request.answer_length > 0 ? request.answer_length : length_of(from->answer);
    if (!wanted || from->received < wanted)
        return 0;
    from->received = 0;
    return 1;
}

#include "load.h"

static int compare(const void *left, const void *right)
{
    double a = *(const double *)left, b = *(const double *)right;

    return (a > b) - (a < b);
}

/* Open loop: send `number` * `each` requests at `rate` a second; store their latencies; return the number of answers. */
static long arrive(int poller, struct connection *connections, long number, long each, double rate, double *latencies)
{
    struct epoll_event events[EVENTS];
    struct connection **idle = calloc(number, sizeof *idle);
    long free_ones = number, answers = 0, sent = 0, total = number * each;
    double next = now();

    srand48(1);
    for (long i = 0; i < number; i++)
        idle[i] = &connections[i];
    while (answers < total) {
        double time = now();

        while (sent < total && next <= time && free_ones) {
            struct connection *connection = idle[--free_ones];

            connection->since = next;
            send_request(connection);
            sent++;
            next -= log(1 - drand48()) / rate;
        }
        /* Never sleeps while requests are due: a sleep ends late, which would count as latency of the server. */
        int ready = epoll_wait(poller, events, EVENTS, sent < total && free_ones ? 0 : -1);

        for (int i = 0; i < ready; i++) {
            struct connection *connection = events[i].data.ptr;

            if (!answered(connection))
                continue;
            latencies[answers++] = (now() - connection->since) * 1e6;
            idle[free_ones++] = connection;
        }
    }
    free(idle);
    return answers;
}

static void set_request(int is_websocket, int is_first)
{
    memset(&request, 0, sizeof request);
    if (is_websocket && !is_first) {
        /* A masked binary message. A mask of zeros leaves the payload as it is. */
        request.bytes[0] = (char)0x82;
        request.bytes[1] = (char)(0x80 | MESSAGE);
        memset(request.bytes + 6, 'x', MESSAGE);
        request.length = 6 + MESSAGE;
        request.answer_length = 2 + MESSAGE;
        return;
    }
    request.length = sprintf(
        request.bytes, "GET / HTTP/1.1\r\nHost: 127.0.0.1:8000\r\nUser-Agent: http_load\r\nAccept: */*\r\n%s\r\n",
        is_websocket ? "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
                       "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n"
                     : "");
    request.answer_length = is_websocket ? -1 : 0;
}

int main(int argc, char **argv)
{
    if (argc != 5 && argc != 6) {
        fprintf(stderr, "usage: http_load PORT CONNECTIONS REQUESTS http|varied|websocket [RATE]\n");
        return 2;
    }
    int port = atoi(argv[1]), poller = epoll_create1(0), is_websocket = !strcmp(argv[4], "websocket");
    long number = atol(argv[2]), each = atol(argv[3]), answers;
    double rate = argc == 6 ? atof(argv[5]) : 0, *latencies = calloc(number * each, sizeof *latencies), began;
    struct connection *connections = calloc(number, sizeof *connections);

    is_varied = !strcmp(argv[4], "varied");
    for (long i = 0; i < number; i++)
        add_connection(port, poller, &connections[i]);
    set_request(is_websocket, 1);
    exchange(poller, connections, number, 1);
    set_request(is_websocket, 0);
    wait_for_start();
    began = now();
    answers = rate ? arrive(poller, connections, number, each, rate, latencies)
                   : exchange(poller, connections, number, each);
    printf("%ld %f", answers, now() - began);
    if (rate) {
        qsort(latencies, answers, sizeof *latencies, compare);
        printf(" %.1f %.1f", latencies[answers / 2], latencies[answers * 99 / 100]);
    }
    printf("\n");
    return 0;
}
