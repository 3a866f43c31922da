"""Replacements for the methods of `socket.socket` that send."""

from __future__ import annotations

from operator import index
from typing import Any

from ..._core.engine import WRITE
from ..._core.repeated import repeated_in
from ...errors import Cancelled
from .attempts import DONTWAIT, attempts_on, call_with_flags
from .connecting import resolved
from .managed import C, Socket

__all__ = ["send", "sendall", "sendmsg", "sendto"]


@repeated_in("_calls/net/compiled/socket.pxi")
def send(self: Socket, data: Any, flags: int = 0, /) -> int:
    return call_with_flags(self, WRITE, C.send, (data,), flags)


@repeated_in("_calls/net/compiled/socket.pxi")
def sendto(self: Socket, data: Any, *flags_and_address: Any) -> int:
    if not 1 <= len(flags_and_address) <= 2:
        return C.sendto(self, data, *flags_and_address)
    flags = flags_and_address[0] if len(flags_and_address) == 2 else 0
    address = resolved(self, flags_and_address[-1])
    return call_with_flags(self, WRITE, C.sendto, (data,), flags, address)


def sendmsg(self: Socket, buffers: Any, ancdata: Any = (), flags: int = 0, address: Any = None, /) -> int:
    after = () if address is None else (resolved(self, address),)
    args = (list(buffers), ancdata)
    return call_with_flags(self, WRITE, C.sendmsg, args, flags, *after)


@repeated_in("_calls/net/compiled/socket.pxi")
def sendall(self: Socket, data: Any, flags: int = 0, /) -> None:
    sent, flags = 0, index(flags)
    try:
        attempts = attempts_on(self, flags)
        if attempts is None:
            return C.sendall(self, data, flags)
        with memoryview(data) as view, view.cast("B") as left:
            while True:
                try:
                    sent += C.send(self, left[sent:], flags | DONTWAIT)
                    if sent >= len(left):
                        return None
                    continue
                except BlockingIOError:
                    pass
                attempts.wait(WRITE)
    except Cancelled as cancelled:
        cancelled.bytes_sent = sent
        raise
