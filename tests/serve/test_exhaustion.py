"""A server process that has no descriptors left, or 10,000 connections: others are served, then all of it is over."""

from __future__ import annotations

import contextlib
import resource
import signal
import socket
import sys

import pytest

from .test_command import SECONDS, fetch, serving

pytestmark = pytest.mark.real

GET = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
# Executes the command in its arguments with a limit of descriptors.
LIMITED = """
import os, resource, sys
resource.setrlimit(resource.RLIMIT_NOFILE, (int(sys.argv[1]), resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
os.execv(sys.argv[2], sys.argv[2:])
"""


def limited(count):
    return [sys.executable, "-c", LIMITED, str(count)]


def connect(port):
    return socket.create_connection(("127.0.0.1", port), timeout=SECONDS)


def ask(sock):
    sock.sendall(GET)
    return answer_of(sock)


def answer_of(sock):
    data = b""
    while not data.endswith(b"hello"):
        piece = sock.recv(1000)
        assert piece, data
        data += piece
    return data


@pytest.mark.parametrize("stopped", [False, True], ids=["survived", "stopped meanwhile"])
def test_without_descriptors_open_connections_are_served_and_later_ones_afterwards(tmp_path, stopped):
    # EMFILE, accept(2). The back-off of the acceptor must not stop anything else.
    command = "site_of_test:app", "--bind", "127.0.0.1:0", "--access-log", "off"
    with serving(tmp_path, *command, starter=limited(64)) as (process, port), contextlib.ExitStack() as stack:
        kept = stack.enter_context(connect(port))
        ask(kept)
        others = [stack.enter_context(connect(port)) for _ in range(100)]
        while "cannot accept a connection" not in process.stderr.readline():
            pass
        for _ in range(20):
            ask(kept)
        for sock in others[50:]:
            sock.sendall(GET)
        if stopped:
            process.send_signal(signal.SIGTERM)
            while b"Connection: close" not in ask(kept):
                pass
        for sock in others[:50]:
            sock.close()
        # All that have sent a request are served, also those that waited in the backlog.
        for sock in others[50:]:
            answer_of(sock)
        if not stopped:
            assert b"hello" == fetch(port)
            process.send_signal(signal.SIGTERM)
        assert 0 == process.wait(SECONDS)


@pytest.fixture
def descriptors():
    """Give this process `count` descriptors; the test is skipped where the system does not allow that."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)

    def descriptors(count):
        if hard != resource.RLIM_INFINITY and hard < count:
            pytest.skip(f"needs {count} descriptors, the hard limit is {hard}")
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, count), hard))

    yield descriptors
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.thorough
def test_10000_idle_connections_and_requests_beside_them(tmp_path, descriptors):
    idle, count = [], 10_000
    descriptors(count + 500)
    command = "site_of_test:app", "--bind", "127.0.0.1:0", "--connections", "0", "--access-log", "off"
    command = *command, "--idle-seconds", "600"
    with serving(tmp_path, *command, starter=limited(count + 500)) as (process, port), contextlib.ExitStack() as stack:
        for number in range(count):
            idle.append(stack.enter_context(connect(port)))
            if number % 500 == 0:
                assert b"hello" == fetch(port)
        for sock in idle[::100]:
            ask(sock)
        process.send_signal(signal.SIGTERM)
        # Idle connections end by themselves at the stop.
        assert {b""} == {sock.recv(1) for sock in idle}
        assert 0 == process.wait(SECONDS)
