"""Reads and writes by descriptor number: only the virtual thread waits, and a cancelled call has done nothing."""

from __future__ import annotations

import fcntl
import os
import select
import socket
import struct
import tempfile
import threading
import time

import pytest

import vthreads
from vthreads import ThreadGroup
from vthreads._calls.files import kinds, reading, writing
from vthreads._calls.net.readiness import WRITE, wait_blocking
from vthreads._core.originals import close_fd
from vthreads.testing import VirtualClock, wait_all_parked


def virtual(fn):
    return vthreads.run(fn, clock=VirtualClock())


class Pair:
    """Two descriptors: what is written to the second is read from the first."""

    def __init__(self, reader, writer, path=None):
        self.reader, self.writer, self._path = reader, writer, path

    def close(self):
        for fd in {self.reader, self.writer}:
            try:
                os.close(fd)
            except OSError:
                pass
        if self._path is not None:
            os.unlink(self._path)
            os.rmdir(os.path.dirname(self._path))


def fifo():
    path = os.path.join(tempfile.mkdtemp(), "fifo")
    os.mkfifo(path)
    reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    writer = os.open(path, os.O_WRONLY)
    os.set_blocking(reader, True)
    return Pair(reader, writer, path)


def tty():
    # Raw, so that what is written comes out as it is.
    import tty as modes

    master, slave = os.openpty()
    modes.setraw(slave)
    return Pair(master, slave)


def tty_reversed():
    pair = tty()
    return Pair(pair.writer, pair.reader)


def sockets():
    one, two = socket.socketpair()
    return Pair(one.detach(), two.detach())


MAKERS = {
    "pipe": lambda: Pair(*os.pipe()),
    "fifo": fifo,
    "tty": tty,
    "tty master": tty_reversed,
    "socket": sockets,
}


@pytest.fixture(params=MAKERS)
def pair(request):
    pair = MAKERS[request.param]()
    yield pair
    pair.close()


@pytest.fixture(params=["with RWF_NOWAIT", "without"])
def nowait(request, monkeypatch):
    """Kernels and descriptors without the flag have another way."""
    if request.param == "without":
        monkeypatch.setattr(reading, "NOWAIT", 0)
        monkeypatch.setattr(writing, "NOWAIT", 0)


READS = {
    "read": lambda fd, size: os.read(fd, size),  # noqa: PLW0108  # looked up when called: patched by then
    "readv": lambda fd, size: read_by_vector(fd, size),  # noqa: PLW0108  # defined below
    "preadv at the position": lambda fd, size: read_at_the_position(fd, size),  # noqa: PLW0108  # likewise
}


def read_by_vector(fd, size):
    buffers = [bytearray(size // 2), bytearray(size - size // 2)]
    count = os.readv(fd, buffers)
    return b"".join(buffers)[:count]


def read_at_the_position(fd, size):
    buffer = bytearray(size)
    return bytes(buffer[: os.preadv(fd, [buffer], -1)])


# --- reading


@pytest.mark.parametrize("read", READS.values(), ids=READS)
def test_only_the_reader_waits(pair, read, nowait):
    def root():
        with ThreadGroup() as group:
            reader = group.spawn(read, pair.reader, 10)
            time.sleep(5)
            assert not reader.done()
            os.write(pair.writer, b"data")
        assert b"data" == reader.result()
        assert os.get_blocking(pair.reader)
        assert os.get_blocking(pair.writer)
        return vthreads.now()

    assert 5.0 == virtual(root)


def test_a_read_takes_no_more_than_was_asked_for(pair, nowait):
    def root():
        os.write(pair.writer, b"0123456789")
        return [os.read(pair.reader, 4), os.read(pair.reader, 4), os.read(pair.reader, 4)]

    assert [b"0123", b"4567", b"89"] == virtual(root)


def test_the_end_of_the_other_side_ends_the_wait(nowait):
    def root():
        ends = []
        for pair in (Pair(*os.pipe()), fifo(), sockets()):
            with ThreadGroup() as group:
                reader = group.spawn(os.read, pair.reader, 10)
                os.close(pair.writer)
            ends.append(reader.result())
            pair.close()
        return ends

    assert [b"", b"", b""] == virtual(root)


def test_a_cancelled_read_has_taken_nothing(pair, nowait):
    def root():
        with vthreads.move_on_after(1) as scope:
            os.read(pair.reader, 10)
        assert scope.cancelled_caught
        os.write(pair.writer, b"kept")
        with vthreads.CancelScope() as scope:
            scope.cancel()
            os.read(pair.reader, 10)
        assert scope.cancelled_caught
        return os.read(pair.reader, 10)

    assert b"kept" == virtual(root)


def test_two_readers_of_one_descriptor_get_each_byte_once(pair, nowait):
    def root():
        with ThreadGroup() as group:
            readers = [group.spawn(os.read, pair.reader, 1) for _ in range(3)]
            for byte in (b"a", b"b", b"c"):
                time.sleep(1)
                os.write(pair.writer, byte)
        return sorted(reader.result() for reader in readers)

    assert [b"a", b"b", b"c"] == virtual(root)


def test_a_reader_whose_data_another_os_thread_takes_goes_on_waiting(nowait):
    def root():
        for pair in (Pair(*os.pipe()), fifo()):
            with ThreadGroup() as group:
                reader = group.spawn(os.read, pair.reader, 10)
                os.write(pair.writer, b"taken")
                # The reader has not run since.
                assert b"taken" == reading.original_read(pair.reader, 10)
                time.sleep(1)
                assert not reader.done()
                os.write(pair.writer, b"left")
            assert b"left" == reader.result()
            pair.close()

    virtual(root)


def test_closing_ends_the_wait_with_an_error_at_once(pair):
    def root():
        with ThreadGroup(on_failure="continue") as group:
            reader = group.spawn(os.read, pair.reader, 10)
            os.close(pair.reader)
            with pytest.raises(OSError, match="Bad file descriptor"):
                reader.result()
        return vthreads.now()

    assert 0.0 == virtual(root)


def test_a_closed_descriptor_is_gone_for_the_other_side_and_its_number_is_free():
    def root():
        reader, writer = os.pipe()
        with ThreadGroup() as group:
            end = group.spawn(os.read, reader, 10)
            os.close(writer)
            assert writer == os.dup(reader)
            assert b"" == end.result()
        os.close(reader)
        os.close(writer)

    virtual(root)


# --- non-blocking mode, mistakes, OS threads


def test_a_non_blocking_descriptor_never_waits_and_is_no_checkpoint(pair):
    def root():
        os.set_blocking(pair.reader, False)
        os.set_blocking(pair.writer, False)
        with vthreads.CancelScope() as scope:
            scope.cancel()
            for read in READS.values():
                with pytest.raises(BlockingIOError):
                    read(pair.reader, 10)
            with pytest.raises(BlockingIOError):
                while True:
                    os.write(pair.writer, b"x" * 4096)
            with pytest.raises(BlockingIOError):
                while True:
                    os.writev(pair.writer, [b"x" * 4096])
        assert not scope.cancelled_caught

    virtual(root)


MISTAKES = [
    lambda fd: os.read(fd, -1),
    lambda fd: os.read(fd, "1"),
    lambda fd: os.read(str(fd), 1),
    lambda fd: os.read(1_000_000, 1),
    lambda fd: os.read(fd, 1, 1),
    lambda fd: os.readv(fd, [b"read-only"]),
    lambda fd: os.readv(fd, 1),
    lambda fd: os.pread(fd, 1, 0),
    lambda fd: os.pread(fd, 1, -1),
    lambda fd: os.preadv(fd, [bytearray(1)], -2),
    lambda fd: os.preadv(fd, [bytearray(1)], 0),
    lambda fd: os.write(fd, "text"),
    lambda fd: os.write(fd, b"not for writing"),
    lambda fd: os.write(1_000_000, b""),
    lambda fd: os.writev(fd, [b"not for writing"]),
    lambda fd: os.writev(fd, ["text"]),
    lambda fd: os.write(fd),  # noqa: PLW0108  # looked up when called: patched by then
]


@pytest.mark.parametrize("mistake", MISTAKES, ids=range(len(MISTAKES)))
def test_mistakes_are_answered_as_by_the_original(mistake):
    reader, writer = os.pipe()
    with pytest.raises((OSError, TypeError, BufferError)) as expected:
        mistake(reader)

    def root():
        with pytest.raises(expected.type) as caught:
            mistake(reader)
        return caught.value

    caught = virtual(root)
    os.close(reader)
    os.close(writer)
    assert type(expected.value) is type(caught)
    assert getattr(expected.value, "errno", None) == getattr(caught, "errno", None)


def test_on_an_os_thread_the_read_blocks_and_the_virtual_threads_go_on(pair):
    def root():
        received = []
        os_thread = threading.Thread(target=lambda: received.append(os.read(pair.reader, 10)))
        os_thread.start()
        vthreads.sleep(0)
        os.write(pair.writer, b"data")
        os_thread.join()
        return received

    assert [b"data"] == virtual(root)


# --- writing


def filled(fd):
    """Fill `fd`; how much it took."""
    os.set_blocking(fd, False)
    count = 0
    # The kernel moves what a tty took on to the other side a little later, and there is room again.
    while wait_blocking(fd, WRITE, 0.05 if os.isatty(fd) else 0):
        for size in (4096, 128):
            try:
                while True:
                    count += writing.original_write(fd, b"x" * size)
            except BlockingIOError:
                pass
    os.set_blocking(fd, True)
    return count


def emptied(fd, count):
    while count:
        count -= len(os.read(fd, min(count, 65536)))


WRITES = {
    "write": lambda fd, data: os.write(fd, data),  # noqa: PLW0108  # looked up when called: patched by then
    "writev": lambda fd, data: os.writev(fd, [data[:10], data[10:]]),
}


@pytest.mark.parametrize("write", WRITES.values(), ids=WRITES)
def test_only_the_writer_waits(pair, write, nowait):
    def root():
        count = filled(pair.writer)
        with ThreadGroup() as group:
            writer = group.spawn(write, pair.writer, b"more" * 10)
            time.sleep(5)
            assert not writer.done()
            emptied(pair.reader, count)
            assert 40 == writer.result()
            received = b""
            while len(received) < 40:
                received += os.read(pair.reader, 100)
        assert b"more" * 10 == received
        return vthreads.now()

    assert 5.0 == virtual(root)


@pytest.mark.parametrize("write", WRITES.values(), ids=WRITES)
def test_a_long_write_goes_on_until_all_is_written(pair, write, nowait):
    data = os.urandom(300_000)

    def root():
        received = b""
        with ThreadGroup() as group:
            writer = group.spawn(write, pair.writer, data)
            while len(received) < len(data):
                received += os.read(pair.reader, 10_000)
        assert data == received
        return writer.result()

    assert len(data) == virtual(root)


def test_a_cancelled_write_has_written_nothing(pair, nowait):
    def root():
        count = filled(pair.writer)
        with vthreads.move_on_after(1) as scope:
            os.write(pair.writer, b"y" * 10)
        assert scope.cancelled_caught
        emptied(pair.reader, count)
        os.write(pair.writer, b"z")
        return os.read(pair.reader, 10)

    assert b"z" == virtual(root)


def test_a_write_that_is_cancelled_after_a_part_tells_the_part(pair, nowait):
    def root():
        written = []
        with vthreads.move_on_after(1) as scope:
            written.append(os.write(pair.writer, b"y" * 10_000_000))
            vthreads.checkpoint()
        assert scope.cancelled_caught
        emptied(pair.reader, *written)
        os.set_blocking(pair.reader, False)
        with pytest.raises(BlockingIOError):
            os.read(pair.reader, 1)

    virtual(root)


def test_a_write_that_is_interrupted_after_a_part_raises_at_once(nowait):
    def root():
        reader, writer = os.pipe()
        with ThreadGroup(on_failure="continue") as group:
            future = group.spawn(os.write, writer, b"y" * 1_000_000)
            future.thread.interrupt()
            with pytest.raises(vthreads.Interrupted):
                future.result()
        os.close(reader)
        os.close(writer)

    virtual(root)


def test_a_writer_learns_that_nobody_reads():
    def root():
        reader, writer = os.pipe()
        filled(writer)
        with ThreadGroup(on_failure="continue") as group:
            future = group.spawn(os.write, writer, b"y")
            os.close(reader)
            with pytest.raises(BrokenPipeError):
                future.result()
        os.close(writer)

    virtual(root)


def test_writers_of_whole_lines_do_not_mix_them(nowait):
    def root():
        pair = fifo()
        lines = [bytes([letter]) * 1000 + b"\n" for letter in b"abcdefgh"]
        received = b""
        with ThreadGroup() as group:
            for line in lines:
                group.spawn(lambda: [os.write(pair.writer, line) for _ in range(50)])
            while len(received) < 8 * 50 * 1001:
                received += os.read(pair.reader, 5000)
        pair.close()
        return set(received.splitlines(keepends=True)) - set(lines)

    assert set() == virtual(root)


# --- files on a disk


@pytest.fixture
def file():
    with tempfile.TemporaryFile() as file:
        file.write(bytes(range(256)) * 1000)
        file.flush()
        yield file.fileno()


@pytest.fixture(params=["cached", "not cached", "in memory"])
def cached(request, monkeypatch):
    """Where the data are; which of them the page cache holds is simulated."""
    if request.param == "not cached":

        def preadv(fd, buffers, offset, flags=0):
            if flags & reading.NOWAIT:
                raise BlockingIOError(11, "not cached")
            return os_preadv(fd, buffers, offset, flags)

        os_preadv = reading.original_preadv
        monkeypatch.setattr(reading, "original_preadv", preadv)
        monkeypatch.setattr(kinds, "is_in_memory", lambda _: False)
    if request.param == "in memory":
        monkeypatch.setattr(reading, "NOWAIT", 0)
        monkeypatch.setattr(kinds, "is_in_memory", lambda _: True)


def test_reads_of_a_file_move_its_position(file, cached):
    def root():
        os.lseek(file, 0, os.SEEK_SET)
        assert bytes(range(10)) == os.read(file, 10)
        assert bytes(range(10, 16)) == read_by_vector(file, 6)
        assert 16 == os.lseek(file, 0, os.SEEK_CUR)
        assert bytes(range(100, 110)) == os.pread(file, 10, 100)
        one, two = bytearray(3), bytearray(3)
        assert 6 == os.preadv(file, [one, two], 50)
        assert bytes(range(50, 56)) == one + two
        assert 16 == os.lseek(file, 0, os.SEEK_CUR)
        os.lseek(file, -3, os.SEEK_END)
        assert [b"\xfd\xfe\xff", b"", b""] == [os.read(file, 10) for _ in range(3)]

    virtual(root)


def test_two_readers_of_one_file_get_each_byte_once(file, cached):
    def root():
        os.lseek(file, 0, os.SEEK_SET)
        with ThreadGroup() as group:
            readers = [group.spawn(os.read, file, 64) for _ in range(4)]
        return b"".join(sorted(reader.result() for reader in readers))

    assert bytes(range(256)) == virtual(root)


def test_a_cancelled_read_of_a_file_does_not_move_its_position(file, monkeypatch):
    gate = threading.Event()

    def preadv(fd, buffers, offset, flags=0):
        if flags & reading.NOWAIT:
            raise BlockingIOError(11, "not cached")
        gate.wait()
        return os_preadv(fd, buffers, offset, flags)

    os_preadv = reading.original_preadv
    monkeypatch.setattr(reading, "original_preadv", preadv)
    monkeypatch.setattr(kinds, "is_in_memory", lambda _: False)

    def root():
        os.lseek(file, 5, os.SEEK_SET)
        buffer = bytearray(10)
        for call in (lambda: os.read(file, 10), lambda: os.readv(file, [buffer]), lambda: os.pread(file, 10, 0)):
            with vthreads.move_on_after(1) as scope:
                call()
            assert scope.cancelled_caught
        gate.set()
        assert bytes(10) == buffer
        return os.read(file, 3)

    assert b"\5\6\7" == virtual(root)


def test_writing_to_a_file_is_no_checkpoint(file):
    def root():
        with vthreads.CancelScope() as scope:
            scope.cancel()
            os.lseek(file, 0, os.SEEK_SET)
            assert 3 == os.write(file, b"abc")
            assert 3 == os.writev(file, [b"d", b"ef"])
            assert 1 == os.pwrite(file, b"A", 0)
        return os.pread(file, 6, 0)

    assert b"Abcdef" == virtual(root)


def test_directories_and_devices_answer_as_ever(nowait):
    def root():
        directory = os.open("/", os.O_RDONLY)
        with pytest.raises(IsADirectoryError):
            os.read(directory, 1)
        os.close(directory)
        for path, expected in (("/dev/null", b""), ("/dev/zero", bytes(5)), ("/proc/self/comm", None)):
            fd = os.open(path, os.O_RDONLY)
            answer = os.read(fd, 5)
            assert expected in (None, answer)
            os.close(fd)
        fd = os.open("/dev/full", os.O_WRONLY)
        with pytest.raises(OSError, match="No space left"):
            os.write(fd, b"x")
        os.close(fd)
        fd = os.open("/dev/null", os.O_WRONLY)
        assert 5 == os.write(fd, b"12345")
        os.close(fd)

    virtual(root)


# --- other descriptors


def test_an_eventfd_is_waited_for(nowait):
    def root():
        fd = os.eventfd(0)
        with ThreadGroup() as group:
            readers = [group.spawn(os.eventfd_read, fd), group.spawn(os.read, fd, 8)]
            time.sleep(1)
            os.eventfd_write(fd, 3)
            time.sleep(1)
            os.write(fd, struct.pack("Q", 4))
        assert 7 == readers[0].result() + struct.unpack("Q", readers[1].result())[0]
        os.eventfd_write(fd, 2**64 - 2)
        with ThreadGroup() as group:
            writer = group.spawn(os.eventfd_write, fd, 5)
            time.sleep(1)
            assert not writer.done()
            assert 2**64 - 2 == os.eventfd_read(fd)
        assert 5 == os.eventfd_read(fd)
        os.close(fd)
        return vthreads.now()

    assert 3.0 == virtual(root)


def test_an_eventfd_that_has_room_for_less_is_waited_for():
    def root():
        fd = os.eventfd(0)
        os.eventfd_write(fd, 2**64 - 10)
        with ThreadGroup() as group:
            writer = group.spawn(os.eventfd_write, fd, 100)
            time.sleep(1)
            assert not writer.done()
            # There is room for so much, and the number is the highest that fits.
            os.eventfd_write(fd, 8)
            time.sleep(1)
            assert not writer.done()
            assert 2**64 - 2 == os.eventfd_read(fd)
        assert 100 == os.eventfd_read(fd)
        os.close(fd)

    virtual(root)


@pytest.mark.thorough
@pytest.mark.everywhere
def test_a_cancelled_write_to_an_eventfd_has_added_nothing():
    def root():
        fd = os.eventfd(0)
        os.eventfd_write(fd, 2**64 - 10)
        with vthreads.move_on_after(3600) as scope:
            os.eventfd_write(fd, 100)
        assert scope.cancelled_caught
        assert 2**64 - 10 == os.eventfd_read(fd)
        os.close(fd)
        return vthreads.now()

    assert 3600.0 == virtual(root)


def test_what_no_eventfd_takes_is_refused_at_once():
    def root():
        fd = os.eventfd(0)
        # It has no room either.
        os.eventfd_write(fd, 2**64 - 2)
        os.eventfd_write(fd, 0)
        for value, error in ((2**64 - 1, OSError), (2**64, OverflowError), ("1", TypeError)):
            with pytest.raises(error):
                os.eventfd_write(fd, value)
        os.close(fd)

    virtual(root)


def test_an_os_thread_that_reads_an_eventfd_is_not_disturbed_by_the_writes():
    counted = []

    def read(fd, many):
        while sum(counted) < many:
            # The original: this is a plain OS thread.
            counted.append(os.eventfd_read(fd))

    def root():
        fd = os.eventfd(0)
        reader = threading.Thread(target=read, args=(fd, 2000))
        reader.start()
        for _ in range(1000):
            os.eventfd_write(fd, 2)
        reader.join()
        os.close(fd)

    virtual(root)
    assert 2000 == sum(counted)


def test_descriptors_without_a_function_in_os_are_waited_for(nowait):
    """Timers, directory watches, an epoll object's own number."""
    ctypes = pytest.importorskip("ctypes", reason="os has no function that makes a timer or a directory watch")
    libc = ctypes.CDLL(None, use_errno=True)

    def root():
        watch = libc.inotify_init1(0)
        folder = tempfile.mkdtemp()
        libc.inotify_add_watch(watch, os.fsencode(folder), 0x100)
        timer = libc.timerfd_create(time.CLOCK_MONOTONIC, 0)
        with ThreadGroup() as group:
            created = group.spawn(os.read, watch, 4096)
            expired = group.spawn(os.read, timer, 8)
            path = os.path.join(folder, "new")
            os.close(os.open(path, os.O_CREAT))
            libc.timerfd_settime(timer, 0, struct.pack("qqqq", 0, 0, 0, 1000), None)
        assert b"new" in created.result()
        assert 1 == struct.unpack("Q", expired.result())[0]
        os.close(watch)
        os.close(timer)
        os.unlink(path)
        os.rmdir(folder)

    virtual(root)


# --- from descriptor to descriptor


def test_splice_waits_for_its_source_and_for_its_destination():
    def root():
        source, destination = Pair(*os.pipe()), sockets()
        with ThreadGroup() as group:
            moved = group.spawn(os.splice, source.reader, destination.writer, 100)
            time.sleep(1)
            os.write(source.writer, b"data")
            assert 4 == moved.result()
            assert b"data" == os.read(destination.reader, 10)
            count = filled(destination.writer)
            os.write(source.writer, b"more")
            moved = group.spawn(os.splice, source.reader, destination.writer, 100)
            time.sleep(1)
            assert not moved.done()
            emptied(destination.reader, count)
            assert 4 == moved.result()
            assert b"more" == os.read(destination.reader, 10)
            moved = group.spawn(os.splice, destination.reader, source.writer, 100)
            time.sleep(1)
            os.write(destination.writer, b"back")
            assert 4 == moved.result()
        assert b"back" == os.read(source.reader, 10)
        assert os.get_blocking(destination.reader)
        assert os.get_blocking(destination.writer)
        source.close()
        destination.close()
        return vthreads.now()

    assert 3.0 == virtual(root)


def test_splice_leaves_a_socket_that_other_programs_share_in_its_mode(monkeypatch):
    original = os.set_blocking

    def set_blocking(fd, blocking):
        assert not os.get_inheritable(fd)
        original(fd, blocking)

    def root():
        source, destination = Pair(*os.pipe()), sockets()
        os.set_inheritable(destination.writer, True)
        os.set_inheritable(destination.reader, True)
        monkeypatch.setattr(os, "set_blocking", set_blocking)
        with ThreadGroup() as group:
            moved = group.spawn(os.splice, source.reader, destination.writer, 100)
            time.sleep(1)
            os.write(source.writer, b"data")
            assert 4 == moved.result()
            moved = group.spawn(os.splice, destination.reader, source.writer, 100)
            assert 4 == moved.result()
        assert b"data" == os.read(source.reader, 10)
        source.close()
        destination.close()

    virtual(root)


def test_a_splice_that_must_not_wait_does_not():
    def root():
        one, two = Pair(*os.pipe()), Pair(*os.pipe())
        with vthreads.CancelScope() as scope:
            scope.cancel()
            with pytest.raises(BlockingIOError):
                os.splice(one.reader, two.writer, 10, flags=os.SPLICE_F_NONBLOCK)
        assert not scope.cancelled_caught
        one.close()
        two.close()

    virtual(root)


def test_copy_file_range_copies(file):
    def root():
        with tempfile.TemporaryFile() as copy:
            assert 100 == os.copy_file_range(file, copy.fileno(), 100, 0)
            return os.pread(copy.fileno(), 200, 0)

    assert bytes(range(100)) == virtual(root)


def test_a_pipe_takes_what_fits_when_it_says_that_it_is_ready():
    """Else the rule by which FIFOs are written would block the carrier."""
    reader, writer = os.pipe()
    filled(writer)
    poll = select.poll()
    poll.register(writer, select.POLLOUT)
    assert [] == poll.poll(0)
    os.read(reader, 4096)
    assert poll.poll(0)
    assert select.PIPE_BUF == writing.original_write(writer, b"x" * select.PIPE_BUF)
    os.close(reader)
    os.close(writer)


@pytest.mark.parametrize("close", ["os.close", "behind the runtime", "os.dup2"])
def test_a_pipe_gets_its_data_where_an_earlier_pipe_with_its_number_was_read(close):
    def read_one(reader, writer):
        with ThreadGroup() as group:
            reading = group.spawn(os.read, reader, 10)
            wait_all_parked()
            os.write(writer, b"x")
        assert b"x" == reading.result()

    def root():
        reader, writer = os.pipe()
        read_one(reader, writer)
        new_reader, new_writer = os.pipe()
        if close == "os.dup2":
            os.dup2(new_reader, reader)
        else:
            (os.close if close == "os.close" else close_fd)(reader)
            assert reader == fcntl.fcntl(new_reader, fcntl.F_DUPFD_CLOEXEC, reader)
        for _ in range(3):
            read_one(reader, new_writer)
        for fd in reader, writer, new_reader, new_writer:
            os.close(fd)

    vthreads.run(root)
