"""TLS on virtual threads."""

from __future__ import annotations

import errno
import os
import socket
import ssl

import pytest

import vthreads
from tests.tls import client_context, server_context, tls_pair
from vthreads.testing import wait_all_parked


def tcp_pair():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        client = socket.create_connection(listener.getsockname())
        server, _ = listener.accept()
    for end in client, server:
        end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return client, server


class Peer:
    """The server of a TLS connection that decides which bytes are sent when."""

    def __init__(self, sock):
        self.sock = sock
        self.incoming, self.outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.tls = server_context.wrap_bio(self.incoming, self.outgoing, server_side=True)

    def shake_hands(self):
        while True:
            try:
                return self.tls.do_handshake()
            except ssl.SSLWantReadError:
                self.sock.sendall(self.outgoing.read())
                self.incoming.write(self.sock.recv(65_536))
            finally:
                self.sock.sendall(self.outgoing.read())

    def encrypted(self, message):
        self.tls.write(message)
        return self.outgoing.read()


def tls_client_of_peer(**options):
    """A TLS client over TCP, and its peer."""
    one, two = tcp_pair()
    peer = Peer(two)
    client, _ = vthreads.gather(
        lambda: client_context.wrap_socket(one, server_hostname="localhost", **options), peer.shake_hands
    )
    return client, peer


def test_tls_carries_data_both_ways_and_ends_cleanly(virtual):
    data = os.urandom(500_000)

    def receive(sock):
        received = bytearray()
        while len(received) < len(data):
            received += sock.recv(65_536)
        return bytes(received)

    def root():
        server, client = tls_pair()
        with server, client:
            ends = vthreads.gather(
                lambda: server.sendall(data),
                lambda: receive(server),
                lambda: client.sendall(data),
                lambda: receive(client),
            )
            assert [None, data, None, data] == ends
            plain = vthreads.gather(server.unwrap, client.unwrap)
            for sock in plain:
                sock.close()

    virtual(root)


def test_tls_times_out_in_read_and_handshake(virtual):
    def root():
        server, client = tls_pair()
        with server, client:
            client.settimeout(3)
            start = vthreads.now()
            with pytest.raises(TimeoutError, match="read operation timed out"):
                client.recv(10)
            assert 3.0 == vthreads.now() - start
            server.sendall(b"later")
            assert b"later" == client.recv(10)
            assert 3 == client.gettimeout()
        one, two = socket.socketpair()
        with two:
            one.settimeout(3)
            with pytest.raises(TimeoutError, match="handshake operation timed out"):
                client_context.wrap_socket(one, server_hostname="localhost")

    virtual(root)


def test_a_sendall_over_tls_that_is_cancelled_at_once_has_sent_nothing(virtual):
    def root():
        server, client = tls_pair()
        with server, client:
            with vthreads.CancelScope() as scope, pytest.raises(vthreads.Cancelled) as caught:
                scope.cancel()
                client.sendall(b"data")
            assert 0 == caught.value.bytes_sent
            client.sendall(b"more")
            assert b"more" == server.recv(10)

    virtual(root)


def all_there_is(sock):
    """Read until nothing has come for a second."""
    sock.settimeout(1)
    received = bytearray()
    while True:
        try:
            received += sock.recv(65_536)
        except TimeoutError:
            return bytes(received)


NUMBERED = b"".join(number.to_bytes(4, "big") for number in range(500_000))


@pytest.mark.parametrize("timeout", [None, 1_000])
@pytest.mark.parametrize("kind", [bytes, bytearray])
def test_a_sendall_over_tls_that_is_cancelled_halfway_tells_how_much_the_peer_can_read(virtual, kind, timeout):
    def root():
        server, client = tls_pair()
        with server, client:
            client.settimeout(timeout)
            with vthreads.move_on_after(1), pytest.raises(vthreads.Cancelled) as caught:
                client.sendall(kind(NUMBERED))
            sent = caught.value.bytes_sent
            assert 0 < sent < len(NUMBERED)
            assert NUMBERED[:sent] == all_there_is(server)
            # What fills the rest of the way is not complete.
            with pytest.raises(BrokenPipeError):
                client.sendall(b"more")

    virtual(root)


@pytest.mark.parametrize("kind", [bytes, bytearray])
def test_a_sendall_over_tls_has_one_time_limit_for_all_records(virtual, kind):
    def read_slowly(sock):
        while True:
            vthreads.sleep(1)
            sock.recv(65_536)

    def root():
        server, client = tls_pair()
        with server, client, vthreads.ThreadGroup() as group:
            group.spawn(read_slowly, server)
            client.settimeout(3.5)
            start = vthreads.now()
            with pytest.raises(TimeoutError, match="write operation timed out"):
                client.sendall(kind(NUMBERED))
            assert 3.5 == vthreads.now() - start
            group.cancel()

    virtual(root)


@pytest.mark.parametrize("again", ["send", "sendall"])
@pytest.mark.parametrize("kind", [bytes, bytearray])
@pytest.mark.parametrize("timeout", [0, 3])
@pytest.mark.parametrize("first", ["send", "sendall"])
def test_a_write_over_tls_that_did_not_end_in_time_may_be_repeated(virtual, kind, timeout, first, again):
    def root():
        server, client = tls_pair()
        with server, client:
            data = kind(NUMBERED)
            client.settimeout(timeout)
            for _ in range(2):
                with pytest.raises(TimeoutError if timeout else ssl.SSLWantWriteError):
                    getattr(client, first)(data)
            server.sendall(b"the other way")
            assert b"the other way" == client.recv(100)
            client.settimeout(None)
            received = vthreads.spawn(all_there_is, server)
            assert getattr(client, again)(data) == (None if again == "sendall" else len(data))
            client.sendall(b"more")
            assert NUMBERED + b"more" == received.result()

    virtual(root)


@pytest.mark.parametrize("call", ["send", "write", "sendall"])
def test_after_a_sendall_over_tls_that_timed_out_shorter_data_are_refused(virtual, call):
    def root():
        server, client = tls_pair()
        with server, client:
            client.settimeout(3)
            with pytest.raises(TimeoutError):
                client.sendall(NUMBERED)
            with pytest.raises(ssl.SSLError, match="bad length"):
                getattr(client, call)(b"other")

    virtual(root)


class ClaimsToBeCancelled(Exception):
    @property
    def __class__(self):
        return vthreads.Cancelled

    def __setattr__(self, name, value):
        raise RuntimeError(f"no {name}")


def test_an_odd_interrupt_of_a_sendall_over_tls_is_raised_and_breaks_the_stream(virtual):
    interrupt = ClaimsToBeCancelled()

    def root():
        server, client = tls_pair()
        with server, client, vthreads.ThreadGroup(on_failure="continue") as group:
            future = group.spawn(client.sendall, bytes(10_000_000))
            vthreads.sleep(1)
            future.thread.interrupt(interrupt)
            assert future.exception() is interrupt
            with pytest.raises(BrokenPipeError):
                client.sendall(b"more")

    virtual(root)


def test_tls_that_is_non_blocking_says_what_it_wants(virtual):
    def root():
        server, client = tls_pair()
        with server, client:
            client.setblocking(False)
            with pytest.raises(ssl.SSLWantReadError):
                client.recv(10)

    virtual(root)


def test_tls_on_os_threads_is_shared_with_virtual_threads(virtual, on_os_thread):
    def root():
        server, client = tls_pair()
        with server, client:
            server.sendall(b"one")
            assert b"one" == on_os_thread(lambda: client.recv(10))
            server.sendall(b"two")
            assert b"two" == client.recv(10)

    virtual(root)


def test_a_bad_certificate_is_refused_and_nothing_leaks(virtual):
    def root():
        one, two = socket.socketpair()

        def server():
            with pytest.raises(ssl.SSLError):
                server_context.wrap_socket(one, server_side=True)

        def client():
            with pytest.raises(ssl.SSLCertVerificationError):
                ssl.create_default_context().wrap_socket(two, server_hostname="localhost")

        vthreads.gather(server, client)
        assert (-1, -1) == (one.fileno(), two.fileno())

    virtual(root)


def shut_down(sock):
    sock.shutdown(socket.SHUT_RDWR)


def leave(sock):
    sock.shutdown(socket.SHUT_RDWR)
    sock.close()


def leave_detached(sock):
    sock.shutdown(socket.SHUT_RDWR)
    os.close(sock.detach())


READING = {
    "recv": (lambda sock: sock.recv(10), b""),
    "recv_into": (lambda sock: sock.recv_into(bytearray(10)), 0),
    "read": (lambda sock: sock.read(10), b""),
    "file": (lambda sock: sock.makefile("rb").readline(), b""),
}


@pytest.mark.parametrize("name", READING)
@pytest.mark.parametrize("end", [shut_down, leave, leave_detached])
@pytest.mark.parametrize("timeout", [None, 5])
def test_a_reader_of_tls_that_is_shut_down_gets_the_end_of_data(virtual, name, end, timeout):
    call, nothing = READING[name]

    def read(sock):
        try:
            return call(sock)
        except BrokenPipeError:
            # The end of data without a farewell, by newer releases of OpenSSL (3.6.5), on OS threads too.
            return nothing

    def root():
        server, client = tls_pair()
        with server, client:
            client.settimeout(timeout)
            reader = vthreads.spawn(read, client)
            wait_all_parked()
            end(client)
            return reader.result()

    assert nothing == virtual(root)


@pytest.mark.parametrize("end", [shut_down, leave, leave_detached])
def test_an_end_of_tls_without_its_farewell_is_an_error_if_asked_for(virtual, end, error_of):
    def root():
        server, client = tls_pair()
        with server, client:
            client.suppress_ragged_eofs = False
            reader = vthreads.spawn(error_of, client.recv, 10)
            wait_all_parked()
            end(client)
            return reader.result()

    # By newer releases of OpenSSL (3.6.5) it is a broken pipe, on OS threads too.
    assert isinstance(virtual(root), (ssl.SSLEOFError, BrokenPipeError))


@pytest.mark.parametrize("end", [shut_down, leave])
def test_a_writer_of_tls_that_is_shut_down_fails(virtual, end, error_of):
    def root():
        server, client = tls_pair()
        with server, client:
            writer = vthreads.spawn(error_of, client.sendall, bytes(10_000_000))
            wait_all_parked()
            end(client)
            return writer.result()

    # If the kernel still takes calls, it is EPIPE in CPython 3.13, and the end of the stream in 3.11.
    assert isinstance(virtual(root), ssl.SSLEOFError | BrokenPipeError)


@pytest.mark.parametrize(
    ("call", "end", "expected"),
    [
        ("unwrap", shut_down, ssl.SSL_ERROR_EOF),
        ("unwrap", leave, ssl.SSL_ERROR_EOF),
        ("do_handshake", shut_down, ssl.SSL_ERROR_EOF),
        # At its end the original sets the timeout of the closed socket.
        ("do_handshake", leave, errno.EBADF),
    ],
)
def test_a_handshake_or_farewell_on_tls_that_is_shut_down_fails(virtual, call, end, expected, error_of):
    def root():
        if call == "unwrap":
            server, client = tls_pair()
        else:
            server, plain = socket.socketpair()
            client = client_context.wrap_socket(plain, server_hostname="localhost", do_handshake_on_connect=False)
        with server, client:
            waiting = vthreads.spawn(error_of, getattr(client, call))
            wait_all_parked()
            end(client)
            return waiting.result()

    assert expected == virtual(root).errno


def test_reads_of_tls_over_tcp_find_messages_that_came_together_before_or_later(virtual):
    def root():
        client, peer = tls_client_of_peer()
        with client, peer.sock:
            peer.sock.sendall(peer.encrypted(b"one") + peer.encrypted(b"two"))
            assert [b"one", b"two"] == [client.recv(10), client.recv(10)]
            peer.sock.sendall(peer.encrypted(b"longer than a read"))
            assert [b"longer than", b" a read"] == [client.recv(11), client.recv(11)]
            with vthreads.ThreadGroup() as group:
                waiting = group.spawn(client.recv, 10)
                vthreads.checkpoint()
                peer.sock.sendall(peer.encrypted(b"later"))
            assert b"later" == waiting.result()
            buffer = bytearray(10)
            peer.sock.sendall(peer.encrypted(b"into"))
            assert (4, b"into") == (client.recv_into(buffer), buffer[:4])

    virtual(root)


def test_a_read_of_tls_over_tcp_waits_for_the_rest_of_a_record(virtual):
    def root():
        client, peer = tls_client_of_peer()
        with client, peer.sock, vthreads.ThreadGroup() as group:
            for cut in 3, 5, 20:
                record = peer.encrypted(b"in two pieces")
                waiting = group.spawn(client.recv, 100)
                peer.sock.sendall(record[:cut])
                vthreads.sleep(1)
                assert not waiting.done()
                peer.sock.sendall(record[cut:])
                assert b"in two pieces" == waiting.result()

    virtual(root)


def test_the_end_of_a_tls_stream_over_tcp_is_found_after_its_last_message(virtual):
    def root():
        client, peer = tls_client_of_peer()
        with client, peer.sock:
            peer.sock.sendall(peer.encrypted(b"last"))
            assert b"last" == client.recv(10)
            with pytest.raises(ssl.SSLWantReadError):
                peer.tls.unwrap()
            peer.sock.sendall(peer.outgoing.read())
            assert [b"", b"", 0] == [client.recv(10), client.recv(10), client.recv_into(bytearray(10))]

    virtual(root)


@pytest.mark.parametrize("suppressed", [True, False])
def test_a_tls_stream_over_tcp_that_is_cut_off(virtual, suppressed):
    def root():
        client, peer = tls_client_of_peer(suppress_ragged_eofs=suppressed)
        with client, peer.sock:
            peer.sock.sendall(peer.encrypted(b"last"))
            assert b"last" == client.recv(10)
            peer.sock.close()
            if suppressed:
                assert [b"", 0] == [client.recv(10), client.recv_into(bytearray(10))]
            else:
                with pytest.raises(ssl.SSLEOFError):
                    client.recv(10)

    virtual(root)


def test_text_is_refused_by_tls_and_leaves_the_stream_as_it_was(virtual):
    def root():
        server, client = tls_pair()
        with server, client:
            for call in client.send, client.write, client.sendall:
                with pytest.raises(TypeError):
                    call("text")
            with pytest.raises(ValueError, match="non-zero flags"):
                client.send(b"data", socket.MSG_OOB)
            client.sendall(b"data")
            assert b"data" == server.recv(10)

    virtual(root)


def test_a_send_of_a_subclass_or_of_a_patch_is_called_by_sendall(virtual, monkeypatch):
    def root():
        server, client = tls_pair()
        with server, client:
            client.sendall(b"one")
            send, sent = ssl.SSLSocket.send, []

            def recorded(sock, data, flags=0):
                sent.append(bytes(data))
                return send(sock, data, flags)

            monkeypatch.setattr(ssl.SSLSocket, "send", recorded)
            client.sendall(b"two")
            assert ([b"two"], b"onetwo") == (sent, server.recv(3) + server.recv(3))

    virtual(root)
