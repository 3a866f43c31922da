"""SQLAlchemy with each driver: its pool, and deadlines at any moment of a connection."""

import random

import pytest

sqlalchemy = pytest.importorskip("sqlalchemy", reason="SQLAlchemy is not installed")

import vthreads  # noqa: E402  a skipped module needs none of it
from vthreads import ThreadGroup  # noqa: E402

from ..servers import server_or_skip  # noqa: E402

pytestmark = pytest.mark.real

URLS = {
    "psycopg": "postgresql+psycopg://postgres@127.0.0.1:{port}/test",
    "psycopg2": "postgresql+psycopg2://postgres@127.0.0.1:{port}/test",
    "pymysql": "mysql+pymysql://root@127.0.0.1:{port}/test",
}
SERVERS = {"psycopg": "PostgreSQL", "psycopg2": "PostgreSQL", "pymysql": "MariaDB"}
PORTS = {"PostgreSQL": 5432, "MariaDB": 3306}
SLEEP = {"PostgreSQL": "select pg_sleep({0}), 1", "MariaDB": "select sleep({0}), 1"}
# What a server is asked for the sessions that run a query, and to end them.
SESSIONS = {
    "PostgreSQL": "select pid from pg_stat_activity where state = 'active' and query = :query",
    "MariaDB": "select id from information_schema.processlist where info = :query",
}
END = {"PostgreSQL": "select pg_cancel_backend({0})", "MariaDB": "kill query {0}"}


class Database:
    """One driver, and how its server is asked for the same things."""

    def __init__(self, driver):
        self.driver = driver
        self.server = SERVERS[driver]

    def engine(self, size=5, port=None, **options):
        url = URLS[self.driver].format(port=port or PORTS[self.server])
        return sqlalchemy.create_engine(url, **{"pool_size": size, "max_overflow": 0, "pool_timeout": 20, **options})

    def sleep(self, seconds, name=""):
        return sqlalchemy.text(SLEEP[self.server].format(seconds) + (f", '{name}'" if name else ""))

    def sessions(self, connection, query):
        found = connection.execute(sqlalchemy.text(SESSIONS[self.server]), {"query": str(query)})
        return [ident for (ident,) in found]

    def wait_for_sessions(self, connection, query, count):
        with vthreads.fail_after(20):
            while len(self.sessions(connection, query)) != count:
                # A transaction sees one state of the activity, which does not change.
                connection.rollback()
                vthreads.sleep(0.01)

    def end_all(self, connection, query):
        for ident in self.sessions(connection, query):
            connection.exec_driver_sql(END[self.server].format(ident))


@pytest.fixture(params=URLS)
def database(request):
    pytest.importorskip(request.param, reason=f"{request.param} is not installed")
    return Database(request.param)


@pytest.fixture
def engine(database):
    """Make engines that are disposed of afterwards."""
    made = []

    def engine(*args, **options):
        made.append(database.engine(*args, **options))
        return made[-1]

    yield engine
    for one in made:
        one.dispose()


@pytest.fixture(autouse=True)
def server_of_the_database(database):
    server_or_skip(database.server)


def assert_all_are_there(engine, size):
    """Every connection at once, and each of them works."""
    assert 0 == engine.pool.checkedout()
    taken = [engine.connect() for _ in range(size)]
    assert {1} == {connection.execute(sqlalchemy.text("select 1")).scalar() for connection in taken}
    for connection in taken:
        connection.close()
    assert (0, size) == (engine.pool.checkedout(), engine.pool.checkedin())


def test_many_wait_at_once(run, database, engine):
    query = database.sleep(60, "many")

    def wait(pool):
        with pool.connect() as connection:
            connection.execute(query)

    def root():
        pool = engine(50)
        with engine(1).connect() as observer, ThreadGroup() as group:
            for _ in range(50):
                group.spawn(wait, pool)
            database.wait_for_sessions(observer, query, 50)
            group.cancel()
            database.end_all(observer, query)
        assert 0 == pool.pool.checkedout()

    run(root)


def test_those_who_find_the_pool_exhausted_park(run, database, engine):
    def work(pool):
        with pool.connect() as connection:
            return connection.execute(database.sleep(0.01)).one()[1]

    def root():
        pool = engine(4)
        results = list(vthreads.map(work, [pool] * 50))
        assert_all_are_there(pool, 4)
        return results

    assert [1] * 50 == run(root)


def test_those_who_find_the_pool_exhausted_time_out(run, engine):
    def root():
        pool = engine(1, pool_timeout=0.1)
        with pool.connect():
            with pytest.raises(sqlalchemy.exc.TimeoutError):
                pool.connect()
        assert_all_are_there(pool, 1)

    run(root)


def test_a_cancelled_waiter_for_the_pool_loses_nothing(run, engine):
    def root():
        pool = engine(2)
        with pool.connect(), pool.connect(), ThreadGroup() as group:
            for _ in range(10):
                group.spawn(pool.connect)
            group.cancel()
        assert_all_are_there(pool, 2)

    run(root)


def test_a_deadline_in_a_transaction_rolls_it_back(run, database, engine):
    def root():
        pool = engine(2)
        table = sqlalchemy.Table(
            "vthreads_kept", sqlalchemy.MetaData(), sqlalchemy.Column("number", sqlalchemy.Integer)
        )
        table.create(pool, checkfirst=True)
        query = database.sleep(60, "transaction")
        with vthreads.move_on_after(0.2) as scope:
            with pool.begin() as connection:
                connection.execute(table.insert(), [{"number": 1}])
                connection.execute(query)
        assert scope.cancelled_caught
        with pool.begin() as connection:
            database.end_all(connection, query)
            assert [] == connection.execute(table.select()).all()
        table.drop(pool)
        assert_all_are_there(pool, 2)

    run(root)


def test_no_connection_is_lost_when_a_deadline_hits_between_check_out_and_return(run, database, engine):
    def work(pool, chance):
        for _ in range(10):
            with vthreads.move_on_after(chance.uniform(0, 0.03)):
                with pool.begin() as connection:
                    connection.execute(database.sleep(0.005))
                    connection.execute(sqlalchemy.text("select 1"))

    def root():
        pool = engine(4)
        with ThreadGroup() as group:
            for seed in range(12):
                group.spawn(work, pool, random.Random(seed))
        assert_all_are_there(pool, 4)

    run(root)


def test_a_server_that_goes_away_and_a_fresh_connection_afterwards(run, database, engine, proxy):
    query = database.sleep(60, "away")

    def wait(pool):
        with pytest.raises(sqlalchemy.exc.OperationalError) as raised, pool.connect() as connection:
            connection.execute(query)
        assert raised.value.connection_invalidated

    def root():
        with proxy(database.server) as server, engine(1).connect() as observer:
            pool = engine(4, port=server.port)
            with ThreadGroup() as group:
                for _ in range(4):
                    group.spawn(wait, pool)
                database.wait_for_sessions(observer, query, 4)
                server.cut()
            database.end_all(observer, query)
            with pytest.raises(sqlalchemy.exc.OperationalError):
                pool.connect()
            assert 0 == pool.pool.checkedout()

    run(root)
