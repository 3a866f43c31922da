"""Replacements for `io.BufferedReader`, `BufferedWriter`, `BufferedRandom` and `BufferedRWPair`.

The originals hold a C lock while they call their raw file. That lock belongs to an OS thread: while a virtual thread is
parked inside, another one on the same carrier gets "reentrant call", and one on another carrier blocks there. Here each
call first acquires a lock of virtual threads, so the next caller parks.

The constructors return an object of the original class if its raw file never parks, and a buffer as `open` returns it
if the raw file was opened by `open`. `isinstance` and `issubclass` count all of these as the new class.
"""

from __future__ import annotations

import io
from abc import ABCMeta
from collections.abc import Callable
from contextlib import suppress
from functools import wraps
from io import BufferedRandom as OriginalRandom
from io import BufferedReader as OriginalReader
from io import BufferedRWPair as OriginalPair
from io import BufferedWriter as OriginalWriter
from typing import Any
from weakref import WeakSet

from ..._core.engine import compiled
from ..._core.fork import surviving_ident
from ..._core.participants import Participant, participate
from ..standard_locks import StandardRLock
from .buffers import Random, Reader, Writer
from .kinds import Kind
from .raw import File, OriginalFileIO

__all__ = [
    "OVER_FILES",
    "BufferedRWPair",
    "BufferedRandom",
    "BufferedReader",
    "BufferedWriter",
    "OriginalRandom",
    "OriginalReader",
    "OriginalWriter",
    "Replacing",
    "never_parks",
]

# The class to use over a raw file of `open`, by original class. It keeps the bytes that a cancelled call had read.
OVER_FILES: dict[type, type] = {OriginalReader: Reader, OriginalWriter: Writer, OriginalRandom: Random}

# Methods that take the C lock, or change the state that its holder works on.
IN_TURN = (
    *("read", "read1", "readinto", "readinto1", "readline", "peek", "write"),
    *("seek", "tell", "truncate", "flush", "detach"),
)


def never_parks(raw: Any, original: type) -> bool:
    """Return whether a buffer of the class `original` over `raw` never parks."""
    if type(raw) is File:
        # A write to a file on a disk only fills the page cache, so it does not wait.
        return raw.kind is Kind.MEMORY or raw.kind is Kind.DISK and original is OriginalWriter
    return type(raw) is io.BytesIO or type(raw) is OriginalFileIO


# The buffers that have a turn.
_shared: WeakSet[Any] = WeakSet()


def _renew_turns() -> None:
    """Free the buffers in the child of a fork whose turn a thread had that does not exist there.

    That thread had entered C code, which holds the buffer's C lock. Only a new initialization frees it; the data in the
    buffer, which the other thread was reading or writing, are dropped. The parent has them.
    """
    survivor = surviving_ident()
    for buffer in list(_shared):
        owner, count = buffer._turn._held()
        if count and owner != survivor:
            buffer._turn._at_fork_reinit()
            with suppress(ValueError):
                # Detached or closed: it has no raw file.
                buffer._original.__init__(buffer, buffer.raw)


participate(__name__, Participant(forked=_renew_turns))


class Replacing(metaclass=ABCMeta):
    """Common part of the new classes. Subclasses that programs derive from them do not replace an original."""

    _original: Any

    @classmethod
    def __subclasshook__(cls, subclass: type) -> Any:
        return issubclass(subclass, cls._original) if "_original" in vars(cls) else NotImplemented

    def __repr__(self) -> str:
        text = super().__repr__()
        if "_original" not in vars(type(self)):
            return text
        return f"<_io.{text[1:].removeprefix('io.')}"

    def __reduce_ex__(self, protocol: Any) -> Any:
        if "_original" not in vars(type(self)):
            return super().__reduce_ex__(protocol)
        # Raise the error of the original, which does not depend on the object: an uninitialized one gives it too.
        return self._original.__new__(self._original).__reduce_ex__(protocol)


class _Buffer(Replacing):
    """A buffer over one raw file, used by one thread at a time."""

    raw: Any
    # Reentrant, because closing calls `flush`.
    _turn: StandardRLock

    def __new__(cls, raw: Any = None, *arguments: Any, **options: Any) -> Any:
        if "_original" in vars(cls):
            if never_parks(raw, cls._original):
                return cls._original(raw, *arguments, **options)
            if type(raw) is File:
                return OVER_FILES[cls._original](raw, *arguments, **options)
        self: Any = super().__new__(cls)
        self._turn = StandardRLock()
        _shared.add(self)
        return self

    def close(self) -> None:
        try:
            self._turn.acquire()
        except BaseException:
            # Cancelled while another thread uses the buffer. Close the raw file nevertheless, as a cancelled flush in
            # the original's `close` would.
            self.raw.close()
            raise
        try:
            super().close()  # type: ignore[misc]  # of the C class
        finally:
            self._turn.release()


@compiled
def in_turn(original: Any) -> Callable[..., Any]:
    """Return a method that calls `original` while its thread has the turn."""

    def call(self: Any, /, *arguments: Any, **options: Any) -> Any:
        with self._turn:
            return original(self, *arguments, **options)

    return call


def _replacing(cls: Any) -> Any:
    """Class decorator: make `cls` replace the C class that it extends, under the name by which pickles find it."""
    cls._original = original = cls.__base__
    cls.__name__ = cls.__qualname__ = original.__name__
    cls.__module__ = "io"
    cls.__doc__ = original.__doc__
    for name in IN_TURN if issubclass(cls, _Buffer) else ():
        if hasattr(original, name):
            method = getattr(original, name)
            setattr(cls, name, wraps(method)(in_turn(method)))
    return cls


@_replacing
class BufferedReader(_Buffer, OriginalReader):
    pass


@_replacing
class BufferedWriter(_Buffer, OriginalWriter):
    pass


@_replacing
class BufferedRandom(_Buffer, OriginalRandom):
    pass


@_replacing
class BufferedRWPair(Replacing, OriginalPair):
    # The original would create its two buffers from the original classes.

    def __init__(self, reader: Any, writer: Any, buffer_size: int = io.DEFAULT_BUFFER_SIZE, /) -> None:
        self._reader, self._writer = BufferedReader(reader, buffer_size), BufferedWriter(writer, buffer_size)

    @property
    def closed(self) -> bool:
        return self._writer.closed

    def isatty(self) -> bool:
        return self._writer.isatty() or self._reader.isatty()

    def close(self) -> None:
        try:
            self._writer.close()
        finally:
            self._reader.close()


def _forwarded(half: str, name: str) -> Callable[..., Any]:
    def call(self: Any, /, *arguments: Any) -> Any:
        return getattr(getattr(self, half), name)(*arguments)

    return wraps(getattr(OriginalPair, name))(call)


for _name in ("read", "read1", "readinto", "readinto1", "peek", "readable"):
    setattr(BufferedRWPair, _name, _forwarded("_reader", _name))
for _name in ("write", "flush", "writable"):
    setattr(BufferedRWPair, _name, _forwarded("_writer", _name))
