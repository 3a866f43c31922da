"""psycopg2, by its wait callback."""

import socket
import subprocess
import sys

import pytest

psycopg2 = pytest.importorskip("psycopg2", reason="psycopg2 is not installed")

import vthreads  # noqa: E402  a skipped module needs none of it
from vthreads import ThreadGroup  # noqa: E402

pytestmark = [pytest.mark.server("PostgreSQL"), pytest.mark.real]


def connect(port=5432):
    connection = psycopg2.connect(host="127.0.0.1", port=port, user="postgres", dbname="test")
    connection.autocommit = True
    return connection


def ask(connection, query, arguments=None):
    with connection.cursor() as cursor:
        cursor.execute(query, arguments)
        return cursor.fetchone()


def wait_for_sessions(observer, query, count):
    counted = "select count(*) from pg_stat_activity where state = 'active' and query = %s"
    with vthreads.fail_after(20):
        while ask(observer, counted, [query]) != (count,):
            vthreads.sleep(0.01)


@pytest.fixture
def observed(run):
    """Call a function as root with a connection that watches the server."""

    def observed(fn):
        def root():
            observer = connect()
            try:
                return fn(observer)
            finally:
                observer.close()

        return run(root)

    return observed


def test_many_wait_at_once(observed):
    query = "select pg_sleep(60), 'many'"

    def wait():
        ask(connect(), query)

    def root(observer):
        with ThreadGroup() as group:
            for _ in range(80):
                group.spawn(wait)
            wait_for_sessions(observer, query, 80)
            group.cancel()
        wait_for_sessions(observer, query, 0)

    observed(root)


def test_a_deadline_cancels_the_query_on_the_server_and_closes_the_connection(observed):
    query = "select pg_sleep(60), 'deadline'"

    def root(observer):
        connection = connect()
        with vthreads.move_on_after(0.2) as scope:
            ask(connection, query)
        assert scope.cancelled_caught
        assert connection.closed
        wait_for_sessions(observer, query, 0)

    observed(root)


def test_an_interrupt_cancels_the_query_on_the_server_and_closes_the_connection(observed):
    query = "select pg_sleep(60), 'interrupt'"

    def root(observer):
        connection = connect()
        with ThreadGroup() as group:

            @group.spawn
            def waiting():
                with pytest.raises(vthreads.Interrupted):
                    ask(connection, query)

            wait_for_sessions(observer, query, 1)
            waiting.thread.interrupt()
        assert connection.closed
        wait_for_sessions(observer, query, 0)

    observed(root)


def test_a_cancelled_transaction_leaves_nothing(observed):
    def root(observer):
        ask(observer, "create table if not exists vthreads_kept (number int); select 1")
        try:
            connection = connect()
            connection.autocommit = False
            with vthreads.move_on_after(0.2) as scope:
                ask(connection, "insert into vthreads_kept values (1) returning number")
                ask(connection, "select pg_sleep(60)")
            assert scope.cancelled_caught
            assert (0,) == ask(observer, "select count(*) from vthreads_kept")
        finally:
            ask(observer, "drop table vthreads_kept; select 1")

    observed(root)


def test_a_cancelled_attempt_to_connect_leaves_no_descriptor(run):
    def root():
        with socket.create_server(("127.0.0.1", 0)) as mute:
            with vthreads.move_on_after(0.2) as scope:
                psycopg2.connect(host="127.0.0.1", port=mute.getsockname()[1], user="postgres", sslmode="disable")
            assert scope.cancelled_caught

    run(root)


def test_a_server_that_goes_away_ends_every_query(observed, proxy):
    query = "select pg_sleep(60), 'away'"

    def wait(port):
        connection = connect(port)
        with pytest.raises(psycopg2.OperationalError):
            ask(connection, query)
        connection.close()
        with pytest.raises(psycopg2.OperationalError):
            connect(port)

    def root(observer):
        with proxy("PostgreSQL") as server, ThreadGroup() as group:
            for _ in range(20):
                group.spawn(wait, server.port)
            wait_for_sessions(observer, query, 20)
            server.cut()
        ask(observer, "select count(pg_cancel_backend(pid)) from pg_stat_activity where query = %s", [query])

    observed(root)


def test_an_os_thread_waits_by_blocking(observed):
    def root(observer):
        def on_os_thread():
            connection = connect()
            try:
                return ask(connection, "select 1, pg_sleep(0.01)")[0]
            finally:
                connection.close()

        return vthreads.offload(on_os_thread), ask(observer, "select 2")[0]

    assert (1, 2) == observed(root)


def test_the_callback_of_a_user_stays():
    code = """
import psycopg2.extensions, psycopg2.extras, vthreads
get, set = psycopg2.extensions.get_wait_callback, psycopg2.extensions.set_wait_callback
set(psycopg2.extras.wait_select)
vthreads.patch()
assert get() is psycopg2.extras.wait_select
vthreads.unpatch()
assert get() is psycopg2.extras.wait_select
set(None)
vthreads.patch()
assert get().__module__ == "vthreads.integrations._psycopg2"
vthreads.unpatch()
assert get() is None
"""
    subprocess.run([sys.executable, "-c", code], timeout=60, check=True)
