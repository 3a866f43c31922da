"""redis-py, an OS thread for each connection."""

from concurrent.futures import ThreadPoolExecutor
from itertools import repeat

import redis

from . import KEY, VALUE

AT_MOST = 1_000


def ask(client, times):
    return sum(client.get(KEY) == VALUE for _ in range(times))


def run(size, operations, watch, server):
    clients = [redis.Redis.from_url(server, single_connection_client=True) for _ in range(size)]
    for client in clients:
        client.set(KEY, VALUE)
    with watch(), ThreadPoolExecutor(size) as executor:
        answers = executor.map(ask, clients, repeat(operations // size))
    clients[0].delete(KEY)
    for client in clients:
        client.close()
    return sum(answers)
