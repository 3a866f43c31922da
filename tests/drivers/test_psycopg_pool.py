"""The pool of psycopg 3: its workers are OS threads, its clients virtual ones."""

import random

import pytest

psycopg_pool = pytest.importorskip("psycopg_pool", reason="psycopg_pool is not installed")
psycopg = pytest.importorskip("psycopg", reason="psycopg is not installed")

import vthreads  # noqa: E402  a skipped module needs none of it
from vthreads import ThreadGroup  # noqa: E402

pytestmark = [pytest.mark.server("PostgreSQL"), pytest.mark.real]

SERVER = "host=127.0.0.1 user=postgres dbname=test"


def open_pool(size, **options):
    return psycopg_pool.ConnectionPool(SERVER, min_size=size, max_size=size, open=True, **options)


def wait_for_clients(pool, count):
    with vthreads.fail_after(20):
        while pool.get_stats().get("requests_waiting", 0) != count:
            vthreads.sleep(0.01)


def take_all(pool, size):
    """Every connection at once, and back: none was lost."""
    connections = [pool.getconn(timeout=20) for _ in range(size)]
    assert {(1,)} == {connection.execute("select 1").fetchone() for connection in connections}
    for connection in connections:
        pool.putconn(connection)


def test_clients_of_an_exhausted_pool_park(run):
    def work(pool):
        with pool.connection() as connection:
            return connection.execute("select 1, pg_sleep(0.01)").fetchone()[0]

    def root():
        with open_pool(4) as pool, ThreadGroup() as group:
            return sum(future.result() for future in [group.spawn(work, pool) for _ in range(100)])

    assert 100 == run(root)


def test_a_client_of_an_exhausted_pool_times_out(run):
    def root():
        with open_pool(1) as pool, pool.connection():
            with pytest.raises(psycopg_pool.PoolTimeout):
                pool.getconn(timeout=0.1)

    run(root)


def test_a_cancelled_client_loses_no_connection(run):
    def root():
        with open_pool(2) as pool:
            with pool.connection(), pool.connection(), ThreadGroup() as group:
                for _ in range(10):
                    group.spawn(pool.getconn, 20)
                wait_for_clients(pool, 10)
                group.cancel()
            take_all(pool, 2)

    run(root)


def test_random_timeouts_lose_no_connection(run):
    def work(pool, chance):
        for _ in range(10):
            with vthreads.move_on_after(chance.uniform(0, 0.03)):
                with pool.connection() as connection:
                    connection.execute("select pg_sleep(0.01)")
                    connection.execute("select 1")

    def root():
        with open_pool(5) as pool:
            with ThreadGroup() as group:
                for seed in range(20):
                    group.spawn(work, pool, random.Random(seed))
            take_all(pool, 5)

    run(root)


def test_a_server_that_goes_away(run, proxy):
    def root():
        with proxy("PostgreSQL") as server:
            with open_pool(2, kwargs={"port": server.port}, reconnect_timeout=1) as pool:
                pool.wait(timeout=20)
                server.cut()
                for _ in range(2):
                    with pytest.raises(psycopg.OperationalError), pool.connection() as connection:
                        connection.execute("select 1")
                with pytest.raises(psycopg_pool.PoolTimeout):
                    pool.getconn(timeout=0.1)

    run(root)
