"""The buffers of open files: those of the standard library, but they wait outside their C lock.

Each method calls the original, whose raw file never waits. If that got too little, the method waits and calls again for
the rest. A cancelled read gives back what it had collected, so that the next read returns it. Only one thread at a time
waits on a buffer, and later callers queue, so that each line goes to one reader.
"""

from __future__ import annotations

import errno
import io
import os
from collections.abc import Callable
from typing import Any

from ..._core.current import running
from ..._core.engine import compiled, supply
from ...errors import Cancelled
from .raw import ON_A_DISK, File, as_original, buffer_method, named_as_original

__all__ = ["Random", "Reader", "Writer"]


# Each original is stored in the class below under its name with an underscore: `super()` would take twice as long.
ORIGINALS = ("read", "read1", "readinto", "readinto1", "readline", "peek", "seek", "write", "flush")


class _Buffer:
    """Common part of all buffers."""

    raw: File
    closed: bool
    name: Any

    def __repr__(self) -> str:
        return as_original(self, super().__repr__())

    def __reduce_ex__(self, protocol: Any) -> Any:
        raise TypeError(f"cannot pickle {type(self).__name__!r} object")


class _Reading(_Buffer):
    """The methods that read."""

    _read: Callable[..., bytes | None]
    _read1: Callable[..., bytes]
    _readinto: Callable[..., int | None]
    _readinto1: Callable[..., int | None]
    _readline: Callable[..., bytes]
    _peek: Callable[..., bytes]
    _seek: Callable[..., int]

    @compiled
    @buffer_method
    def read(self, size: int | None = -1, /) -> bytes | None:
        got = self._read(size)
        if got is not None and len(got) == size or not self.raw.starved:
            return got
        if size is None or size < 0:
            return self._collect(got, type(self)._read_all, -1)
        return self._collect(got, type(self)._read, size)

    @buffer_method
    def readline(self, size: int | None = -1, /) -> bytes:
        got = self._readline(size)
        if got[-1:] == b"\n" or len(got) == size or not self.raw.starved:
            return got
        return self._collect(got, type(self)._readline, -1 if size is None else size, end=b"\n")

    @buffer_method
    def read1(self, size: int = -1, /) -> bytes:
        got = self._read1(size)
        if got or size == 0 or not self.raw.starved:
            return got
        return self._retry(type(self)._read1, size)

    @buffer_method
    def peek(self, size: int = 0, /) -> bytes:
        got = self._peek(size)
        if got or not self.raw.starved:
            return got
        return self._retry(type(self)._peek, size)

    @buffer_method
    def readinto(self, buffer: Any, /) -> int | None:
        count = self._readinto(buffer)
        with memoryview(buffer) as view, view.cast("B") as target:
            if count == len(target) or not self.raw.starved:
                return count
            data = self._collect(bytes(target[: count or 0]), type(self)._read, len(target))
            target[: len(data)] = data
            return len(data)

    @buffer_method
    def readinto1(self, buffer: Any, /) -> int | None:
        count = self._readinto1(buffer)
        if count or not memoryview(buffer).nbytes or not self.raw.starved:
            return count
        return self._retry(type(self)._readinto1, buffer)

    @buffer_method
    def _read_all(self, _: int) -> bytes | None:
        return self._read()

    @buffer_method
    def _collect(
        self, got: bytes | None, call: Callable[..., bytes | None], size: int, end: bytes | None = None
    ) -> bytes:
        """Wait and `call` for the rest, until `size` bytes (-1: no limit), or `end`, or the end of the file."""
        thread, raw = running(), self.raw
        collected = bytearray(got or b"")
        try:
            with raw.turn():
                while True:
                    raw.wait_for_more(thread)
                    collected += call(self, size - len(collected) if size >= 0 else -1) or b""
                    if len(collected) == size or end and collected.endswith(end) or not raw.starved:
                        return bytes(collected)
        except BaseException:
            # The caller gets nothing of what was collected. Put it back for the next read, unless the file is closed,
            # after which no read returns data.
            if raw.closed:
                pass
            elif raw.kind in ON_A_DISK:
                self._seek(-len(collected), os.SEEK_CUR)
            else:
                raw.unread = bytes(collected) + raw.unread
            raise

    @buffer_method
    def _retry(self, call: Callable[..., Any], argument: Any) -> Any:
        """Wait and `call` again, until it returns data or the file has ended."""
        thread, raw = running(), self.raw
        with raw.turn():
            while True:
                raw.wait_for_more(thread)
                answer = call(self, argument)
                if answer or not raw.starved:
                    return answer


def _would_block(error: BlockingIOError) -> BlockingIOError:
    """Copy `error` of a file in non-blocking mode. C took its errno from a variable that Python has changed since."""
    return BlockingIOError(errno.EAGAIN, error.strerror, error.characters_written)


class _Writing(_Buffer):
    """The methods that write."""

    _write: Callable[..., int]
    _flush: Callable[..., None]

    @buffer_method
    def write(self, data: Any, /) -> int:
        try:
            return self._write(data)
        except BlockingIOError as error:
            if not self.raw.starved:
                raise _would_block(error) from None
            written = error.characters_written
        with memoryview(data) as view, view.cast("B") as left:
            self._write_rest(left, written)
            return len(left)

    @buffer_method
    def flush(self) -> None:
        try:
            return self._flush()
        except BlockingIOError as error:
            if not self.raw.starved:
                raise _would_block(error) from None
        thread, raw = running(), self.raw
        with raw.turn():
            while True:
                raw.wait_writable(thread)
                try:
                    return self._flush()
                except BlockingIOError as error:
                    if not raw.starved:
                        raise _would_block(error) from None

    @buffer_method
    def _write_rest(self, left: memoryview, written: int) -> None:
        thread, raw = running(), self.raw
        try:
            with raw.turn():
                while written < len(left):
                    raw.wait_writable(thread)
                    try:
                        written += self._write(left[written:])
                    except BlockingIOError as error:
                        written += error.characters_written
                        if not raw.starved:
                            raise _would_block(error) from None
        except Cancelled as cancelled:
            cancelled.bytes_sent = written
            raise


def _with_originals(cls: Any) -> Any:
    """Class decorator: store the original methods of `cls` under their names with an underscore."""
    for name in ORIGINALS:
        if hasattr(cls.__base__, name):
            setattr(cls, f"_{name}", getattr(cls.__base__, name))
    return named_as_original(cls)


@_with_originals
class Reader(_Reading, io.BufferedReader):  # type: ignore[misc]  # the stubs of the two bases differ in details
    """The buffer that `open(…, "rb")` returns."""


@_with_originals
class Random(_Reading, io.BufferedRandom):  # type: ignore[misc]  # likewise
    """The buffer that `open(…, "rb+")` returns for a file on a disk, for which a write does not wait."""


@_with_originals
class Writer(_Writing, io.BufferedWriter):  # type: ignore[misc]  # likewise
    """The buffer that `open(…, "wb")` returns for a file that may make a writer wait."""


supply(__name__, reader_class=Reader)
