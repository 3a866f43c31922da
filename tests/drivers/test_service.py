"""The service of examples/service: what it answers, and that SIGTERM under load loses nothing that it accepted."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

pytest.importorskip("flask", reason="Flask is not installed")
pytest.importorskip("redis", reason="redis is not installed")
psycopg = pytest.importorskip("psycopg", reason="psycopg is not installed")
pytest.importorskip("psycopg_pool", reason="psycopg_pool is not installed")

from websockets.exceptions import ConnectionClosed  # noqa: E402  a skipped module needs none of it
from websockets.sync.client import connect  # noqa: E402

pytestmark = [pytest.mark.server("PostgreSQL"), pytest.mark.server("Redis"), pytest.mark.real]

SERVICE = Path(__file__).parents[2] / "examples" / "service"
SECONDS = 60


class Shop:
    """The running service."""

    def __init__(self, process, database):
        self.process = process
        self.database = database
        self.ports = {}
        while len(self.ports) < 2:
            name, _, port = process.stdout.readline().rpartition(":")
            assert name, "the service ended before it was ready"
            self.ports[name.partition(":")[0]] = int(port)

    def ask(self, method, path, body=None, server="orders"):
        connection = http.client.HTTPConnection("127.0.0.1", self.ports[server], timeout=SECONDS)
        with contextlib.closing(connection):
            return answer_of(connection, method, path, body)

    def follow(self):
        return connect(f"ws://127.0.0.1:{self.ports['orders']}/news", proxy=None, open_timeout=SECONDS)

    def stop(self):
        self.process.send_signal(signal.SIGTERM)
        assert 0 == self.process.wait(SECONDS)

    def states(self):
        with psycopg.connect(self.database) as connection:
            return dict(connection.execute("select id, state from shop_order"))


def answer_of(connection, method, path, body=None):
    """Status and body, as text unless it is JSON."""
    data = None if body is None else json.dumps(body)
    connection.request(method, path, data, {"Content-Type": "application/json"} if data else {})
    response = connection.getresponse()
    text = response.read().decode()
    is_json = response.headers["Content-Type"] == "application/json"
    return response.status, json.loads(text) if is_json else text


@contextlib.contextmanager
def running(database, redis="redis://127.0.0.1"):
    settings = {
        "DATABASE_URL": database,
        "REDIS_URL": redis,
        # The name of the database: keys of other tests are not found.
        "SHOP_PREFIX": database.rpartition("/")[2],
        "SHOP_BIND": "127.0.0.1:0",
        "SHOP_ADMIN": "127.0.0.1:0",
        "PYTHONPATH": str(SERVICE),
    }
    command = [sys.executable, "-m", "shop"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env={**os.environ, **settings}) as process:
        try:
            yield Shop(process, database)
        finally:
            process.kill()


@pytest.fixture
def shop(new_database):
    with running(new_database) as shop:
        yield shop


def wait_until(condition):
    until = time.monotonic() + SECONDS
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.02)


def test_an_order_is_added_packed_announced_and_counted(shop):
    with shop.follow() as visitor:
        # The visitor follows as soon as it gets news; before that, an order may be too early for it.
        numbers = set()
        while True:
            status, order = shop.ask("POST", "/orders", {"item": "teapot"})
            assert (201, "teapot") == (status, order["item"])
            numbers.add(order["id"])
            with contextlib.suppress(TimeoutError):
                visitor.recv(timeout=0.2)
                break
        wait_until(lambda: {(200, "packed")} == {state_of(shop, number) for number in numbers})
        status, order = shop.ask("POST", "/orders", {"item": "cup"})
        told = []
        while ("packed", order["id"]) not in told:
            message = json.loads(visitor.recv(timeout=SECONDS))
            told.append((message["event"], message["id"]))
        assert ("new", order["id"]) in told
        shop.stop()
        with pytest.raises(ConnectionClosed) as closed:
            while True:
                visitor.recv(timeout=SECONDS)
        assert 1001 == closed.value.rcvd.code


def state_of(shop, number):
    status, order = shop.ask("GET", f"/orders/{number}")
    return status, order["state"]


# The commands in its README, each with the lines that it prints there.
SHOWN = re.findall(r"^\$ (curl .*)\n((?:\{.*\n)*)", (SERVICE / "README.md").read_text(), re.M)


@pytest.mark.skipif(shutil.which("curl") is None, reason="no curl")
def test_the_commands_in_the_readme_print_what_it_shows(shop):
    assert 4 == len(SHOWN)
    for command, output in SHOWN:
        words = command.replace("8000", str(shop.ports["orders"])).replace("9900", str(shop.ports["figures"]))
        ended = subprocess.run(shlex.split(words), check=True, stdout=subprocess.PIPE, text=True, timeout=SECONDS)
        assert output in ended.stdout
        # A reader is slower than the workers.
        wait_until(lambda: {"packed"} == set(shop.states().values()))
    assert "shop_packed_total 1\n" in ended.stdout


def test_the_command_in_the_readme_follows_the_news(shop):
    command = [sys.executable, "-m", "websockets", f"ws://127.0.0.1:{shop.ports['orders']}/news"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as visitor:
        assert "Connected to ws://" in visitor.stdout.readline()
        visitor.stdin.close()
        visitor.kill()


def test_wrong_requests_are_refused(shop):
    assert 400 == shop.ask("POST", "/orders", {"item": ""})[0]
    assert 400 == shop.ask("POST", "/orders", [])[0]
    assert 404 == shop.ask("GET", "/orders/7")[0]
    assert (200, "ready\n") == shop.ask("GET", "/ready", server="figures")
    text = shop.ask("GET", "/metrics", server="figures")[1]
    assert 'shop_requests_total{method="POST",status="400"} 2\n' in text
    assert "\nshop_packed_total 0\n" in text


def test_a_report_ends_at_its_deadline_and_gives_its_connection_back(shop):
    assert (200, {}) == shop.ask("GET", "/report")
    with psycopg.connect(shop.database) as blocker:
        blocker.execute("lock table shop_order in access exclusive mode")
        # More than there are connections in the pool.
        with ThreadPoolExecutor(20) as clients:
            statuses = list(clients.map(lambda _: shop.ask("GET", "/report")[0], range(20)))
        assert {504} == set(statuses)
        blocker.rollback()
        assert (200, {}) == shop.ask("GET", "/report")


def test_it_goes_on_without_redis(new_database):
    with running(new_database, "redis://127.0.0.1:1") as shop:
        status, order = shop.ask("POST", "/orders", {"item": "teapot"})
        assert 201 == status
        wait_until(lambda: (200, "packed") == state_of(shop, order["id"]))
        shop.stop()


def test_without_a_database_it_says_what_to_set():
    settings = {"DATABASE_URL": "postgresql://postgres@127.0.0.1:1/none", "PYTHONPATH": str(SERVICE)}
    command = [sys.executable, "-m", "shop"]
    ended = subprocess.run(
        command, check=False, capture_output=True, text=True, timeout=SECONDS, env={**os.environ, **settings}
    )
    assert 1 == ended.returncode
    assert "Set DATABASE_URL" in ended.stderr.splitlines()[-1]


class Customers:
    """Clients with kept connections that order and look until they are refused."""

    def __init__(self, shop, when_ordered):
        self._shop = shop
        self._when_ordered = when_ordered
        self.ordered = []
        self.lost = []
        self.wrong = []

    def run(self, count):
        threads = [threading.Thread(target=self._visit_often) for _ in range(count)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(SECONDS)
            assert not thread.is_alive()

    def _visit_often(self):
        while True:
            connection = http.client.HTTPConnection("127.0.0.1", self._shop.ports["orders"], timeout=SECONDS)
            try:
                connection.connect()
            except ConnectionRefusedError:
                return
            with contextlib.closing(connection):
                try:
                    # None: the response has announced the end of the connection.
                    while connection.sock is not None:
                        self._visit(connection)
                except (OSError, http.client.HTTPException) as error:
                    self.lost.append(error)

    def _visit(self, connection):
        status, order = answer_of(connection, "POST", "/orders", {"item": "teapot"})
        if status != 201:
            self.wrong.append((status, order))
            return
        self.ordered.append(order["id"])
        self._when_ordered(len(self.ordered))
        if connection.sock is not None:
            status, found = answer_of(connection, "GET", f"/orders/{order['id']}")
            if (status, found.get("id")) != (200, order["id"]):
                self.wrong.append((status, found))


def test_sigterm_under_load_loses_no_request_and_no_order(new_database):
    def stop_at(count):
        if count == 300:
            shop.process.send_signal(signal.SIGTERM)

    with running(new_database) as shop, shop.follow() as visitor:
        customers = Customers(shop, stop_at)
        customers.run(16)
        assert 0 == shop.process.wait(SECONDS)
        with pytest.raises(ConnectionClosed) as closed:
            while True:
                visitor.recv(timeout=SECONDS)
        assert 1001 == closed.value.rcvd.code
    assert [] == customers.lost
    assert [] == customers.wrong
    assert len(customers.ordered) >= 300
    # Each order that was answered is in the database, and no other one.
    assert sorted(customers.ordered) == sorted(shop.states())
    # The next process packs the rest.
    with running(new_database) as shop:
        wait_until(lambda: {"packed"} == set(shop.states().values()))
        shop.stop()
