"""psycopg, a greenlet for each connection."""

from gevent import monkey

monkey.patch_all()

import gevent  # noqa: E402 - gevent requires the patch first
import psycopg  # noqa: E402


def ask(connection, times):
    return sum(connection.execute("select 1").fetchone()[0] for _ in range(times))


def run(size, operations, watch, server):
    connections = [psycopg.connect(server, autocommit=True) for _ in range(size)]
    with watch():
        greenlets = [gevent.spawn(ask, connection, operations // size) for connection in connections]
        gevent.joinall(greenlets, raise_error=True)
    for connection in connections:
        connection.close()
    return sum(greenlet.value for greenlet in greenlets)
