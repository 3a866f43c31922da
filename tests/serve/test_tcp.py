"""`serve.tcp`: a thread for each connection, failures of one connection, limits, and the stop."""

from __future__ import annotations

import errno
import os
import signal
import socket
import ssl
from itertools import pairwise

import pytest
import trustme

import vthreads
from vthreads import ThreadGroup, move_on_after, serve, sleep, stopping
from vthreads.errors import Cancelled

from .conftest import Client, run_with, settle


def echo(sock):
    while data := sock.recv(100):
        sock.sendall(data)


def test_each_connection_has_a_thread(with_handler):
    def program(site):
        with site.client() as one, site.client() as two:
            one.send(b"one")
            two.send(b"two")
            return one.read(), two.read()

    assert (b"one", b"two") == with_handler(echo, program)


def test_the_server_closes_the_socket_after_the_handler(with_handler):
    kept = []
    assert b"bye" == with_handler(lambda sock: kept.append(sock) or sock.sendall(b"bye"), lambda site: site.ask(b""))
    assert -1 == kept[0].fileno()


def test_a_failing_handler_ends_its_connection_only(with_handler, reported):
    def program(site):
        with site.client() as polite:
            with site.client() as rude:
                rude.send(b"x")
                rude.read()
                rude.reset()
            settle()
            polite.send(b"hello")
            return polite.read()

    assert b"hello" == with_handler(echo, program)
    assert [ConnectionResetError] == [type(failure) for failure in reported]


def test_no_more_connections_are_accepted_than_the_limit(with_handler):
    def program(site):
        with site.client() as one, site.client() as two, site.client() as three:
            for client in (one, two, three):
                client.send(b"x")
            assert (b"x", b"x") == (one.read(), two.read())
            with move_on_after(60) as scope:
                three.read()
            assert scope.cancelled_caught
            one.sock.close()
            return three.read()

    assert b"x" == with_handler(echo, program, max_connections=2)


def test_the_server_counts_the_connections_that_are_open(with_handler):
    def program(site):
        counts = [site.server.open_connections]
        with site.client() as one, site.client() as two:
            settle()
            counts.append(site.server.open_connections)
            two.send(b"x")
            assert b"x" == two.read()
            two.sock.close()
            settle()
            counts.append(site.server.open_connections)
            one.send(b"x")
            assert b"x" == one.read()
        settle()
        return [*counts, site.server.open_connections]

    assert [0, 2, 1, 0] == with_handler(echo, program)


@pytest.mark.parametrize("number", [errno.EMFILE, errno.ENFILE, errno.ENOMEM])
def test_a_lack_of_descriptors_is_survived_with_pauses_and_a_line_a_second(with_handler, monkeypatch, caplog, number):
    def fail(self):
        if len(failures) < 15:
            failures.append(vthreads.now())
            raise OSError(number, os.strerror(number))
        return accept(self)

    def program(site):
        with site.client() as client:
            client.send(b"hello")
            return client.read()

    accept = socket.socket.accept
    failures = []
    monkeypatch.setattr(socket.socket, "accept", fail)
    assert b"hello" == with_handler(echo, program)
    pauses = [after - before for before, after in pairwise(failures)]
    assert 0.01 == pytest.approx(pauses[0])
    assert 1.0 == pytest.approx(pauses[-1])
    assert len(caplog.records) <= failures[-1] + 1
    assert "cannot accept" in caplog.text


def test_a_connection_that_was_aborted_before_its_accept_costs_nothing(with_handler, monkeypatch):
    def fail(self):
        if not failures:
            failures.append(None)
            raise ConnectionAbortedError(errno.ECONNABORTED, "aborted")
        return accept(self)

    def program(site):
        with site.client() as client:
            client.send(b"hello")
            return client.read(), vthreads.now()

    accept = socket.socket.accept
    failures = []
    monkeypatch.setattr(socket.socket, "accept", fail)
    assert (b"hello", 0.0) == with_handler(echo, program)


def test_a_listener_that_cannot_be_used_any_more_ends_the_server(monkeypatch):
    def fail(self):
        raise OSError(errno.EINVAL, "listener")

    monkeypatch.setattr(socket.socket, "accept", fail)
    with pytest.raises(ExceptionGroup) as caught:
        run_with(lambda ready: serve.tcp(echo, "127.0.0.1", 0, ready=ready), lambda site: sleep(3600))
    assert caught.value.subgroup(lambda error: isinstance(error, OSError) and "listener" in str(error))


# --- the stop


def test_after_the_stop_connections_under_way_have_time_to_end(with_handler):
    def handler(sock):
        sock.sendall(b"begin ")
        while not stopping():
            sleep(1)
        sleep(10)
        sock.sendall(b"end")

    def program(site):
        with site.client() as client:
            client.read_until(b"begin ")
            site.server.stop()
            settle()
            with pytest.raises(ConnectionRefusedError):
                socket.create_connection(site.address)
            return client.rest(), vthreads.now()

    data, ended = with_handler(handler, program)
    assert b"end" == data
    assert 10 <= ended <= 12


def test_connections_that_do_not_end_are_cancelled_with_time_for_cleanup(with_handler):
    def handler(sock):
        try:
            sleep(3600)
        except Cancelled:
            began = vthreads.now()
            try:
                sleep(60)
            except Cancelled:
                seen.append((began, vthreads.now()))
                raise

    def program(site):
        with site.client() as client:
            settle()
            site.server.stop()
            return client.rest()

    seen = []
    assert b"" == with_handler(handler, program, drain=30)
    assert [(30.0, 35.0)] == seen


def test_the_backlog_is_served_after_the_stop(with_handler):
    def program(site):
        with site.client() as first:
            first.send(b"x")
            first.read()
            with site.client() as waiting:
                waiting.sock.sendall(b"in the backlog")
                site.server.stop()
                first.sock.close()
                return waiting.read()

    assert b"in the backlog" == with_handler(echo, program, max_connections=1)


def test_the_server_accepts_during_the_delay_of_the_drain(with_handler):
    def program(site):
        site.server.stop()
        sleep(4)
        with site.client() as client:
            client.send(b"hello")
            received = client.read()
        sleep(2)
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(site.address)
        return received

    assert b"hello" == with_handler(echo, program, drain_delay=5)


@pytest.mark.parametrize("at", [None, 0, 1])
def test_a_cancellation_of_the_server_cancels_its_handlers_and_leaves_nothing(at):
    def handler(sock):
        try:
            sleep(3600)
        except Cancelled:
            cancelled.append(sock)
            raise

    def root():
        with move_on_after(5), ThreadGroup() as group:
            started = vthreads.Queue()
            group.spawn(serve.tcp, handler, "127.0.0.1", 0, ready=started.put)
            server = started.get()
            with Client(server.addresses[0]):
                settle()
                if at is not None:
                    sleep(at)
                    server.stop()
                sleep(3600)
        return vthreads.now()

    cancelled = []
    assert 5.0 == vthreads.run(root, clock=vthreads.testing.VirtualClock())
    assert 1 == len(cancelled)
    assert -1 == cancelled[0].fileno()


def test_a_failure_of_ready_ends_the_server():
    def ready(server):
        raise ValueError("ready")

    with pytest.raises(ExceptionGroup):
        vthreads.run(lambda: serve.tcp(echo, "127.0.0.1", 0, ready=ready))


@pytest.mark.real
def test_sigterm_stops_the_server():
    def ready(server):
        group.append(vthreads.spawn(ask, server))

    def ask(server):
        with Client(server.addresses[0]) as client:
            client.send(b"hello")
            first = client.read()
            os.kill(os.getpid(), signal.SIGTERM)
            settle()
            client.send(b"still here")
            return first, client.read()

    group = []
    vthreads.run(lambda: serve.tcp(echo, "127.0.0.1", 0, ready=ready))
    assert (b"hello", b"still here") == group[0].result()
    assert signal.SIG_DFL is signal.getsignal(signal.SIGTERM)


@pytest.mark.real
def test_a_spawned_server_leaves_sigterm_to_the_program():
    def program():
        ready = vthreads.Queue()
        with vthreads.ThreadGroup() as group:
            group.spawn(serve.tcp, echo, "127.0.0.1", 0, ready=ready.put)
            server = ready.get()
            assert signal.SIG_DFL is signal.getsignal(signal.SIGTERM)
            signal.signal(signal.SIGTERM, lambda *_: server.stop())
            try:
                os.kill(os.getpid(), signal.SIGTERM)
                settle()
            finally:
                signal.signal(signal.SIGTERM, signal.SIG_DFL)
        return server.is_stopping

    assert vthreads.run(program)


# --- addresses and TLS


def test_a_unix_socket_replaces_a_file_of_an_earlier_run_and_is_removed(tmp_path):
    path = str(tmp_path / "server.sock")
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(path)

    def program(site):
        with socket.socket(socket.AF_UNIX) as sock:
            sock.connect(path)
            sock.sendall(b"hello")
            return sock.recv(100)

    assert b"hello" == run_with(lambda ready: serve.tcp(echo, bind=[f"unix:{path}"], ready=ready), program)
    assert not os.path.exists(path)


def test_an_inherited_descriptor_stays_open():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        bind = [f"fd://{listener.fileno()}"]
        assert b"x" == run_with(
            lambda ready: serve.tcp(lambda sock: sock.sendall(b"x"), bind=bind, ready=ready), lambda site: site.ask(b"")
        )
        assert listener.getsockname()


@pytest.mark.parametrize(
    "arguments",
    [{}, {"host": "127.0.0.1"}, {"bind": ["localhost"]}, {"bind": ["localhost:99999"]}, {"bind": ["fd://x"]}],
    ids=str,
)
def test_a_wrong_address_is_refused(arguments):
    with pytest.raises(ValueError, match=r"address|give both"):
        serve.tcp(echo, **arguments)


def test_servers_share_a_port_on_request():
    def serve_twice(site):
        host, port = site.address
        with ThreadGroup() as group:
            started = vthreads.Queue()
            other = group.spawn(lambda: serve.tcp(hello, host, port, reuse_port=True, ready=started.put))
            server = started.get()
            assert [site.address] == server.addresses
            assert b"hello" == site.ask()
            server.stop()
        return other.done()

    def hello(sock):
        sock.sendall(b"hello")

    def start(ready):
        serve.tcp(hello, "127.0.0.1", 0, reuse_port=True, ready=ready)

    assert run_with(start, serve_twice)


def test_an_address_in_use_is_named():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        with pytest.raises(OSError, match="in use") as caught:
            serve.tcp(echo, *taken.getsockname())
        assert f"127.0.0.1:{taken.getsockname()[1]}" in caught.value.__notes__[0]


def test_tls(with_handler):
    authority = trustme.CA()
    server_context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("localhost").configure_cert(server_context)
    client_context = ssl.create_default_context()
    authority.configure_trust(client_context)

    def program(site):
        with site.client() as silent, site.client() as plain:
            plain.send(b"GET / HTTP/1.1\r\n\r\n")
            with socket.create_connection(site.address) as sock:
                with client_context.wrap_socket(sock, server_hostname="localhost") as tls:
                    tls.sendall(b"hello")
                    answer = tls.recv(100)
            assert b"" == silent.rest()
            return answer, vthreads.now()

    assert (b"hello", 10.0) == with_handler(echo, program, tls=server_context)


def test_a_name_of_which_one_address_is_taken_leaves_no_socket(monkeypatch):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        used = taken.getsockname()
        found = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", where) for where in (("127.0.0.1", 0), used)]
        monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: found)
        # An unclosed socket is a warning, and a warning is a failure.
        with pytest.raises(OSError, match="in use"):
            serve.tcp(echo, "name", 1)


def test_a_descriptor_that_does_not_listen_is_refused_at_once():
    with socket.socket() as sock, pytest.raises(OSError, match="does not listen"):
        serve.tcp(echo, bind=[f"fd://{sock.fileno()}"])
