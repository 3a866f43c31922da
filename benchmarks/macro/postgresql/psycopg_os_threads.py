"""psycopg, an OS thread for each connection."""

from concurrent.futures import ThreadPoolExecutor
from itertools import repeat

import psycopg

AT_MOST = 1_000


def ask(connection, times):
    return sum(connection.execute("select 1").fetchone()[0] for _ in range(times))


def run(size, operations, watch, server):
    connections = [psycopg.connect(server, autocommit=True) for _ in range(size)]
    with watch(), ThreadPoolExecutor(size) as executor:
        answers = executor.map(ask, connections, repeat(operations // size))
    for connection in connections:
        connection.close()
    return sum(answers)
