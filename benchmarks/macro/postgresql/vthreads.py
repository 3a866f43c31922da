"""psycopg, a virtual thread for each connection."""

import psycopg

import vthreads
from vthreads import ThreadGroup


def ask(connection, times):
    return sum(connection.execute("select 1").fetchone()[0] for _ in range(times))


def root(size, times, watch, server):
    connections = [psycopg.connect(server, autocommit=True) for _ in range(size)]
    with watch(), ThreadGroup() as group:
        futures = [group.spawn(ask, connection, times) for connection in connections]
    for connection in connections:
        connection.close()
    return sum(future.result() for future in futures)


def run(size, operations, watch, server):
    return vthreads.run(root, size, operations // size, watch, server)
