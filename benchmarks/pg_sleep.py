"""Measure how long 100 virtual threads take that each run pg_sleep on a connection of their own.

Requires psycopg 3, and a server at 127.0.0.1:5432 that accepts 100 connections of the user postgres without a password.

    python benchmarks/pg_sleep.py [threads]
"""

import sys
import time

import psycopg

from vthreads import ThreadGroup

THREADS, SECONDS = 100, 0.5
SERVER = "host=127.0.0.1 user=postgres dbname=postgres"


def ask() -> None:
    """Connect, sleep on the server, disconnect."""
    with psycopg.connect(SERVER) as connection:
        connection.execute("select pg_sleep(%s)", [SECONDS])


def main() -> None:
    """Print the time from the first spawn until the last connection is closed."""
    threads = int(sys.argv[1]) if len(sys.argv) > 1 else THREADS
    started = time.perf_counter()
    with ThreadGroup() as group:
        for _ in range(threads):
            group.spawn(ask)
    seconds = time.perf_counter() - started
    print(f"{threads} × select pg_sleep({SECONDS}), connecting included: {seconds:.2f} s")


if __name__ == "__main__":
    main()
