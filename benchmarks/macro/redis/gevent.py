"""redis-py, a greenlet for each connection."""

from gevent import monkey

monkey.patch_all()

import gevent  # noqa: E402 - gevent requires the patch first
import redis  # noqa: E402

from . import KEY, VALUE  # noqa: E402


def ask(client, times):
    return sum(client.get(KEY) == VALUE for _ in range(times))


def run(size, operations, watch, server):
    clients = [redis.Redis.from_url(server, single_connection_client=True) for _ in range(size)]
    for client in clients:
        client.set(KEY, VALUE)
    with watch():
        greenlets = [gevent.spawn(ask, client, operations // size) for client in clients]
        gevent.joinall(greenlets, raise_error=True)
    clients[0].delete(KEY)
    for client in clients:
        client.close()
    return sum(greenlet.value for greenlet in greenlets)
