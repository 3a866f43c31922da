"""Calls of file objects over a pipe, and the opening of a FIFO."""

import io
import os
import tempfile

import vthreads
from tests.matrix.endings import Operations, nothing_happened, with_every_cause
from tests.matrix.pipes import emptied_pipe, fill
from vthreads._os_threads.calls import calls_under_way

OPERATIONS = Operations()


def by_hand(fd, mode, buffering):
    # The class is looked up at each call: it is another one once the runtime has started.
    raw = io.FileIO(fd, mode)
    if not buffering:
        return raw
    return io.BufferedReader(raw) if "r" in mode else io.BufferedWriter(raw)


def reading_a_file(call, mode="rb", buffering=-1, make=open):
    def read():
        reader, writer = os.pipe()
        with make(reader, mode, buffering) as file:
            # Not enough for any of the calls.
            if buffering:
                os.write(writer, b"123")
            yield lambda: call(file)
            os.write(writer, b"4\n" if buffering else b"1234\n")
            os.close(writer)
            assert file.read() in (b"1234\n", "1234\n")

    return read


READING_A_FILE = {
    "read": lambda file: file.read(10),
    "read to the end": lambda file: file.read(),
    "readline": lambda file: file.readline(),
    "readinto": lambda file: file.readinto(bytearray(10)),
}
for name, call in READING_A_FILE.items():
    OPERATIONS[f"file.{name}"] = reading_a_file(call)
    OPERATIONS[f"file by hand.{name}"] = reading_a_file(call, make=by_hand)
for name in ("read", "readinto", "read to the end"):
    OPERATIONS[f"file.{name} without a buffer"] = reading_a_file(READING_A_FILE[name], buffering=0)
    OPERATIONS[f"FileIO.{name}"] = reading_a_file(READING_A_FILE[name], buffering=0, make=by_hand)


@OPERATIONS.add
def read_1_of_a_file():
    reader, writer = os.pipe()
    with open(reader, "rb") as file:
        yield file.read1
        os.write(writer, b"kept")
        os.close(writer)
        assert b"kept" == file.read()


@OPERATIONS.add
def peek_into_a_file():
    reader, writer = os.pipe()
    with open(reader, "rb") as file:
        yield file.peek
        os.write(writer, b"kept")
        os.close(writer)
        assert b"kept" == file.read()


@OPERATIONS.add
def read_of_a_pair():
    reader, writer = os.pipe()
    with io.BufferedRWPair(io.FileIO(reader), io.FileIO(writer, "w")) as pair:
        yield lambda: pair.read(4)
        os.write(writer, b"kept")
        assert b"kept" == pair.read(4)


class OverAPipe(io.RawIOBase):
    """A raw file that only says that it can seek and write, as `BufferedRandom` demands."""

    def __init__(self, reader):
        self._reader = reader

    def readable(self):
        return True

    writable = seekable = readable

    def seek(self, offset, whence=os.SEEK_SET):
        return 0

    def readinto(self, buffer):
        return os.readv(self._reader, [buffer])


@OPERATIONS.add
def read_of_a_file_to_read_and_write():
    reader, writer = os.pipe()
    with io.BufferedRandom(OverAPipe(reader)) as file:
        yield lambda: file.read(4)
        os.write(writer, b"kept")
        assert b"kept" == file.read(4)
    os.close(reader)
    os.close(writer)


@OPERATIONS.add
def line_of_text():
    reader, writer = os.pipe()
    with open(reader) as file:
        yield file.readline
        os.write(writer, b"kept\n")
        os.close(writer)
        assert "kept\n" == file.readline()


def writing_a_file(call, mode="wb", buffering=-1, make=open):
    def write():
        reader, writer = os.pipe()
        with make(writer, mode, buffering) as file:
            fill(writer)
            if call is flush:
                file.write(b"kept")
            yield lambda: call(file)
            assert b"y" not in emptied_pipe(reader)
        assert (b"kept" if call is flush else b"") == emptied_pipe(reader)
        os.close(reader)

    return write


def flush(file):
    file.flush()


OPERATIONS["file.write without a buffer"] = writing_a_file(lambda file: file.write(b"y"), buffering=0)
OPERATIONS["FileIO.write"] = writing_a_file(lambda file: file.write(b"y"), buffering=0, make=by_hand)
OPERATIONS["file by hand.flush"] = writing_a_file(flush, make=by_hand)
OPERATIONS["file.flush"] = writing_a_file(flush)


@OPERATIONS.add
def write_of_more_than_the_buffer_takes():
    reader, writer = os.pipe()
    # The rest in the buffer has room in the pipe.
    with open(writer, "wb", buffering=8_192) as file:
        taken = []

        def write():
            try:
                file.write(b"y" * 1_000_000)
            except vthreads.Cancelled as cancelled:
                taken.append(cancelled.bytes_sent)
                raise

        yield write
        received = len(emptied_pipe(reader))
        file.flush()
        received += len(emptied_pipe(reader))
        assert not taken or [received] == taken
    os.close(reader)


def opening(call):
    def open_fifo():
        with tempfile.TemporaryDirectory() as folder:
            path = os.path.join(folder, "fifo")
            os.mkfifo(path)

            def open_and_see_it_end():
                try:
                    call(path)
                finally:
                    # The OS thread is aborted, and closes the file that it opened.
                    while calls_under_way():
                        pass

            yield open_and_see_it_end

    return open_fifo


OPENING = {
    "open to read": lambda path: open(path),  # looked up when called: patched by then
    "open to write": lambda path: open(path, "wb", 0),
    "os.open": lambda path: os.open(path, os.O_RDONLY),
}
for name, call in OPENING.items():
    OPERATIONS[f"{name} a FIFO"] = opening(call)


@OPERATIONS.add
def splice():
    (from_this, put), (take, to_this) = os.pipe(), os.pipe()
    yield lambda: os.splice(from_this, to_this, 10)
    os.write(put, b"kept")
    assert 4 == os.splice(from_this, to_this, 10)
    for fd in (from_this, put, take, to_this):
        os.close(fd)


@with_every_cause(OPERATIONS)
def test_nothing_happened(name, cause):
    nothing_happened(OPERATIONS[name], cause)
