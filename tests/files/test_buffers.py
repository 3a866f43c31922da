"""Buffers that a program makes itself, of the classes of `io`."""

from __future__ import annotations

import _io
import copy
import functools
import io
import os
import pickle
import socket

import pytest

import vthreads
from vthreads import ThreadGroup
from vthreads.testing import VirtualClock


def virtual(fn):
    return vthreads.run(fn, clock=VirtualClock())


def piped(mode="r", **options):
    """A file that reads from a pipe, and the descriptor that writes to it."""
    reader, writer = os.pipe()
    return open(reader, mode, **options), writer


class Slow(io.RawIOBase):
    """A raw file written in Python, whose reads and writes park."""

    def __init__(self, data=b""):
        self.left, self.written = data, []

    def readable(self):
        return True

    def writable(self):
        return True

    def seekable(self):
        return False

    def readinto(self, buffer):
        vthreads.sleep(1)
        piece, self.left = self.left[: len(buffer)], self.left[len(buffer) :]
        buffer[: len(piece)] = piece
        return len(piece)

    def write(self, data):
        vthreads.sleep(1)
        self.written.append(bytes(data))
        return len(data)


class SubclassOfReader(_io.BufferedReader):
    """As a program makes it before patching."""


NUMBERS = b"".join(b"%04d\n" % number for number in range(100))


def socket_with(data):
    ours, theirs = socket.socketpair()

    def send():
        with theirs:
            for start in range(0, len(data), 100):
                theirs.sendall(data[start : start + 100])
                vthreads.sleep(1)

    vthreads.spawn(send)
    with ours:
        return ours.makefile("rb", 16)


def raw_pipe_with(data):
    raw, writer = piped("rb", buffering=0)

    def send():
        for start in range(0, len(data), 100):
            os.write(writer, data[start : start + 100])
            vthreads.sleep(1)
        os.close(writer)

    vthreads.spawn(send)
    return io.BufferedReader(raw, 16)


def subclass_over(data):
    class Reader(io.BufferedReader):
        pass

    return Reader(Slow(data), 16)


READERS = {
    "raw file in Python": lambda data: io.BufferedReader(Slow(data), 16),
    "raw file of open": raw_pipe_with,
    "subclass": subclass_over,
    "pair": lambda data: io.BufferedRWPair(Slow(data), Slow(), 16),
    "socket": socket_with,
}


@pytest.mark.parametrize("make", READERS.values(), ids=READERS)
def test_a_buffer_made_by_a_program_is_read_by_one_thread_at_a_time(make):
    def root():
        got = []

        def read(file):
            while piece := file.read(5):
                got.append(piece)

        with make(NUMBERS) as file, ThreadGroup() as group:
            for _ in range(3):
                group.spawn(read, file)
        return sorted(got)

    assert NUMBERS.splitlines(keepends=True) == virtual(root)


def into(file):
    target = bytearray(2)
    file.readinto(target)
    return bytes(target)


open_buffered = functools.partial(open, mode="rb")
open_raw = functools.partial(open, mode="rb", buffering=0)

ONE_PIECE = {
    "read": lambda file: file.read(2),
    "readinto": into,
    "readline": lambda file: file.readline(),
    "read1": lambda file: file.read1(2),
}


@pytest.mark.parametrize("call", ONE_PIECE.values(), ids=ONE_PIECE)
@pytest.mark.parametrize("buffered", [open_buffered, lambda fd: io.BufferedReader(open_raw(fd))])
def test_data_that_come_at_once_are_enough_for_all_that_wait_for_a_buffer(buffered, call):
    def root():
        reading, writing = os.pipe()
        with buffered(reading) as file, ThreadGroup() as group:
            waiting = [group.spawn(call, file) for _ in range(3)]
            os.write(writing, b"a\nb\nc\n")
            # The pipe stays open: who waited for more would wait forever.
            got = [future.result() for future in waiting]
        os.close(writing)
        return got

    assert [b"a\n", b"b\n", b"c\n"] == virtual(root)


WRITERS = {
    "writer": lambda raw: io.BufferedWriter(raw, 16),
    "pair": lambda raw: io.BufferedRWPair(Slow(), raw, 16),
}


@pytest.mark.parametrize("make", WRITERS.values(), ids=WRITERS)
def test_a_buffer_made_by_a_program_is_written_by_one_thread_at_a_time(make):
    def root():
        raw = Slow()
        with make(raw) as file, ThreadGroup() as group:
            for number in range(20):
                group.spawn(file.write, b"%09d\n" % number)
        return sorted(b"".join(raw.written).splitlines())

    assert [b"%09d" % number for number in range(20)] == virtual(root)


def test_the_others_run_on_while_one_waits_for_a_buffer():
    def root():
        with io.BufferedReader(Slow(b"abc")) as file, ThreadGroup() as group:
            pieces = [group.spawn(file.read, 1) for _ in range(3)]
            with vthreads.fail_after(0.5):
                vthreads.sleep(0.1)
        return [piece.result() for piece in pieces]

    assert [b"a", b"b", b"c"] == virtual(root)


@pytest.mark.parametrize("make", [READERS[name] for name in ("raw file in Python", "pair")])
def test_a_buffer_is_usable_after_a_cancelled_read(make):
    def root():
        with make(NUMBERS) as file, ThreadGroup() as group:
            with vthreads.move_on_after(0.5) as reading:
                file.read(5)
            assert reading.cancelled_caught
            reader = group.spawn(file.read, 5)
            vthreads.sleep(0)
            with vthreads.move_on_after(0.5) as waiting:
                file.read(5)
            assert waiting.cancelled_caught
            return reader.result(), file.read(5)

    assert (b"0000\n", b"0001\n") == virtual(root)


def test_a_cancelled_close_of_a_buffer_that_another_thread_reads_closes_the_raw_file():
    def root():
        with ThreadGroup() as group:
            file = io.BufferedReader(Slow(NUMBERS))
            reader = group.spawn(file.read, 5)
            vthreads.sleep(0)
            with vthreads.move_on_after(0.5) as closing:
                file.close()
            assert closing.cancelled_caught
            assert file.raw.closed
            reader.cancel()

    virtual(root)


def test_a_raw_file_that_uses_its_own_buffer_gets_the_error_of_the_original():
    class Recursive(Slow):
        def readinto(self, buffer):
            return file.readinto(buffer)

    def root():
        nonlocal file
        file = io.BufferedReader(Recursive())
        with file, pytest.raises(RuntimeError, match="reentrant call"):
            file.read(1)

    file = None
    virtual(root)


def test_every_buffer_is_an_instance_of_the_class_under_its_public_name(path):
    def root():
        with open(path, "rb") as on_disk, open(path, "wb") as written, open(path, "rb+") as both:
            assert isinstance(on_disk, io.BufferedReader)
            assert isinstance(written, io.BufferedWriter)
            assert isinstance(both, io.BufferedRandom)
            assert not isinstance(on_disk, io.BufferedWriter | io.BufferedRandom)
        assert type(io.BufferedReader(io.BytesIO())) is _io.BufferedReader
        for raw in (io.BytesIO(), io.BufferedReader(io.BytesIO()), Slow()):
            file = io.BufferedReader(raw)
            assert all(isinstance(file, cls) for cls in (io.BufferedReader, _io.BufferedReader, io.BufferedIOBase))
            assert not isinstance(file, SubclassOfReader)
        assert all(issubclass(cls, io.BufferedReader) for cls in (SubclassOfReader, _io.BufferedReader))
        assert isinstance(SubclassOfReader(io.BytesIO()), io.BufferedReader)
        assert pickle.loads(pickle.dumps(io.BufferedReader)) is io.BufferedReader

    virtual(root)


PEEKS = [
    repr,
    lambda file: type(file).__name__,
    pickle.dumps,
    copy.copy,
    copy.deepcopy,
    lambda file: file.seek(0),
    lambda file: file.tell(),
    lambda file: file.read(1, 2),
    lambda file: file.detach() and file.read(),
]


@pytest.mark.parametrize("peek", PEEKS, ids=range(len(PEEKS)))
@pytest.mark.parametrize("name", ["BufferedReader", "BufferedWriter"])
def test_a_buffer_answers_as_the_original_does(name, peek):
    def answer(cls):
        try:
            return peek(cls(Slow()))
        except Exception as error:
            return type(error), str(error)

    def root():
        assert answer(getattr(_io, name)) == answer(getattr(io, name))
        for arguments in [(), (None,), (Slow(), -1), (Slow(), 1, 2)]:
            with pytest.raises((AttributeError, TypeError, ValueError)) as expected:
                getattr(_io, name)(*arguments)
            with pytest.raises(type(expected.value)) as got:
                getattr(io, name)(*arguments)
            assert str(expected.value) == str(got.value)

    vthreads.patch()
    assert getattr(io, name) is not getattr(_io, name)
    virtual(root)


@pytest.mark.thorough
@pytest.mark.everywhere
def test_unpatching_puts_the_classes_back():
    names = ["BufferedReader", "BufferedWriter", "BufferedRandom", "BufferedRWPair"]
    vthreads.patch()
    file = io.BufferedReader(Slow(NUMBERS))
    vthreads.unpatch()
    assert all(getattr(io, name) is getattr(_io, name) for name in names)
    assert isinstance(file, io.BufferedReader)
    file.close()
    vthreads.patch()
    assert not any(getattr(io, name) is getattr(_io, name) for name in names)
