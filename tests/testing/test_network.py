"""Sockets in memory, compared with real ones, and the network between them."""

import contextlib
import errno
import http.client
import http.server
import random
import socket
import threading

import pytest

import vthreads
from vthreads import Cancelled, CancelScope, ThreadGroup, fail_after, move_on_after, now, sleep
from vthreads.testing import (
    MemorySocket,
    Network,
    VirtualClock,
    check_nothing_leaked,
    inject_cancel,
    memory_socketpair,
    wait_all_parked,
)


def on_virtual_time(fn, *args):
    return vthreads.run(fn, *args, clock=VirtualClock(patch_time=True))


PAIRS = {"real": socket.socketpair, "memory": memory_socketpair, "slow": lambda: memory_socketpair(latency=0.01)}


@pytest.fixture(params=PAIRS.values(), ids=PAIRS)
def pair(request):
    """Two connected sockets, real ones and ours: the tests that take it say that they are alike."""
    return request.param


def with_pair(pair, fn):
    def root():
        here, there = pair()
        with here, there, fail_after(60):
            return fn(here, there)

    return on_virtual_time(root)


def settle():
    """Let everything arrive."""
    sleep(1)


class TestAsRealSockets:
    def test_bytes_arrive_in_order(self, pair):
        def talk(here, there):
            here.sendall(b"one ")
            assert 3 == here.send(b"two")
            here.sendall(bytearray(b" three"))
            settle()
            assert b"one " == there.recv(4)
            buffer = bytearray(3)
            assert 3 == there.recv_into(buffer)
            return bytes(buffer), there.recv(100)

        assert (b"two", b" three") == with_pair(pair, talk)

    def test_end_of_stream(self, pair):
        def talk(here, there):
            here.sendall(b"last")
            here.shutdown(socket.SHUT_WR)
            there.sendall(b"answer")
            settle()
            with pytest.raises(BrokenPipeError):
                here.send(b"more")
            return there.recv(100), there.recv(100), there.recv(100), here.recv(100)

        assert (b"last", b"", b"", b"answer") == with_pair(pair, talk)

    def test_the_other_end_closes(self, pair):
        def talk(here, there):
            there.close()
            settle()
            with pytest.raises(BrokenPipeError):
                here.sendall(b"x")
            return here.recv(1)

        assert b"" == with_pair(pair, talk)

    def test_a_closed_socket_is_refused(self, pair):
        def talk(here, there):
            here.close()
            calls = [
                lambda: here.recv(1),
                lambda: here.send(b"x"),
                lambda: here.sendall(b"x"),
                lambda: here.shutdown(2),
            ]
            for call in calls:
                with pytest.raises(OSError, match=r"\[Errno") as caught:
                    call()
                assert errno.EBADF == caught.value.errno
            return here.fileno()

        assert -1 == with_pair(pair, talk)

    def test_closing_ends_the_calls_that_are_parked_in_it(self, pair):
        def receive(sock):
            with pytest.raises(OSError, match=r"\[Errno") as caught:
                sock.recv(1)
            return caught.value.errno

        def talk(here, there):
            with ThreadGroup() as g:
                parked = g.spawn(receive, here)
                here.close()
            return parked.result()

        assert errno.EBADF == with_pair(pair, talk)

    def test_timeouts(self, pair):
        def talk(here, there):
            here.settimeout(5)
            with pytest.raises(TimeoutError):
                here.recv(1)
            here.settimeout(0)
            assert not here.getblocking()
            with pytest.raises(BlockingIOError):
                here.recv(1)
            with pytest.raises(ValueError, match="out of range"):
                here.settimeout(-1)
            here.setblocking(True)
            return here.gettimeout(), here.timeout, here.getblocking()

        assert (None, None, True) == with_pair(pair, talk)

    def test_a_full_connection_holds_the_sender_up(self, pair):
        def talk(here, there):
            here.settimeout(1)
            with pytest.raises(TimeoutError):
                here.sendall(bytes(10_000_000))
            here.setblocking(False)
            with pytest.raises(BlockingIOError):
                here.send(b"x" * 1_000_000)
            # A reader makes room.
            here.setblocking(True)
            there.settimeout(1)
            with ThreadGroup() as g:
                read = g.spawn(lambda: sum(iter(lambda: len(there.recv(1_000_000)), 0)))
                here.sendall(b"last")
                here.shutdown(socket.SHUT_WR)
            return read.result() > 4

        assert with_pair(pair, talk)

    def test_a_cancelled_sendall_tells_how_much_it_sent(self, pair):
        def talk(here, there):
            with CancelScope() as scope, pytest.raises(Cancelled) as caught, ThreadGroup() as g:
                g.spawn(lambda: sleep(1) or scope.cancel())
                here.sendall(bytes(10_000_000))
            here.close()
            received = 0
            while chunk := there.recv(1_000_000):
                received += len(chunk)
            return received == caught.value.bytes_sent, 0 < received < 10_000_000

        assert (True, True) == with_pair(pair, talk)

    @pytest.mark.parametrize("timeout", [None, 60])
    @pytest.mark.parametrize("data", [b"", b"data"])
    def test_a_sendall_that_is_cancelled_at_once_has_sent_nothing(self, pair, timeout, data):
        def talk(here, there):
            here.settimeout(timeout)
            with CancelScope() as scope, pytest.raises(Cancelled) as caught:
                scope.cancel()
                here.sendall(data)
            return caught.value.bytes_sent

        assert 0 == with_pair(pair, talk)

    def test_a_cancelled_recv_has_taken_nothing(self, pair):
        def talk(here, there):
            with move_on_after(1) as scope:
                here.recv(100)
            assert scope.cancelled_caught
            there.sendall(b"data")
            settle()
            with CancelScope() as scope:
                scope.cancel()
                here.recv(100)
            assert scope.cancelled_caught
            return here.recv(100)

        assert b"data" == with_pair(pair, talk)

    def test_flags(self, pair):
        def talk(here, there):
            there.sendall(b"abc")
            settle()
            assert b"ab" == here.recv(2, socket.MSG_PEEK)
            assert b"abc" == here.recv(10, socket.MSG_DONTWAIT)
            with pytest.raises(BlockingIOError):
                here.recv(10, socket.MSG_DONTWAIT)
            with ThreadGroup() as g:
                whole = g.spawn(here.recv, 6, socket.MSG_WAITALL)
                there.sendall(b"123")
                settle()
                there.sendall(b"456")
            return whole.result()

        assert b"123456" == with_pair(pair, talk)

    def test_nothing_of_nothing(self, pair):
        def talk(here, there):
            assert 0 == here.send(b"")
            here.sendall(b"")
            there.sendall(b"x")
            settle()
            return here.recv(0), here.recv(1)

        assert (b"", b"x") == with_pair(pair, talk)

    def test_files_made_of_it(self, pair):
        def talk(here, there):
            with here.makefile("rwb") as file, there.makefile("r", encoding="utf-8") as lines:
                here.close()
                file.write("ä\nb\n".encode())
                file.flush()
                first = lines.readline()
                there.sendall(b"back\n")
                answer = file.readline()
            return first, answer

        assert ("ä\n", b"back\n") == with_pair(pair, talk)

    def test_other_ways_to_send_and_receive(self, pair):
        def talk(here, there):
            assert 4 == here.sendmsg([b"ab", b"cd"])
            settle()
            buffer = bytearray(2)
            assert b"a" == there.recvfrom(1)[0]
            assert 2 == there.recvfrom_into(buffer)[0]
            assert b"d" == there.recvmsg(10)[0]
            here.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            return (
                bytes(buffer),
                here.getsockopt(socket.SOL_SOCKET, socket.SO_TYPE),
                here.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE),
            )

        assert (b"bc", socket.SOCK_STREAM, 1) == with_pair(pair, talk)

    def test_sendfile(self, pair, tmp_path):
        (tmp_path / "file").write_bytes(b"0123456789")

        def talk(here, there):
            with (tmp_path / "file").open("rb") as file:
                assert 8 == here.sendfile(file, 2)
            settle()
            return there.recv(100)

        assert b"23456789" == with_pair(pair, talk)

    def test_several_readers_share_what_comes(self, pair):
        def talk(here, there):
            with ThreadGroup() as g:
                readers = [g.spawn(here.recv, 1) for _ in range(3)]
                settle()
                there.sendall(b"abc")
            return sorted(reader.result() for reader in readers)

        assert [b"a", b"b", b"c"] == with_pair(pair, talk)


def test_it_is_a_socket_without_a_descriptor():
    here, there = memory_socketpair()
    with here, there:
        assert isinstance(here, socket.socket)
        assert (-1, socket.AF_INET, socket.SOCK_STREAM) == (here.fileno(), here.family, here.type)
        assert here.getpeername() == there.getsockname()
        for call in (here.detach, here.dup, lambda: here.connect(("b", 1)), here.accept, lambda: here.recv(1, 1 << 30)):
            with pytest.raises(OSError, match="in memory"):
                call()
    assert "[closed]" in repr(here)


def test_an_unclosed_one_warns_and_closes():
    here, there = memory_socketpair()
    with pytest.warns(ResourceWarning, match="unclosed <MemorySocket"):
        del here
    with there:
        assert b"" == there.recv(1)


def test_latency_is_virtual_time():
    def root():
        here, there = memory_socketpair(latency=1800)
        with here, there:
            here.sendall(b"ping")
            assert b"ping" == there.recv(4)
            first = now()
            here.close()
            assert b"" == there.recv(1)
            return first, now()

    assert (1800, 3600) == on_virtual_time(root)


def test_latency_may_vary_and_nothing_overtakes():
    draw = random.Random(1)

    def root():
        here, there = memory_socketpair(latency=lambda: draw.uniform(0, 10))
        with here, there:
            for number in range(100):
                here.sendall(bytes([number]))
            here.close()
            return b"".join(iter(lambda: there.recv(7), b""))

    assert bytes(range(100)) == on_virtual_time(root)


def test_a_sender_that_nobody_reads_learns_of_it_after_the_latency():
    def root():
        here, there = memory_socketpair(latency=5, capacity=10)
        with here, there:
            there.close()
            assert 10 == here.send(bytes(100))
            with pytest.raises(BrokenPipeError):
                here.send(b"x")
            return now()

    assert 5 == on_virtual_time(root)


def test_os_threads_may_use_it():
    here, there = memory_socketpair(latency=0.001, capacity=10)
    with here, there:
        os_thread = threading.Thread(target=here.sendall, args=(bytes(range(100)),))
        os_thread.start()
        with there.makefile("rb") as file:
            received = file.read(100)
        os_thread.join()
        there.settimeout(0.01)
        with pytest.raises(TimeoutError):
            there.recv(1)
    assert bytes(range(100)) == received


def test_between_a_virtual_thread_and_an_os_thread():
    def root():
        here, there = memory_socketpair()
        with here, there:
            os_thread = threading.Thread(target=lambda: there.sendall(there.recv(10)[::-1]))
            os_thread.start()
            here.sendall(b"abc")
            received = here.recv(10)
            os_thread.join()
            return received

    assert b"cba" == vthreads.run(root)


# --- the network


def test_a_partition_keeps_what_is_sent_until_it_heals():
    def root():
        network = Network(latency=1)
        here, there = network.socketpair("client", "server")
        with here, there:
            here.sendall(b"before ")
            sleep(2)
            here.sendall(b"on its way ")
            network.partition()
            here.sendall(b"during")
            there.settimeout(60)
            assert b"before " == there.recv(100)
            with pytest.raises(TimeoutError):
                there.recv(100)
            network.heal()
            healed = now()
            first = there.recv(100)
            return first, now() - healed

    assert (b"on its way during", 1) == on_virtual_time(root)


def test_a_partition_concerns_the_hosts_that_are_named():
    def root():
        network = Network()
        cut, whole = network.socketpair("a", "b"), network.socketpair("b", "c")
        network.partition("a")
        for here, there in (cut, whole):
            here.sendall(b"x")
            there.settimeout(1)
        assert b"x" == whole[1].recv(1)
        with pytest.raises(TimeoutError):
            cut[1].recv(1)
        network.heal()
        assert b"x" == cut[1].recv(1)
        for sock in (*cut, *whole):
            sock.close()

    on_virtual_time(root)


def test_healing_does_not_delay_what_was_not_cut():
    def root():
        network = Network(latency=2)
        here, there = network.socketpair("a", "b")
        with here, there:
            here.sendall(b"x")
            network.partition("c")
            sleep(1)
            network.heal()
            there.recv(1)
            return now()

    assert 2 == on_virtual_time(root)


def test_a_sender_can_go_on_in_a_partition_until_the_capacity_is_reached():
    def root():
        network = Network(capacity=1000)
        here, there = network.socketpair()
        with here, there:
            network.partition()
            here.settimeout(1)
            assert 1000 == here.send(bytes(5000))
            with pytest.raises(TimeoutError):
                here.send(b"x")

    on_virtual_time(root)


def test_the_end_of_a_stream_does_not_pass_a_partition():
    def root():
        network = Network()
        here, there = network.socketpair()
        with here, there:
            network.partition()
            here.close()
            with move_on_after(60) as scope:
                there.recv(1)
            assert scope.cancelled_caught
            network.heal()
            return there.recv(1)

    assert b"" == on_virtual_time(root)


def test_losing_connections_ends_every_call_on_them():
    def fails(call, *args):
        with pytest.raises(ConnectionResetError):
            call(*args)

    def root():
        network = Network(latency=1)
        here, there = network.socketpair("a", "b")
        spared = network.socketpair("c", "d")
        with here, there, spared[0], spared[1]:
            with ThreadGroup() as g:
                g.spawn(fails, here.recv, 1)
                g.spawn(fails, there.sendall, bytes(10_000_000))
                wait_all_parked()
                network.drop("a")
            fails(here.send, b"x")
            fails(there.recv, 1)
            spared[0].sendall(b"fine")
            assert b"fine" == spared[1].recv(10)
            network.drop()
            fails(spared[0].recv, 1)

    on_virtual_time(root)


def test_connecting_takes_the_way_there_and_back():
    def root():
        network = Network(latency=3)
        with network.listen(("server", 80)) as listener, ThreadGroup() as g:
            accepted = g.spawn(listener.accept)
            with network.connect(("server", 80), timeout=60) as client:
                connected = now(), client.gettimeout()
                server, address = accepted.result()
                assert address == client.getsockname()
                with server:
                    server.sendall(b"welcome")
                    return connected, client.recv(100), now()

    assert ((6, 60), b"welcome", 9) == on_virtual_time(root)


def test_connecting_fails_as_it_should():
    def root():
        network = Network(latency=1)
        with pytest.raises(ConnectionRefusedError):
            network.connect(("server", 80))
        with network.listen(("server", 80), backlog=1) as listener:
            with pytest.raises(TimeoutError):
                network.connect(("server", 80), timeout=1.5)
            network.partition("server")
            with pytest.raises(TimeoutError):
                network.connect(("server", 80), timeout=5)
            assert 2 + 1.5 + 5 == now()
            network.heal()
            first = network.connect(("server", 80))
            with pytest.raises(ConnectionRefusedError):
                network.connect(("server", 80))
            with pytest.raises(OSError, match=r"\[Errno") as caught:
                network.listen(("server", 80))
            assert errno.EADDRINUSE == caught.value.errno
            with listener.accept()[0], first:
                listener.settimeout(1)
                with pytest.raises(TimeoutError):
                    listener.accept()
                listener.settimeout(0)
                with pytest.raises(BlockingIOError):
                    listener.accept()
        with pytest.raises(OSError, match="Bad file"):
            listener.accept()
        with network.listen(("server", 80)):
            pass

    on_virtual_time(root)


def test_who_was_not_accepted_is_told_when_the_listener_closes():
    def root():
        network = Network()
        with network.listen(("server", 80)):
            client = network.connect(("server", 80))
        with client:
            return client.recv(1)

    assert b"" == on_virtual_time(root)


def test_connecting_waits_for_the_end_of_a_partition():
    def root():
        network = Network(latency=1)
        with network.listen(("server", 0)) as listener, ThreadGroup() as g:
            network.partition()
            client = g.spawn(network.connect, listener.getsockname())
            sleep(10)
            network.heal()
            with client.result(), listener.accept()[0]:
                return now()

    assert 12 == on_virtual_time(root)


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))[::-1]
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args):
        pass


def serve(listener):
    def handle(sock, address):
        with sock, contextlib.suppress(ConnectionError):
            Handler(sock, address, None)

    with ThreadGroup() as g:
        while True:
            g.spawn(handle, *listener.accept())


def test_the_http_modules_of_the_standard_library_talk_over_it():
    def root():
        network, body = Network(latency=0.5), bytes(range(256)) * 1000
        with network.listen(("server", 80)) as listener, ThreadGroup() as g:
            g.spawn(serve, listener)
            client = http.client.HTTPConnection("server", timeout=60)
            client._create_connection = network.connect
            answers = []
            for _ in range(2):
                client.request("POST", "/", body)
                answers.append(client.getresponse().read() == body[::-1])
            client.close()
            g.cancel()
        return answers

    with check_nothing_leaked():
        assert [True, True] == on_virtual_time(root)


def test_a_client_meets_a_server_that_is_lost():
    def root():
        network = Network(latency=0.5)
        with network.listen(("server", 80)) as listener, ThreadGroup() as g:
            g.spawn(serve, listener)
            client = http.client.HTTPConnection("server", timeout=10)
            client._create_connection = network.connect
            client.request("POST", "/", b"x")
            network.partition("server")
            with pytest.raises(TimeoutError):
                client.getresponse()
            network.drop()
            network.heal()
            with pytest.raises(ConnectionResetError):
                client.sock.sendall(b"x")
            client.close()
            g.cancel()

    on_virtual_time(root)


@pytest.mark.thorough
def test_a_conversation_stands_a_cancellation_anywhere():
    def converse():
        network = Network(latency=0.1, capacity=10)
        with network.listen(("server", 1)) as listener, ThreadGroup() as g:

            @g.spawn
            def serve():
                sock, _ = listener.accept()
                with sock, sock.makefile("rwb") as file:
                    for line in file:
                        file.write(line.upper())
                        file.flush()

            with network.connect(("server", 1)) as sock, sock.makefile("rwb") as file:
                file.write(b"twenty characters..\n")
                file.flush()
                assert b"TWENTY" == file.read(6)

    # If the peer is cancelled first, the flush of the file raises ConnectionError.
    assert inject_cancel(converse, expected=ConnectionError)


def test_arguments_out_of_range_are_refused():
    with pytest.raises(ValueError, match="must be >= 0 seconds"):
        Network(-1)
    with pytest.raises(ValueError, match="is too small; give 1 or more"):
        Network(capacity=0)


def test_its_repr_tells_the_way():
    here, there = Network().socketpair("client", "server")
    with here, there:
        assert isinstance(here, MemorySocket)
        assert "('client', 49152) to ('server', 49153)" in repr(here)
