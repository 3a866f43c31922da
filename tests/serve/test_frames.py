"""Frames of WebSocket, compared with those of the package websockets."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from websockets.exceptions import WebSocketException
from websockets.frames import Frame, Opcode
from websockets.protocol import OPEN
from websockets.server import ServerProtocol
from websockets.utils import apply_mask

from vthreads.serve._frames import data_frame, payload_of, size_of

# On both sides of each change of the header (RFC 6455, 5.2).
SIZES = [0, 1, 125, 126, 127, 128, 255, 256, 65_535, 65_536, 70_000]
MASK = b"\1\2\3\xff"


def masked(first, length, payload, mask_bit=0x80):
    """A frame of a client; `length` is all of the length, its first byte without the bit of the mask."""
    return bytes([first, length[0] | mask_bit]) + length[1:] + MASK + apply_mask(payload, MASK)


def parsed(data):
    """What the package makes of the bytes of a client: its frames, and whether it refuses them."""
    protocol = ServerProtocol(state=OPEN)
    protocol.receive_data(data)
    return protocol.events_received(), isinstance(protocol.parser_exc, WebSocketException)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("is_text", [True, False])
def test_a_data_frame_is_that_of_the_package(size, is_text):
    payload = b"x" * size
    opcode = Opcode.TEXT if is_text else Opcode.BINARY
    assert Frame(opcode, payload).serialize(mask=False) == data_frame(payload, is_text)


@pytest.mark.parametrize("size", SIZES)
def test_the_size_and_the_payload_of_a_frame_are_those_of_the_package(size):
    payload = b"abc" * (size // 3) + b"z" * (size % 3)
    frame = Frame(Opcode.BINARY, payload).serialize(mask=True)
    assert len(frame) == size_of(size)
    expected = payload if size < 1 << 16 else None
    assert expected == payload_of(b"before" + frame + b"after", 6, 1 << 20, apply_mask)
    assert payload_of(frame, 0, size - 1, apply_mask) is None


@pytest.mark.parametrize("size", [0, 5, 126, 300])
def test_a_frame_that_is_not_complete_has_no_payload_yet(size):
    frame = Frame(Opcode.TEXT, b"x" * size).serialize(mask=True)
    assert {None} == {payload_of(frame[:end], 0, 1 << 20, apply_mask) for end in range(len(frame))}


@pytest.mark.parametrize(
    "frame",
    [
        masked(0x01, b"\2", b"hi"),
        masked(0x00, b"\2", b"hi"),
        masked(0x80, b"\2", b"hi"),
        masked(0x83, b"\2", b"hi"),
        masked(0x88, b"\0", b""),
        masked(0x89, b"\2", b"hi"),
        masked(0xC1, b"\2", b"hi"),
        masked(0xA1, b"\2", b"hi"),
        masked(0x91, b"\2", b"hi"),
        masked(0x81, b"\2", b"hi", mask_bit=0),
        masked(0x81, b"\x7e\0\2", b"hi"),
        masked(0x81, b"\x7f\0\0\0\0\0\0\0\2", b"hi"),
    ],
    ids=[
        "first of a message",
        "middle of a message",
        "last of a message",
        "unknown opcode",
        "close",
        "ping",
        "rsv1",
        "rsv2",
        "rsv3",
        "not masked",
        "2 bytes of length for 2",
        "8 bytes of length for 2",
    ],
)
def test_an_unusual_frame_is_left_to_the_package(frame):
    assert payload_of(frame, 0, 1 << 20, apply_mask) is None


@given(st.binary(max_size=12), st.binary(max_size=140), st.booleans())
def test_what_is_a_payload_here_is_the_same_for_the_package(head, rest, is_masked):
    data = head[:1] + (bytes([head[1] | 0x80]) if is_masked and head[1:] else head[1:2]) + head[2:] + rest
    payload = payload_of(data, 0, 1 << 20, apply_mask)
    if payload is None:
        return
    frames, _ = parsed(data[: size_of(len(payload))])
    (frame,) = frames
    assert (payload, True) == (bytes(frame.data), frame.fin)
    assert frame.opcode in (Opcode.TEXT, Opcode.BINARY)
