"""Raw files that a program makes by hand with `io.FileIO`."""

from __future__ import annotations

import _io
import io
import os
import pickle
import pty
import socket
import tty

import pytest

import vthreads
from vthreads.testing import wait_all_parked


def a_pipe(folder):
    return os.pipe()


def a_socket(folder):
    one, two = socket.socketpair()
    return one.detach(), two.detach()


def a_tty(folder):
    master, slave = pty.openpty()
    tty.setraw(slave)
    return slave, master


def a_fifo(folder):
    os.mkfifo(folder / "fifo")
    fd = os.open(folder / "fifo", os.O_RDWR)
    return fd, os.dup(fd)


def by_hand(file):
    # The class is looked up at each call: it is another one once the runtime has started.
    return io.FileIO(file)


def of_subclass(fd):
    class Subclass(io.FileIO):
        def __init__(self, fd):
            super().__init__(fd, "rb")

    return Subclass(fd)


SPELLINGS = {
    "raw": by_hand,
    "opener": lambda fd: io.FileIO("name", opener=lambda *_: fd),
    "subclass": of_subclass,
    "buffer": lambda fd: io.BufferedReader(io.FileIO(fd)),
    "pair": lambda fd: io.BufferedRWPair(io.FileIO(fd), io.FileIO(os.dup(fd), "w")),
    "text": lambda fd: io.TextIOWrapper(io.BufferedReader(io.FileIO(fd)), newline="\n"),
}


@pytest.mark.parametrize("spelling", SPELLINGS)
@pytest.mark.parametrize("kind", [a_pipe, a_socket, a_tty, a_fifo])
def test_a_read_of_a_file_made_by_hand_parks(virtual, tmp_path, kind, spelling):
    fd, other = kind(tmp_path)

    def root():
        with SPELLINGS[spelling](fd) as file:
            reader = vthreads.spawn(file.readline)
            wait_all_parked()
            assert not reader.done()
            os.write(other, b"line\n")
            return reader.result()

    line = virtual(root)
    os.close(other)
    assert line in (b"line\n", "line\n")


def test_a_write_to_a_raw_file_made_by_hand_parks(virtual):
    fd, other = os.pipe()
    data = bytes(1_000_000)

    def root():
        with io.FileIO(other, "w") as file:
            writer = vthreads.spawn(file.write, data)
            wait_all_parked()
            assert not writer.done()
            received = 0
            while received < len(data):
                received += len(os.read(fd, len(data)))
            return writer.result()

    assert len(data) == virtual(root)
    os.close(fd)


@pytest.mark.parametrize("make", [by_hand, of_subclass])
def test_the_opening_of_a_fifo_by_hand_parks(virtual, tmp_path, make):
    path = tmp_path / "fifo"
    os.mkfifo(path)

    def read():
        with make(path) as file:
            return file.readall()

    def root():
        reader = vthreads.spawn(read)
        with io.FileIO(path, "w") as file:
            file.write(b"data")
        return reader.result()

    assert b"data" == virtual(root)


def test_its_class_counts_all_raw_files(virtual, tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"data")

    def root():
        with io.FileIO(path) as by_hand, open(path, "rb", buffering=0) as opened, _io.FileIO(path) as original:
            for file in (by_hand, opened, original):
                assert isinstance(file, io.FileIO)
                assert isinstance(file, io.RawIOBase)
                assert b"data" == file.read()
        assert not isinstance(io.BytesIO(), io.FileIO)
        assert pickle.loads(pickle.dumps(io.FileIO)) is io.FileIO

    virtual(root)


def invalid_descriptor(*_):
    return -1


WRONG = [
    (),
    (1.5,),
    (None,),
    ("/nowhere/at/all",),
    (-1,),
    (10**10,),
    ("a\0b",),
    (0, "z"),
    (0, 5),
    (0, "rw"),
    (0, "r", True, None, 1),
    ("name", "r", False),
    ("name", "r", True, invalid_descriptor),
]


@pytest.mark.parametrize("arguments", WRONG, ids=range(len(WRONG)))
def test_wrong_arguments_fail_as_ever(virtual, arguments):
    def failure(cls):
        with pytest.raises(Exception) as caught:  # noqa: PT011  compared below
            cls(*arguments)
        return type(caught.value), str(caught.value)

    assert failure(_io.FileIO) == virtual(lambda: failure(io.FileIO))


@pytest.mark.parametrize(
    "call",
    [
        *(lambda raw, buffer=buffer: raw.readinto(buffer) for buffer in (b"x", "x", 3, memoryview(bytearray(8))[::2])),
        *(lambda raw, size=size: raw.read(size) for size in (2.5, -2.5, "x", b"ab")),
    ],
)
@pytest.mark.parametrize("sent", [b"", b"data"])
def test_a_read_with_a_wrong_argument_neither_waits_nor_takes_data(virtual, call, sent):
    receiving, sending = os.pipe()

    def root():
        with by_hand(receiving) as raw:
            os.write(sending, sent)
            with vthreads.fail_after(5), pytest.raises(TypeError, match=r"argument should be|read-write bytes-like"):
                call(raw)
            os.close(sending)
            return raw.read()

    assert sent == virtual(root)
