"""WebSocket on the server, with the sans-I/O client of websockets as the other side, and flask-sock."""

from __future__ import annotations

import socket
import threading
from array import array
from functools import partial
from weakref import WeakSet

import flask
import flask_sock
import pytest
from websockets.client import ClientProtocol
from websockets.exceptions import InvalidStatus
from websockets.frames import Frame, Opcode
from websockets.uri import parse_uri
from websockets.utils import apply_mask

import vthreads
from vthreads import serve

from .conftest import Client, run_with, settle


class WebClient(Client):
    """A client that has shaken hands."""

    def __init__(self, address, path="/", **options):
        super().__init__(address)
        self.protocol = ClientProtocol(parse_uri(f"ws://a{path}"), **options)
        request = self.protocol.connect()
        self.protocol.send_request(request)
        self.flush()
        while not self.protocol.events:
            self.more()
        self.response, *self.frames = self.protocol.events_received()
        if self.protocol.handshake_exc is not None:
            self.sock.close()
            raise self.protocol.handshake_exc

    def flush(self):
        for data in self.protocol.data_to_send():
            if data:
                self.sock.sendall(data)
            else:
                self.sock.shutdown(1)

    def more(self):
        try:
            data = self.sock.recv(65536)
        except ConnectionResetError:
            data = b""
        if data:
            self.protocol.receive_data(data)
        else:
            self.protocol.receive_eof()
        return data

    def say(self, data):
        if isinstance(data, str):
            self.protocol.send_text(data.encode())
        else:
            self.protocol.send_binary(data)
        self.flush()

    def raw(self, opcode, data, fin=True):
        self.sock.sendall(Frame(opcode, data, fin).serialize(mask=True))

    def frame(self):
        """The next frame; None at the end."""
        while not self.frames:
            if not self.more():
                return None
            self.frames += self.protocol.events_received()
            self.flush()
        return self.frames.pop(0)

    def hear(self):
        frame = self.frame()
        return frame and frame.data

    def end(self):
        """Read to the end: the close code of the server."""
        while self.frame() is not None:
            pass
        return self.protocol.close_code


def handler_app(handler, **options):
    """An application whose WebSockets are handled by `handler`."""

    def app(environ, start_response):
        handler(serve.websocket(environ, **options))
        start_response("200 OK", [("Content-Type", "text/plain")])
        return [b"dropped"]

    return app


def echo(socket):
    for message in socket:
        socket.send(message)


def test_echo_of_text_and_bytes(with_app):
    def program(site):
        with WebClient(site.address) as client:
            assert client.response.status_code == 101
            client.say("ä")
            assert "ä".encode() == client.hear()
            client.say(b"\0\xff")
            assert client.hear() == b"\0\xff"
            client.protocol.send_close(1000)
            client.flush()
            return client.end()

    assert with_app(handler_app(echo), program) == 1000


def test_many_messages_in_one_piece(with_app):
    def program(site):
        with WebClient(site.address) as client:
            for number in range(100):
                client.protocol.send_text(b"%d" % number)
            client.flush()
            return [client.hear() for _ in range(100)]

    assert with_app(handler_app(echo), program) == [b"%d" % number for number in range(100)]


def test_fragments_make_one_message_and_pings_between_them_are_answered(with_app):
    def program(site):
        with WebClient(site.address) as client:
            client.raw(Opcode.TEXT, b"\xc3", fin=False)
            client.raw(Opcode.PING, b"?")
            client.raw(Opcode.CONT, b"\xa4")
            pong, message = client.frame(), client.frame()
            return (pong.opcode, pong.data), message.data

    assert with_app(handler_app(echo), program) == ((Opcode.PONG, b"?"), "ä".encode())


def test_the_handler_returns_the_socket_closes_with_1000(with_app):
    def program(site):
        with WebClient(site.address) as client:
            assert client.hear() == b"bye"
            return client.end()

    assert with_app(handler_app(lambda socket: socket.send("bye")), program) == 1000


def test_a_failure_of_the_handler_closes_with_1011(with_app, caplog):
    def program(site):
        with WebClient(site.address) as client:
            return client.end()

    def fail(socket):
        raise ValueError("a fault")

    assert with_app(handler_app(fail), program) == 1011
    assert "the application failed" in caplog.text


@pytest.mark.parametrize(
    ("opcode", "data", "code"),
    [
        (Opcode.TEXT, b"\xff", 1007),
        (Opcode.BINARY, b"x" * 1001, 1009),
        (3, b"", 1002),
        (Opcode.CONT, b"", 1002),
        (Opcode.CLOSE, b"\0", 1002),
    ],
    ids=["not text", "too large", "unknown opcode", "continuation of nothing", "half a close code"],
)
def test_faults_of_the_client_have_their_codes(with_app, opcode, data, code):
    def program(site):
        with WebClient(site.address) as client:
            client.raw(opcode, data) if opcode != 3 else client.sock.sendall(b"\x83\x80\0\0\0\0")
            return client.end()

    assert with_app(handler_app(echo, max_bytes=1000), program) == code


# RFC 6455, 7.4, and the registry of IANA. The others are reserved, or must not appear in a close frame.
SENDABLE = [1000, 1001, 1002, 1003, *range(1007, 1015), 3000, 3999, 4000, 4999]
NOT_SENDABLE = [0, 999, 1004, 1005, 1006, 1015, 1016, 2999, 5000, 65535]


@pytest.mark.sampled(3)
@pytest.mark.parametrize("code", [*SENDABLE, *NOT_SENDABLE])
def test_the_handler_gets_the_close_code_of_the_client_and_a_wrong_one_is_a_fault(with_app, code):
    def handler(socket):
        with pytest.raises(serve.WebSocketClosed) as caught:
            socket.receive()
        found.append((caught.value.code, caught.value.reason))
        # The handler need not handle it.
        raise caught.value

    def program(site):
        with WebClient(site.address) as client:
            client.raw(Opcode.CLOSE, code.to_bytes(2) + "wé".encode())
            return client.end()

    found = []
    answer = with_app(handler_app(handler), program)
    if code in SENDABLE:
        assert (code, [(code, "wé")]) == (answer, found)
    else:
        assert (1002, 1002) == (answer, found[0][0])


def test_the_codes_of_a_close_frame_without_a_code_and_of_none_at_all(with_app):
    def handler(socket):
        with pytest.raises(serve.WebSocketClosed) as caught:
            socket.receive()
        found.append((caught.value.code, caught.value.reason))

    def program(site):
        with WebClient(site.address) as client:
            client.raw(Opcode.CLOSE, b"")
            # The answer has no code either.
            assert 1005 == client.end()
        with WebClient(site.address) as client:
            client.sock.shutdown(1)
            client.rest()

    found = []
    with_app(handler_app(handler), program)
    assert [(1005, ""), (1006, "")] == found


@pytest.mark.sampled(3)
@pytest.mark.parametrize("code", [*SENDABLE, *NOT_SENDABLE])
def test_the_handler_can_close_with_the_codes_that_may_be_sent(with_app, code):
    def handler(socket):
        if code in NOT_SENDABLE:
            with pytest.raises(ValueError, match=rf"close\(code={code}.*4999"):
                socket.close(code)
            # It is still open.
            socket.send("open")
        else:
            socket.close(code, "é" * 61)
            with pytest.raises(serve.WebSocketClosed) as caught:
                socket.receive()
            assert code == caught.value.code

    def program(site):
        with WebClient(site.address) as client:
            if code in NOT_SENDABLE:
                assert b"open" == client.hear()
            return client.end()

    assert with_app(handler_app(handler), program) == (1000 if code in NOT_SENDABLE else code)


def test_a_reason_that_finds_no_room_in_a_close_frame_is_refused(with_app):
    def handler(socket):
        with pytest.raises(ValueError, match="at most 123 bytes"):
            socket.close(4000, "é" * 62)
        socket.close(4001)

    def program(site):
        with WebClient(site.address) as client:
            return client.end()

    assert with_app(handler_app(handler), program) == 4001


def exits(socket):
    raise SystemExit(3)


def takes_too_long(socket):
    with vthreads.fail_after(1):
        socket.receive()


@pytest.mark.parametrize("handler", [exits, takes_too_long])
def test_every_failure_of_the_handler_closes_with_1011(with_app, handler, caplog):
    def program(site):
        with WebClient(site.address) as client:
            return client.end()

    assert with_app(handler_app(handler), program) == 1011
    assert "the application failed" in caplog.text


def test_a_fragmented_message_is_limited_as_a_whole(with_app):
    def program(site):
        with WebClient(site.address) as client:
            client.raw(Opcode.BINARY, b"x" * 600, fin=False)
            client.raw(Opcode.CONT, b"x" * 600)
            return client.end()

    assert with_app(handler_app(echo, max_bytes=1000), program) == 1009


def test_a_request_without_upgrade_gets_426(with_app):
    data = with_app(handler_app(echo), lambda site: site.ask(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"))
    assert data.startswith(b"HTTP/1.1 426 ")
    assert data.count(b"HTTP/1.1") == 1


def test_another_origin_gets_403(with_app):
    def program(site):
        WebClient(site.address, origin="https://a").sock.close()
        with pytest.raises(InvalidStatus) as caught:
            WebClient(site.address, origin="https://evil")
        return caught.value.response.status_code

    assert with_app(handler_app(echo, origins=["https://a"]), program) == 403


def test_subprotocols(with_app):
    def program(site):
        with WebClient(site.address, subprotocols=["two", "one"]) as client:
            return client.hear()

    app = handler_app(lambda socket: socket.send(socket.subprotocol), subprotocols=["one"])
    assert with_app(app, program) == b"one"


def test_frames_sent_with_the_handshake_are_not_lost(with_app):
    def program(site):
        with Client(site.address) as client:
            client.send(
                b"GET / HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: upgrade\r\n"
                b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
                + Frame(Opcode.TEXT, b"early").serialize(mask=True)
            )
            client.read_until(b"\r\n\r\n")
            return client.read_until(b"early")

    assert with_app(handler_app(echo), program).endswith(b"early")


def test_receive_has_a_timeout_and_loses_nothing(with_app):
    def handler(socket):
        for _ in range(3):
            with pytest.raises(TimeoutError):
                socket.receive(timeout=1)
        socket.send("ask")
        socket.send(socket.receive(timeout=1))

    def program(site):
        with WebClient(site.address) as client:
            assert client.hear() == b"ask"
            client.say("late")
            return client.hear(), client.end()

    assert with_app(handler_app(handler), program) == (b"late", 1000)


def test_the_deadline_of_the_request_ends_with_the_upgrade(with_app):
    def program(site):
        with WebClient(site.address) as client:
            vthreads.sleep(1000)
            client.more()
            client.flush()
            client.say("still there")
            while (frame := client.frame()).opcode == Opcode.PING:
                pass
            return frame.data

    app = handler_app(echo, ping_seconds=900, pong_seconds=None)
    assert with_app(app, program, limits=serve.Limits(request_seconds=5)) == b"still there"


def test_a_silent_client_is_pinged_and_lost(with_app):
    ended = []

    def handler(socket):
        began = vthreads.now()
        with pytest.raises(serve.WebSocketClosed) as caught:
            socket.receive()
        ended.append((vthreads.now() - began, caught.value.code))

    def program(site):
        with WebClient(site.address) as client:
            vthreads.sleep(60)
            while client.more():
                pass

    with_app(handler_app(handler, ping_seconds=20, pong_seconds=10), program)
    assert ended == [(30, 1006)]


def test_pongs_keep_a_client(with_app):
    def program(site):
        with WebClient(site.address) as client:
            for _ in range(10):
                assert client.frame().opcode == Opcode.PING
            client.say("here")
            return client.hear()

    assert with_app(handler_app(echo, ping_seconds=20, pong_seconds=10), program) == b"here"


@pytest.mark.parametrize("waits_in", ["receive", "sleep"])
def test_the_stop_closes_with_1001(with_app, waits_in):
    def handler(socket):
        if waits_in == "receive":
            echo(socket)
        else:
            while not vthreads.stopping():
                vthreads.sleep(0.1)

    def program(site):
        with WebClient(site.address) as client:
            site.server.stop()
            return client.end()

    assert with_app(handler_app(handler), program) == 1001


def test_a_client_that_does_not_close_cannot_delay_the_stop(with_app):
    def program(site):
        with WebClient(site.address) as client:
            began = vthreads.now()
            site.server.stop()
            while client.sock.recv(100):
                pass
            return vthreads.now() - began

    assert with_app(handler_app(echo, close_seconds=3), program) == pytest.approx(3, abs=0.1)


def test_a_reset_ends_receive(with_app):
    codes = []

    def handler(socket):
        try:
            socket.receive()
        except serve.WebSocketClosed as closed:
            codes.append(closed.code)

    def program(site):
        client = WebClient(site.address)
        settle()
        client.reset()
        settle()

    with_app(handler_app(handler), program)
    assert codes == [1006]


def test_a_handler_that_only_sends_is_cancelled_when_the_client_is_gone(with_app):
    ends = []

    def handler(socket):
        try:
            vthreads.sleep(10_000)
        finally:
            ends.append(vthreads.now())

    def program(site):
        client = WebClient(site.address)
        settle()
        client.reset()
        settle()
        return vthreads.now()

    assert with_app(handler_app(handler), program) == ends[0]


def test_a_client_that_reads_nothing_ends_a_send(with_app):
    failures = []

    def handler(socket):
        try:
            while True:
                socket.send(b"x" * 100_000)
        except serve.WebSocketClosed as closed:
            failures.append(closed.code)
        with pytest.raises(serve.WebSocketClosed):
            socket.send("again")

    def program(site):
        with WebClient(site.address):
            vthreads.sleep(200)

    with_app(handler_app(handler), program, limits=serve.Limits(write_seconds=10))
    assert failures == [1006]


def test_threads_may_send_at_once(with_app):
    def handler(socket):
        with vthreads.ThreadGroup() as group:
            for letter in b"abcdefgh":
                group.spawn(socket.send, bytes([letter]) * 200_000)

    def program(site):
        with WebClient(site.address, max_size=None) as client:
            messages = [client.hear() for _ in range(8)]
            return sorted(messages), client.end()

    messages, code = with_app(handler_app(handler), program)
    assert messages == [bytes([letter]) * 200_000 for letter in b"abcdefgh"]
    assert code == 1000


def test_it_refuses_other_environments_and_second_upgrades(with_app):
    with pytest.raises(RuntimeError, match=r"serve\.wsgi"):
        serve.websocket({})

    def app(environ, start_response):
        serve.websocket(environ)
        with pytest.raises(RuntimeError, match="upgraded or answered"):
            serve.websocket(environ)
        start_response("200 OK", [])
        return []

    def program(site):
        with WebClient(site.address) as client:
            return client.end()

    assert with_app(app, program) == 1000


@pytest.mark.sampled(1)
@pytest.mark.parametrize("options", [{}, {"ping_interval": 1}], ids=["plain", "with pings"])
@pytest.mark.parametrize("virtual", [True, False], ids=["virtual", "os thread"])
def test_flask_sock_runs_unmodified(options, virtual):
    app = flask.Flask("echo")
    app.config["SOCK_SERVER_OPTIONS"] = options
    sock = flask_sock.Sock(app)

    @sock.route("/echo/<name>")
    def echo(ws, name):
        ws.send(name)
        while (data := ws.receive()) != "end":
            ws.send(data)

    def program(site):
        with WebClient(site.address, "/echo/me") as client:
            client.say("one")
            client.say("two")
            heard = [client.hear() for _ in range(3)]
            client.say("end")
            return heard, client.end()

    if virtual:
        vthreads.patch(threads=True)
    try:
        assert run_with(partial(serve.wsgi, app, "127.0.0.1", 0), program, clock=None) == (
            [b"me", b"one", b"two"],
            1000,
        )
    finally:
        if virtual:
            vthreads.unpatch()
            vthreads.patch()
    assert threading.active_count() < 5


# --- a WebSocket of another library, at the stop of the server

UPGRADE = b"GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: %b\r\n\r\n"
SWITCHED = b"HTTP/1.1 101 Switching Protocols\r\n\r\n"
GOING_AWAY = b"\x88\x02\x03\xe9"
CLOSE_OF_CLIENT = b"\x88\x82\0\0\0\0\x03\xe9"


@pytest.mark.parametrize(
    ("parts", "protocol", "closed"),
    [
        ([SWITCHED], b"websocket", True),
        ([SWITCHED[:20], SWITCHED[20:-2], SWITCHED[-2:] + b"\x81\x02", b"hi"], b"WebSocket", True),
        ([SWITCHED, b"\x82\x7e\x01", b"\x00" + bytes(255), b"\0"], b"websocket", True),
        ([SWITCHED, b"\x82\x7f" + (70_000).to_bytes(8) + bytes(70_000)], b"websocket", True),
        ([SWITCHED[:-1]], b"websocket", False),
        ([SWITCHED + b"\x81\x04ab"], b"websocket", False),
        ([SWITCHED, b"\x82\x7e\x01"], b"websocket", False),
        ([SWITCHED, GOING_AWAY], b"websocket", False),
        ([SWITCHED], b"chat", False),
    ],
    ids=[
        "head",
        "pieces",
        "length of 2 bytes",
        "of 8 bytes",
        "half a head",
        "half a frame",
        "half a header",
        "closed",
        "other",
    ],
)
@pytest.mark.parametrize("method", ["sendall", "send"])
def test_a_foreign_websocket_is_closed_between_two_frames(with_app, parts, protocol, closed, method):
    received = []

    def app(environ, start_response):
        raw = environ["gunicorn.socket"]
        for part in parts:
            sent = getattr(raw, method)(part)
            assert sent in (None, len(part))
        received.append(raw.recv(100))
        start_response("200 OK", [])
        return []

    def program(site):
        with site.client() as client:
            client.send(UPGRADE % protocol)
            before = b"".join(parts)
            data = b""
            while len(data) < len(before):
                data += client.read()
            assert before == data
            site.server.stop()
            settle()
            if not closed:
                # The connection ends after the time for a close frame, or after that of the drain.
                return client.rest()
            assert GOING_AWAY == client.read()
            client.send(CLOSE_OF_CLIENT)
            return client.rest()

    assert b"" == with_app(app, program)
    assert ([CLOSE_OF_CLIENT] if closed else [b""]) == received or (protocol == b"chat" and [] == received)


# --- a handler that waits elsewhere


def wait_for_pong(client, data):
    """Send a ping, and read to its pong; the messages before it."""
    client.raw(Opcode.PING, data)
    messages = []
    while (frame := client.frame()).opcode != Opcode.PONG:
        messages.append(frame.data)
    assert frame.data == data
    return messages


# RFC 6455, 5.5.2: a ping is answered as soon as is practical, whatever the handler does.
def test_a_ping_is_answered_while_the_handler_waits_elsewhere(with_app):
    def handler(socket):
        assert vthreads.now() == began
        vthreads.sleep(1000)
        socket.send("after " + "".join(socket.receive() for _ in range(3)))

    def program(site):
        nonlocal began
        began = vthreads.now()
        with WebClient(site.address) as client:
            for number in range(3):
                # The messages around the pings wait for the handler.
                client.say(str(number))
                wait_for_pong(client, b"%d" % number)
            assert vthreads.now() - began < 1
            return client.hear()

    began = 0.0
    assert with_app(handler_app(handler), program) == b"after 012"


def test_a_ping_is_answered_while_the_handler_sends(with_app):
    def handler(socket):
        while True:
            socket.send("x" * 10_000)

    def program(site):
        with WebClient(site.address) as client:
            for _ in range(3):
                wait_for_pong(client, b"ping")

    with_app(handler_app(handler), program)


# RFC 6455, 5.5.1: a close frame is answered as soon as is practical.
def test_a_close_frame_is_answered_while_the_handler_waits_elsewhere(with_app):
    ends = []

    def handler(socket):
        vthreads.sleep(0.5)
        with pytest.raises(serve.WebSocketClosed) as caught:
            socket.receive()
        ends.append(caught.value.code)

    def program(site):
        with WebClient(site.address) as client:
            client.protocol.send_close(3000)
            client.flush()
            return client.end()

    assert with_app(handler_app(handler), program) == 3000
    assert ends == [3000]


def test_messages_for_a_handler_that_does_not_receive_are_bounded(with_app):
    taken = []

    def handler(socket):
        vthreads.sleep(100)
        taken.append(sum(map(len, socket._messages)))
        for message in socket:
            taken.append(len(message))

    def program(site):
        with WebClient(site.address) as client:
            for _ in range(200):
                client.say(b"x" * 10_000)
            client.protocol.send_close(1000)
            client.flush()
            return client.end()

    assert with_app(handler_app(handler), program) == 1000
    kept, *lengths = taken
    # One read more than what is kept.
    assert 0 < kept <= 3 * (64 << 10)
    assert lengths == [10_000] * 200


def test_receive_with_a_timeout_of_0_takes_what_has_arrived(with_app):
    def handler(socket):
        with pytest.raises(TimeoutError):
            socket.receive(timeout=0)
        socket.send("ask")
        vthreads.sleep(1)
        socket.send(socket.receive(timeout=0))

    def program(site):
        with WebClient(site.address) as client:
            assert client.hear() == b"ask"
            client.say("there")
            return client.hear()

    assert with_app(handler_app(handler), program) == b"there"


# --- messages of one frame, which do not pass through the package websockets

MASK = b"\1\2\3\4"
# Frames of each form, and the messages in them. The third has 2 bytes of length where 1 suffices.
FORMS = [
    (b"\x81\x82" + MASK + apply_mask(b"hi", MASK), ["hi"]),
    (b"\x82\xfe\0\x7f" + MASK + apply_mask(b"b" * 127, MASK), [b"b" * 127]),
    (b"\x81\xfe\0\x02" + MASK + apply_mask(b"li", MASK), ["li"]),
    (b"\x81\x80" + MASK, [""]),
    (b"\x89\x81" + MASK + apply_mask(b"?", MASK), []),
    (b"\x01\x81" + MASK + apply_mask(b"\xc3", MASK), []),
    (b"\x8a\x80" + MASK, []),
    (b"\x80\x81" + MASK + apply_mask(b"\xa4", MASK), ["ä"]),
    (b"\x02\x80" + MASK, []),
    (b"\x80\x82" + MASK + apply_mask(b"yo", MASK), [b"yo"]),
    (b"\x82\x82" + MASK + apply_mask(b"ok", MASK), [b"ok"]),
]
STREAM = b"".join(frame for frame, _ in FORMS)
MESSAGES = [message for _, messages in FORMS for message in messages]


@pytest.mark.parametrize("size", [*range(1, 20), 131, 132, 150, len(STREAM)])
def test_messages_are_the_same_in_pieces_of_every_size(with_app, size):
    received = []

    def program(site):
        with WebClient(site.address) as client:
            client.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            for at in range(0, len(STREAM), size):
                client.sock.sendall(STREAM[at : at + size])
                settle()
            client.protocol.send_close(1000)
            client.flush()
            return client.end()

    assert with_app(handler_app(received.extend), program) == 1000
    assert received == MESSAGES


# CWE-444: what a message contains may look like a frame.
def test_the_rest_of_a_frame_is_not_read_as_another_one(with_app):
    received = []
    inner = b"\x82\x82\0\0\0\0no"

    def program(site):
        with WebClient(site.address) as client:
            for part in (b"\x82\x8a\0\0\0\0ab", inner, b"\x82\x80\0\0\0\0"):
                client.sock.sendall(part)
                settle()
            client.protocol.send_close(1000)
            client.flush()
            return client.end()

    assert with_app(handler_app(received.extend), program) == 1000
    assert received == [b"ab" + inner, b""]


# RFC 6455, 5.4: the fragments of a message must not be interleaved with another message.
def test_a_message_between_the_fragments_of_another_one_is_refused(with_app):
    def program(site):
        with WebClient(site.address) as client:
            client.raw(Opcode.TEXT, b"a", fin=False)
            settle()
            client.raw(Opcode.TEXT, b"b")
            return client.end()

    assert with_app(handler_app(echo), program) == 1002


# RFC 6455, 7.1.7: after a fault, an endpoint must not process data of the other one.
@pytest.mark.parametrize("fin", [True, False])
def test_a_message_after_one_that_is_not_text_is_not_received(with_app, fin):
    received = []

    def program(site):
        with WebClient(site.address) as client:
            frames = [Frame(Opcode.TEXT, b"good"), Frame(Opcode.TEXT, b"\xff", fin), Frame(Opcode.TEXT, b"late")]
            if not fin:
                frames.insert(2, Frame(Opcode.CONT, b""))
            client.sock.sendall(b"".join(frame.serialize(mask=True) for frame in frames))
            return client.end()

    assert with_app(handler_app(received.extend), program) == 1007
    assert received == ["good"]


@pytest.mark.parametrize("size", [125, 126, 65_535, 65_536, 200_000])
def test_messages_of_each_length_of_header_pass_in_both_directions(with_app, size):
    def program(site):
        with WebClient(site.address, max_size=None) as client:
            client.say(b"x" * size)
            return client.hear()

    assert with_app(handler_app(echo), program) == b"x" * size


def test_every_kind_of_bytes_can_be_sent_and_a_number_cannot(with_app):
    class Named(bytes):
        pass

    def handler(opened):
        for data in (Named(b"ab"), bytearray(b"cd"), memoryview(array("H", [0x6565]))):
            opened.send(data)
        with pytest.raises(TypeError):
            opened.send(3)

    def program(site):
        with WebClient(site.address) as client:
            return [client.hear() for _ in range(3)], client.end()

    assert with_app(handler_app(handler), program) == ([b"ab", b"cd", b"ee"], 1000)


def test_a_websocket_holds_attributes_and_can_be_referred_to_weakly(with_app):
    def handler(opened):
        opened.user = "me"
        opened.send(WeakSet([opened]).pop().user)

    def program(site):
        with WebClient(site.address) as client:
            return client.hear()

    assert with_app(handler_app(handler), program) == b"me"
