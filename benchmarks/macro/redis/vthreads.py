"""redis-py, a virtual thread for each connection."""

import redis

import vthreads
from vthreads import ThreadGroup

from . import KEY, VALUE


def ask(client, times):
    return sum(client.get(KEY) == VALUE for _ in range(times))


def root(size, times, watch, server):
    clients = [redis.Redis.from_url(server, single_connection_client=True) for _ in range(size)]
    for client in clients:
        client.set(KEY, VALUE)
    with watch(), ThreadGroup() as group:
        futures = [group.spawn(ask, client, times) for client in clients]
    clients[0].delete(KEY)
    for client in clients:
        client.close()
    return sum(future.result() for future in futures)


def run(size, operations, watch, server):
    return vthreads.run(root, size, operations // size, watch, server)
