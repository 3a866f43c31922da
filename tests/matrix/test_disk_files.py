"""Reads of a file on a disk, whose data are not in the page cache."""

import errno
import os
import socket
import tempfile
import threading

from tests.matrix.endings import Operations, nothing_happened, with_every_cause
from tests.matrix.test_descriptors import READING
from tests.matrix.test_files import READING_A_FILE
from vthreads._calls.files import raw
from vthreads._calls.files import reading as file_reading

OPERATIONS = Operations()


def reading_a_disk(call):
    def read():
        gate = threading.Event()

        def not_cached(fd, buffers, offset, flags=0):
            if flags & os.RWF_NOWAIT:
                raise BlockingIOError(errno.EAGAIN, "not cached")
            gate.wait()
            return original(fd, buffers, offset, flags)

        original, original_rest = file_reading.original_preadv, raw.File._read_rest_at_once
        file_reading.original_preadv, raw.File._read_rest_at_once = not_cached, lambda *_: None
        with tempfile.TemporaryFile(dir=os.path.dirname(__file__)) as file:
            file.write(b"0123456789")
            file.flush()
            file.seek(5)
            try:
                yield lambda: call(file.fileno())
            finally:
                gate.set()
                file_reading.original_preadv, raw.File._read_rest_at_once = original, original_rest
            assert b"56" == os.read(file.fileno(), 2)

    return read


def reading_a_disk_by_open(call):
    def read():
        with tempfile.NamedTemporaryFile(dir=os.path.dirname(__file__)) as made:
            made.write(b"0123456789")
            made.flush()
            with open(made.name, "rb") as file:
                file.seek(5)
                steps = reading_a_disk(lambda _: call(file))()
                yield next(steps)
                assert next(steps, None) is None
                assert b"56789" == file.read()

    return read


for name, call in READING_A_FILE.items():
    OPERATIONS[f"file.{name} of a file on a disk"] = reading_a_disk_by_open(call)


def sent(fd):
    one, two = socket.socketpair()
    with one, two:
        os.sendfile(one.fileno(), fd, None, 3)


AT_A_POSITION = {"pread": lambda fd: os.pread(fd, 1, 0), "preadv": lambda fd: os.preadv(fd, [bytearray(1)], 0)}
for name, call in {**READING, **AT_A_POSITION, "sendfile": sent}.items():
    OPERATIONS[f"os.{name} of a file on a disk"] = reading_a_disk(call)


@with_every_cause(OPERATIONS)
def test_nothing_happened(name, cause):
    nothing_happened(OPERATIONS[name], cause)
