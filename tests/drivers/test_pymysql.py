"""PyMySQL: pure Python over sockets."""

import pytest

pymysql = pytest.importorskip("pymysql", reason="PyMySQL is not installed")

import vthreads  # noqa: E402  a skipped module needs none of it
from vthreads import ThreadGroup  # noqa: E402

pytestmark = [pytest.mark.server("MariaDB"), pytest.mark.real]


def connect(port=3306):
    return pymysql.connect(host="127.0.0.1", port=port, user="root", database="test", autocommit=True)


def ask(connection, query, arguments=None):
    with connection.cursor() as cursor:
        cursor.execute(query, arguments)
        return cursor.fetchone()


def wait_for_sessions(observer, query, count):
    with vthreads.fail_after(20):
        while ask(observer, "select count(*) from information_schema.processlist where info = %s", [query]) != (count,):
            vthreads.sleep(0.01)


def kill_all(observer, query):
    with observer.cursor() as cursor:
        cursor.execute("select id from information_schema.processlist where info = %s", [query])
        for (ident,) in cursor.fetchall():
            try:
                cursor.execute("kill query %s", [ident])
            except pymysql.err.OperationalError as error:
                # The server ends a query itself when it sees that the client has left.
                if error.args[0] != pymysql.constants.ER.NO_SUCH_THREAD:
                    raise


def test_many_wait_at_once(run):
    query = "select sleep(60), 'many'"

    def wait():
        with connect() as connection:
            ask(connection, query)

    def root():
        with connect() as observer, ThreadGroup() as group:
            for _ in range(50):
                group.spawn(wait)
            wait_for_sessions(observer, query, 50)
            # The server goes on with what it was asked, whoever is still there: KILL is its cancellation.
            group.cancel()
            kill_all(observer, query)

    run(root)


def test_a_deadline_closes_the_connection(run):
    query = "select sleep(60), 'deadline'"

    def root():
        with connect() as observer:
            connection = connect()
            with vthreads.move_on_after(0.2) as scope:
                ask(connection, query)
            assert scope.cancelled_caught
            assert not connection.open
            kill_all(observer, query)
            with pytest.raises(pymysql.err.InterfaceError):
                ask(connection, "select 1")
            connection.connect()
            assert (1,) == ask(connection, "select 1")
            connection.close()

    run(root)


def test_a_cancelled_transaction_is_rolled_back(run):
    def root():
        with connect() as observer, observer.cursor() as cursor:
            cursor.execute("create or replace table vthreads_kept (number int) engine=innodb")
            try:
                connection = connect()
                with vthreads.move_on_after(0.2) as scope:
                    connection.begin()
                    with connection.cursor() as insert:
                        insert.execute("insert into vthreads_kept values (1)")
                    ask(connection, "select sleep(60), 'transaction'")
                assert scope.cancelled_caught
                kill_all(observer, "select sleep(60), 'transaction'")
                assert (0,) == ask(observer, "select count(*) from vthreads_kept")
            finally:
                cursor.execute("drop table vthreads_kept")

    run(root)


def test_nothing_is_sent_in_a_cancelled_scope(run):
    def root():
        with connect() as connection, connection.cursor() as cursor:
            cursor.execute("create temporary table untouched (number int)")
            with vthreads.move_on_after(0) as scope:
                cursor.execute("insert into untouched values (1)")
            assert scope.cancelled_caught
        connection = connect()
        assert (1,) == ask(connection, "select 1")
        connection.close()

    run(root)


def test_a_server_that_goes_away_ends_every_query(run, proxy):
    query = "select sleep(60), 'away'"

    def wait(port):
        connection = connect(port)
        with pytest.raises(pymysql.err.OperationalError):
            ask(connection, query)
        assert not connection.open
        with pytest.raises(pymysql.err.OperationalError):
            connect(port)

    def root():
        with proxy("MariaDB") as server, connect() as observer, ThreadGroup() as group:
            for _ in range(20):
                group.spawn(wait, server.port)
            wait_for_sessions(observer, query, 20)
            server.cut()
            kill_all(observer, query)

    run(root)


def test_a_read_timeout_is_kept(run):
    def root():
        with connect() as observer:
            connection = pymysql.connect(host="127.0.0.1", user="root", database="test", read_timeout=1)
            with pytest.raises(pymysql.err.OperationalError, match="timed out"):
                ask(connection, "select sleep(60), 'timeout'")
            kill_all(observer, "select sleep(60), 'timeout'")

    run(root)


def test_a_large_result_that_is_streamed(run):
    def work():
        connection = connect()
        with connection.cursor(pymysql.cursors.SSCursor) as cursor:
            cursor.execute("select seq, repeat('x', 1000) from seq_1_to_2000")
            total = sum(number for number, _ in cursor)
        connection.close()
        return total

    assert [2001000] * 10 == run(lambda: list(vthreads.gather(*[work] * 10)))
