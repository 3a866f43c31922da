"""psycopg 3, with functions that park instead of those that wait in C."""

import socket
import subprocess
import sys
import threading

import pytest

psycopg = pytest.importorskip("psycopg", reason="psycopg is not installed")

import vthreads  # noqa: E402  a skipped module needs none of it
from vthreads import ThreadGroup  # noqa: E402

pytestmark = [pytest.mark.server("PostgreSQL"), pytest.mark.real]

SERVER = "host=127.0.0.1 user=postgres dbname=test"


def connect(**options):
    return psycopg.connect(SERVER, autocommit=True, **options)


def sessions_with(observer, query):
    found = observer.execute("select count(*) from pg_stat_activity where state = 'active' and query = %s", [query])
    return found.fetchone()[0]


def wait_for_sessions(observer, query, count):
    with vthreads.fail_after(20):
        while sessions_with(observer, query) != count:
            vthreads.sleep(0.01)


def test_many_wait_at_once(run):
    query = "select pg_sleep(60), 'many'"

    def wait():
        with connect() as connection:
            connection.execute(query)

    def root():
        with connect() as observer:
            with ThreadGroup() as group:
                for _ in range(80):
                    group.spawn(wait)
                wait_for_sessions(observer, query, 80)
                group.cancel()
            wait_for_sessions(observer, query, 0)

    run(root)


def test_a_deadline_cancels_the_query_and_leaves_the_connection_usable(run):
    query = "select pg_sleep(60), 'deadline'"

    def root():
        with connect() as observer, connect() as connection:
            with vthreads.move_on_after(0.2) as scope:
                connection.execute(query)
            assert scope.cancelled_caught
            assert 0 == sessions_with(observer, query)
            assert (1,) == connection.execute("select 1").fetchone()

    run(root)


def test_an_interrupt_cancels_the_query_and_leaves_the_connection_usable(run):
    query = "select pg_sleep(60), 'interrupt'"

    def root():
        with connect() as observer, connect() as connection, ThreadGroup() as group:

            @group.spawn
            def waiting():
                with pytest.raises(vthreads.Interrupted):
                    connection.execute(query)
                return connection.execute("select 1").fetchone()

            wait_for_sessions(observer, query, 1)
            waiting.thread.interrupt()
            assert (1,) == waiting.result()
            assert 0 == sessions_with(observer, query)

    run(root)


def test_a_cancelled_transaction_is_rolled_back_on_the_way_out(run):
    def root():
        with connect() as connection:
            connection.execute("create temporary table kept (number int)")
            with vthreads.move_on_after(0.2) as scope:
                with connection.transaction():
                    connection.execute("insert into kept values (1)")
                    connection.execute("select pg_sleep(60)")
            assert scope.cancelled_caught
            assert psycopg.pq.TransactionStatus.IDLE == connection.info.transaction_status
            assert [] == connection.execute("select * from kept").fetchall()

    run(root)


def test_nothing_is_sent_in_a_cancelled_scope(run):
    def root():
        with connect() as connection:
            connection.execute("create temporary table untouched (number int)")
            with vthreads.move_on_after(0) as scope:
                connection.execute("insert into untouched values (1)")
            assert scope.cancelled_caught
            assert [] == connection.execute("select * from untouched").fetchall()

    run(root)


def test_without_grace_the_connection_is_closed(run):
    def root():
        with connect() as connection:
            with vthreads.move_on_after(0.2, cleanup_grace=0) as scope:
                connection.execute("select pg_sleep(1)")
            assert scope.cancelled_caught
            assert connection.closed

    run(root)


def test_a_cancelled_attempt_to_connect_leaves_no_descriptor(run):
    def root():
        with socket.create_server(("127.0.0.1", 0)) as mute:
            port = mute.getsockname()[1]
            with vthreads.move_on_after(0.2) as scope:
                psycopg.connect(f"host=127.0.0.1 port={port} user=postgres sslmode=disable")
            assert scope.cancelled_caught
            accepted, _ = mute.accept()
            with accepted:
                # The start of the protocol, and then the end of it: the other side is closed.
                while accepted.recv(1024):
                    pass

    run(root)


def test_waiting_for_notifications_can_be_cancelled(run):
    def root():
        with connect() as connection, connect() as other:
            connection.execute("listen news")
            with vthreads.move_on_after(0.2) as scope:
                list(connection.notifies())
            assert scope.cancelled_caught
            other.execute("notify news, 'still there'")
            assert ["still there"] == [notify.payload for notify in connection.notifies(stop_after=1)]

    run(root)


def test_copy_and_server_side_cursors_and_pipelines_park(run):
    def work(number):
        with connect() as connection:
            connection.execute("create temporary table numbers (number int)")
            with connection.cursor().copy("copy numbers from stdin") as copy:
                for value in range(1000):
                    copy.write_row([number + value])
            with connection.transaction(), connection.cursor("server_side") as cursor:
                cursor.execute("select sum(number) from numbers")
                [(total,)] = cursor.fetchall()
            with connection.pipeline():
                counted = connection.execute("select count(*) from numbers")
                connection.execute("select pg_sleep(0.01)")
            return total - 1000 * number, counted.fetchone()[0]

    def root():
        return set(vthreads.map(work, range(20)))

    assert {(499500, 1000)} == run(root)


def test_more_is_sent_and_received_than_a_socket_holds(run):
    size = 8_000_000

    def ask(letter):
        with connect() as connection:
            sent = letter * size
            received, length = connection.execute("select %s::text, length(%s)", [sent, sent]).fetchone()
            return received == sent, length

    def root():
        return set(vthreads.map(ask, "abcd"))

    assert {(True, size)} == run(root)


def test_a_socket_that_libpq_replaces_is_waited_for(run):
    def root():
        with connect() as connection:
            connection.execute("select pg_sleep(0.01)")
            number = connection.fileno()
            connection.pgconn.reset()
            connection.pgconn.nonblocking = 1
            assert number == connection.fileno()
            connection.pgconn.send_query(b"select pg_sleep(0.01), 'new'")
            with vthreads.fail_after(10):
                # It does not come by the look around that psycopg has once an interval.
                [result] = connection.wait(psycopg.generators.execute(connection.pgconn), interval=3600)
            return result.get_value(0, 1)

    assert b"new" == run(root)


def test_a_number_that_libpq_has_given_back_is_taken_by_a_socket(run):
    def root():
        with connect() as connection:
            connection.execute("select pg_sleep(0.01)")
            number = connection.fileno()
        one, other = socket.socketpair()
        with one, other, vthreads.fail_after(20), ThreadGroup() as group:
            assert number in (one.fileno(), other.fileno())
            received = [group.spawn(one.recv, 1), group.spawn(other.recv, 1)]
            one.send(b"1")
            other.send(b"2")
        return [future.result() for future in received]

    assert [b"2", b"1"] == run(root)


def test_waiting_for_notifications_ends_at_its_timeout(run):
    def root():
        with connect() as connection:
            connection.execute("listen nothing")
            return list(connection.notifies(timeout=0.25))

    assert [] == run(root)


@pytest.mark.parametrize("name", ["wait", "wait_conn"])
def test_what_replaces_a_function_has_its_name(run, name):
    def root():
        replaced = getattr(psycopg.waiting, name)
        original = replaced.__wrapped__
        return [(function.__name__, function.__module__) for function in (original, replaced)]

    original, replaced = run(root)
    assert original == replaced


def test_a_server_that_goes_away_ends_every_query(run, proxy):
    query = "select pg_sleep(60), 'away'"

    def wait(port):
        with connect(port=port) as connection:
            with pytest.raises(psycopg.OperationalError):
                connection.execute(query)
            assert connection.closed
        with pytest.raises(psycopg.OperationalError):
            connect(port=port)

    def root():
        with proxy("PostgreSQL") as server, connect() as observer, ThreadGroup() as group:
            for _ in range(20):
                group.spawn(wait, server.port)
            wait_for_sessions(observer, query, 20)
            server.cut()
            group.spawn(
                observer.execute, "select pg_cancel_backend(pid) from pg_stat_activity where query = %s", [query]
            )

    run(root)


def test_a_connection_closed_by_another_thread_ends_the_query(run):
    query = "select pg_sleep(60), 'closed'"

    def root():
        with connect() as observer, ThreadGroup() as group:
            connection = connect()

            @group.spawn
            def waiting():
                with pytest.raises(psycopg.OperationalError):
                    connection.execute(query)

            wait_for_sessions(observer, query, 1)
            connection.close()
            waiting.result()
            observer.execute("select pg_cancel_backend(pid) from pg_stat_activity where query = %s", [query])

    run(root)


def test_a_connection_is_shared_with_an_os_thread(run):
    def root():
        with connect() as connection:
            answers = []
            ask = lambda: answers.append(connection.execute("select 1, pg_sleep(0.01)").fetchone()[0])  # noqa: E731
            os_threads = [threading.Thread(target=ask) for _ in range(5)]
            with ThreadGroup() as group:
                for os_thread in os_threads:
                    os_thread.start()
                    group.spawn(ask)
            for os_thread in os_threads:
                os_thread.join()
            return answers

    assert [1] * 10 == run(root)


LIFE_OF_THE_FUNCTIONS = """
import sys
import vthreads

for step in sys.argv[1:]:
    exec(step)
import psycopg
print(type(psycopg.waiting.wait).__module__, type(psycopg.waiting.wait_conn).__module__)
print(vthreads.Cancelled in psycopg.connection._INTERRUPTED)
print(psycopg.connection.__loader__ is psycopg.connection.__spec__.loader is not None)
print(type(psycopg.connection.__loader__).__name__, len([f for f in sys.meta_path if "vthreads" in type(f).__module__]))
"""


@pytest.mark.parametrize(
    ("steps", "fitted", "finders"),
    [
        (["vthreads.patch()", "import psycopg"], True, 2),
        (["import psycopg", "vthreads.patch()"], True, 2),
        (["vthreads.patch()", "import psycopg", "vthreads.unpatch()"], False, 0),
        (["vthreads.patch()", "vthreads.unpatch()", "import psycopg"], False, 0),
        (["import psycopg", "vthreads.patch()", "vthreads.unpatch()", "vthreads.patch()"], True, 2),
    ],
)
def test_the_order_of_import_and_patch_does_not_matter(steps, fitted, finders):
    done = subprocess.run(
        [sys.executable, "-c", LIFE_OF_THE_FUNCTIONS, *steps], capture_output=True, text=True, timeout=60, check=True
    )  # fmt: skip
    modules, interrupted, same_loader, loader = done.stdout.splitlines()
    assert (modules == "vthreads.integrations._psycopg vthreads.integrations._psycopg") is fitted
    assert (str(fitted), "True") == (interrupted, same_loader)
    assert f"SourceFileLoader {finders}" == loader
