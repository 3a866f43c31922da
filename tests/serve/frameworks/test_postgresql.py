"""Flask with a pool of psycopg, and Django, over HTTP with PostgreSQL: load, deadlines, killed backends, no leaks."""

from __future__ import annotations

import os
import socket
import threading
from collections import Counter

import pytest

psycopg = pytest.importorskip("psycopg", reason="psycopg is not installed")

from .conftest import SECONDS, site_of  # noqa: E402  a skipped module needs none of it

pytestmark = [pytest.mark.real, pytest.mark.thorough, pytest.mark.server("PostgreSQL")]

# Backends of a site that execute a statement, or that are inside a transaction.
ACTIVE = "select count(*) from pg_stat_activity where datname = %s and state <> 'idle' and pid <> pg_backend_pid()"
KILL = "select count(pg_terminate_backend(pid)) from pg_stat_activity where datname = %s and pid <> pg_backend_pid()"


@pytest.fixture(scope="module")
def database():
    """A new database, and a connection to the server for the test itself."""
    name = f"vthreads_sites_{os.getpid()}"
    with psycopg.connect("host=127.0.0.1 user=postgres dbname=postgres", autocommit=True) as connection:
        connection.execute(f"create database {name}")
        try:
            yield Database(connection, name)
        finally:
            connection.execute(f"drop database {name} with (force)")


class Database:
    def __init__(self, connection, name):
        self.connection = connection
        self.name = name

    def count(self, query):
        return self.connection.execute(query, [self.name]).fetchone()[0]

    def wait_for_active(self, count):
        # The backends belong to other processes.
        for _ in range(2000):
            if count == self.count(ACTIVE):
                return
            threading.Event().wait(0.05)
        raise AssertionError(self.count(ACTIVE))


@pytest.fixture(scope="module")
def flask_site(database, tmp_path_factory):
    pytest.importorskip("psycopg_pool", reason="psycopg_pool is not installed")
    with site_of("flask_site", "--request-seconds", "5", log=log_in(tmp_path_factory), database=database.name) as site:
        yield site
        assert 0 == site.stop()


@pytest.fixture(scope="module", params=["", "with a pool"])
def django_site(request, database, tmp_path_factory):
    pytest.importorskip("django", reason="django is not installed")
    options = {"database": database.name, "pool": request.param}
    with site_of("django_site", "--request-seconds", "5", log=log_in(tmp_path_factory), **options) as site:
        assert (200, "created") == site.ask("/create")
        yield site
        assert 0 == site.stop()
    database.wait_for_active(0)


def log_in(tmp_path_factory):
    return tmp_path_factory.mktemp("site") / "log"


def test_many_queries_by_few_connections(flask_site):
    answers = flask_site.ask_at_once([f"/query/{number}" for number in range(100)])
    assert [(200, str(number + 1)) for number in range(100)] == answers


def test_a_deadline_ends_the_query_and_returns_the_connection(flask_site, database):
    # More than the pool has: each connection is used by several cancelled requests.
    for _ in range(2):
        assert {504} == {status for status, _ in flask_site.ask_at_once(["/hang-in-query"] * 4)}
    database.wait_for_active(0)
    assert [(200, "8")] * 20 == flask_site.ask_at_once(["/query/7"] * 20)


def test_a_client_that_has_gone_ends_the_query(flask_site, database):
    with socket.create_connection(("127.0.0.1", flask_site.port), timeout=SECONDS) as client:
        client.sendall(b"GET /hang-in-query HTTP/1.1\r\nHost: a\r\n\r\n")
        database.wait_for_active(1)
    database.wait_for_active(0)


def test_killed_backends_of_a_pool(flask_site, database):
    kill_under_load(flask_site, "/query/1", database)


def test_killed_backends_of_django(django_site, database):
    kill_under_load(django_site, "/visit/killed", database)


def kill_under_load(site, path, database):
    """Terminate all backends of the site several times: requests under way fail, and no later ones."""
    statuses = Counter()
    stop = threading.Event()

    def ask_often():
        while not stop.is_set():
            statuses[site.ask(path)[0]] += 1

    clients = [threading.Thread(target=ask_often) for _ in range(8)]
    for client in clients:
        client.start()
    killed = 0
    for _ in range(5):
        threading.Event().wait(0.5)
        killed += database.count(KILL)
    enough = statuses[200] + 100
    while statuses[200] < enough:
        threading.Event().wait(0.05)
    stop.set()
    for client in clients:
        client.join(SECONDS)
    assert {200, 500} >= statuses.keys()
    assert killed > 0
    # A connection that was idle fails with its next request.
    assert statuses[500] <= killed
    assert [(200,)] * 20 == [answer[:1] for answer in site.ask_at_once([path] * 20)]


def test_transactions_of_django(django_site):
    name = f"load{id(django_site)}"
    answers = django_site.ask_at_once([f"/visit/{name}"] * 50)
    assert {200} == {status for status, _ in answers}
    assert (200, "51") == django_site.ask(f"/visit/{name}")


@pytest.mark.parametrize("path", ["hang-in-transaction", "hang-with-connection"])
def test_a_deadline_in_django_rolls_back_and_leaves_no_connection(django_site, database, path):
    name = f"deadline{id(django_site)}"
    for _ in range(2):
        assert {504} == {status for status, _ in django_site.ask_at_once([f"/{path}/{name}"] * 4)}
    database.wait_for_active(0)
    added = 0 if path == "hang-in-transaction" else 8
    before = int(django_site.ask(f"/visit/{name}")[1])
    assert before >= 1 + added
    # Every connection of a pool can be used.
    assert {200} == {status for status, _ in django_site.ask_at_once([f"/visit/{name}"] * 20)}
