"""Calls of `os` on pipes, FIFOs, terminals and eventfds."""

import os
import tempfile
import tty

from tests.matrix.endings import Operations, nothing_happened, with_every_cause
from tests.matrix.pipes import emptied_pipe, fill

OPERATIONS = Operations()


def reading(make, call):
    def read():
        reader, writer = make()
        yield lambda: call(reader)
        assert os.get_blocking(reader)
        os.write(writer, b"12345678")
        assert b"12345678" == os.read(reader, 100)
        os.close(reader)
        os.close(writer)

    return read


def fifo():
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "fifo")
        os.mkfifo(path)
        reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
        os.set_blocking(reader, True)
        return reader, os.open(path, os.O_WRONLY)


def pseudo_terminal():
    master, slave = os.openpty()
    tty.setraw(slave)
    return slave, master


READING = {
    "read": lambda reader: os.read(reader, 10),
    "readv": lambda reader: os.readv(reader, [bytearray(10)]),
}
for kind, make in {"a pipe": os.pipe, "a FIFO": fifo, "a tty": pseudo_terminal}.items():
    for name, call in READING.items():
        OPERATIONS[f"os.{name} of {kind}"] = reading(make, call)


@OPERATIONS.add
def eventfd_read():
    fd = os.eventfd(0)
    yield lambda: os.eventfd_read(fd)
    os.eventfd_write(fd, 7)
    assert 7 == os.eventfd_read(fd)
    os.close(fd)


@OPERATIONS.add
def eventfd_write():
    fd = os.eventfd(0)
    os.eventfd_write(fd, 2**64 - 2)
    yield lambda: os.eventfd_write(fd, 1)
    assert 2**64 - 2 == os.eventfd_read(fd)
    os.close(fd)


@OPERATIONS.add
def eventfd_write_of_more_than_fits():
    fd = os.eventfd(0)
    os.eventfd_write(fd, 2**64 - 10)
    yield lambda: os.eventfd_write(fd, 100)
    assert 2**64 - 10 == os.eventfd_read(fd)
    os.close(fd)


def writing(make, call):
    def write():
        reader, writer = make()
        fill(writer)
        yield lambda: call(writer)
        assert os.get_blocking(writer)
        assert b"y" not in emptied_pipe(reader)
        os.close(reader)
        os.close(writer)

    return write


WRITING = {
    "write": lambda writer: os.write(writer, b"y"),
    "writev": lambda writer: os.writev(writer, [b"y"]),
}
for kind, make in {"a pipe": os.pipe, "a FIFO": fifo, "a tty": pseudo_terminal}.items():
    for name, call in WRITING.items():
        OPERATIONS[f"os.{name} to {kind}"] = writing(make, call)


@with_every_cause(OPERATIONS)
def test_nothing_happened(name, cause):
    nothing_happened(OPERATIONS[name], cause)
