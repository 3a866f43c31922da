"""paramiko: its transports are OS threads, which unpark waiting virtual threads."""

import socket
import threading
from contextlib import contextmanager

import pytest

paramiko = pytest.importorskip("paramiko", reason="paramiko is not installed")

from vthreads import ThreadGroup  # noqa: E402  a skipped module needs none of it

pytestmark = pytest.mark.real

COUNT = 8
KEY = paramiko.RSAKey.generate(2_048)


class Answering(paramiko.ServerInterface):
    """Accepts every user, and answers a command with the command; `wait` gets no answer."""

    def __init__(self, asked):
        self._asked = asked

    def check_auth_password(self, username, password):
        return paramiko.AUTH_SUCCESSFUL

    def check_channel_request(self, kind, chanid):
        return paramiko.OPEN_SUCCEEDED

    def check_channel_exec_request(self, channel, command):
        if command != b"wait":
            threading.Thread(target=self._answer, args=(channel, command)).start()
        self._asked.release()
        return True

    def _answer(self, channel, command):
        # The client sends this after its command was accepted; a channel must not be closed before that.
        channel.recv(2)
        channel.sendall(command)
        channel.send_exit_status(0)
        channel.close()


@contextmanager
def ssh_server():
    """Its port, and what is released with each command."""
    asked = threading.Semaphore(0)
    transports = []

    def serve():
        while True:
            connection, _ = listener.accept()
            if over.is_set():
                connection.close()
                return
            transport = paramiko.Transport(connection)
            transport.add_server_key(KEY)
            transports.append(transport)
            transport.start_server(event=threading.Event(), server=Answering(asked))

    over = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        os_thread = threading.Thread(target=serve)
        os_thread.start()
        try:
            yield listener.getsockname()[1], asked
        finally:
            over.set()
            socket.create_connection(listener.getsockname()).close()
            os_thread.join()
            for transport in transports:
                transport.close()
                transport.join()


def answer_to(port, command):
    with paramiko.SSHClient() as client:
        client.set_missing_host_key_policy(paramiko.AutoAddPolicy())
        client.connect("127.0.0.1", port, "user", "secret", allow_agent=False, look_for_keys=False)
        to_it, from_it, _ = client.exec_command(command)
        to_it.write("go")
        to_it.flush()
        return from_it.read()


def test_many_commands_wait_at_once(run):
    def root():
        with ssh_server() as (port, _), ThreadGroup() as group:
            answers = [group.spawn(answer_to, port, f"command {number}") for number in range(COUNT)]
        return [answer.result() for answer in answers]

    assert [b"command %d" % number for number in range(COUNT)] == run(root)


def test_a_command_that_is_not_answered_is_cancelled_and_its_connection_closed(run):
    def root():
        with ssh_server() as (port, asked), ThreadGroup() as group:
            waiting = [group.spawn(answer_to, port, "wait") for _ in range(COUNT)]
            for _ in waiting:
                asked.acquire()
            group.cancel()
        return [future.cancelled() for future in waiting]

    assert [True] * COUNT == run(root)
