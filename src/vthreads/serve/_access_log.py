"""The access log: a line for each request, written by an OS thread. It does not depend on HTTP or on the scheduler.

A request only appends to a bounded queue. If the reader of the log (a pipe, a disk) is too slow, the queue is full and
lines are dropped and counted: a log never slows requests. The line is formatted by the OS thread as well.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from functools import lru_cache
from json.encoder import encode_basestring_ascii as quoted
from typing import IO, NamedTuple

from .._core.originals import allocate_lock, get_ident, sleep
from .._core.os_thread_kinds import own_os_threads
from .._core.own_os_thread import start_own_os_thread

__all__ = ["FORMATS", "AccessLog", "Entry"]

MOST_WAITING = 10_000
# Lines between two calls that release the GIL, for which the carrier waits meanwhile.
AT_ONCE = 100
BETWEEN_WRITES = 0.1


class Entry(NamedTuple):
    """A request that has ended.

    Attributes:
        ended: the time of its end, in seconds since the epoch.
        client: the address of the client.
        method: the method; "-" if the head was refused.
        target: the target as sent; "-" if the head was refused.
        version: "HTTP/1.0" or "HTTP/1.1"; "-" if the head was refused.
        status: the status of the response; 499 if the client has gone before it.
        sent: bytes of the response, its head included.
        seconds: from the head of the request to the end of the response.
        request_id: its identification.
        referer: the field Referer.
        agent: the field User-Agent.
    """

    ended: float
    client: str
    method: str
    target: str
    version: str
    status: int
    sent: int
    seconds: float
    request_id: str
    referer: str
    agent: str


@lru_cache(maxsize=4)
def _formatted(format: str, second: int) -> str:
    """Return a time in UTC; many requests end in the same second."""
    return time.strftime(format, time.gmtime(second))


# Method and request id have no characters that need an escape: llhttp knows all methods, and the id is made here or was
# checked.
def _as_json(entry: Entry) -> str:
    when = _formatted("%Y-%m-%dT%H:%M:%S", int(entry.ended))
    return (
        f'{{"time":"{when}.{int(entry.ended % 1 * 1000):03}Z","client":{quoted(entry.client)},'
        f'"method":"{entry.method}","target":{quoted(entry.target)},"version":"{entry.version}",'
        f'"status":{entry.status},"sent":{entry.sent},"seconds":{entry.seconds:.6f},'
        f'"request_id":"{entry.request_id}","referer":{quoted(entry.referer)},"agent":{quoted(entry.agent)}}}'
    )


def _as_common(entry: Entry) -> str:
    """Return the line in the combined format of Apache and nginx, with the request id and the time at its end."""
    when = _formatted("%d/%b/%Y:%H:%M:%S +0000", int(entry.ended))
    request = f"{entry.method} {entry.target} {entry.version}"
    return (
        f'{entry.client} - - [{when}] "{_escaped(request)}" {entry.status} {entry.sent} "{_escaped(entry.referer)}" '
        f'"{_escaped(entry.agent)}" {entry.request_id} {entry.seconds:.6f}'
    )


def _escaped(text: str) -> str:
    """Return `text` so that a client cannot end the quotes or the line with it."""
    if text.isascii() and text.isprintable() and '"' not in text and "\\" not in text:
        return text or "-"
    return "".join(c if c.isascii() and c.isprintable() and c not in '"\\' else f"\\x{ord(c):02x}" for c in text)


FORMATS: dict[str, Callable[[Entry], str]] = {"json": _as_json, "common": _as_common}


class AccessLog:
    """Writes entries to `stream`.

    Args:
        stream: a text stream.
        format: a key of `FORMATS`.
        owns_stream: close it at the end. Otherwise the caller closes it after `close`.
    """

    def __init__(self, stream: IO[str], format: str, *, owns_stream: bool = False) -> None:
        self._stream = stream
        self._owns_stream = owns_stream
        self._format = FORMATS[format]
        self._waiting: deque[Entry] = deque()
        self._is_closing = False
        # Lines that found no room, or that the stream refused.
        self.dropped = 0
        # Released at the end of the OS thread.
        self._has_ended = allocate_lock()
        self._has_ended.acquire()
        start_own_os_thread(self._run)

    def add(self, entry: Entry) -> None:
        """Add an entry, or drop and count it. Not a checkpoint, and never waits."""
        if len(self._waiting) >= MOST_WAITING:
            self.dropped += 1
        else:
            self._waiting.append(entry)

    def close(self, seconds: float = 2.0) -> None:
        """Write what waits, within `seconds`. Blocks the OS thread."""
        self._is_closing = True
        self._has_ended.acquire(timeout=seconds)

    def _run(self) -> None:
        # A carrier would assume that an unknown OS thread may unpark its threads.
        own_os_threads.add(get_ident())
        try:
            while True:
                is_last = self._is_closing
                while self._waiting:
                    self._write()
                if is_last:
                    return
                sleep(BETWEEN_WRITES)
        finally:
            if self._owns_stream:
                self._stream.close()
            own_os_threads.discard(get_ident())
            self._has_ended.release()

    def _write(self) -> None:
        entries = [self._waiting.popleft() for _ in range(min(len(self._waiting), AT_ONCE))]
        try:
            self._stream.write("".join(f"{self._format(entry)}\n" for entry in entries))
            self._stream.flush()
        except (OSError, ValueError):
            # The stream is closed or its disk is full. A failure must not end the log: the disk may have room later.
            self.dropped += len(entries)
