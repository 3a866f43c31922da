"""Files of pipes, FIFOs and ttys that `open` returns: only the virtual thread that reads or writes one waits."""

from __future__ import annotations

import errno
import os
import threading
import time
import tty

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


NUMBERS = b"".join(b"%04d\n" % number for number in range(100))


# --- reading from pipes, FIFOs, ttys

READS = {
    "read": (lambda file: file.read(8), b"12345678"),
    "read to the end": (lambda file: file.read(), b"12345678\n90"),
    "readall": (lambda file: file.readall(), b"12345678\n90"),
    "readline": (lambda file: file.readline(), b"12345678\n"),
    "readline up to a size": (lambda file: file.readline(5), b"12345"),
    "readlines": (lambda file: b"|".join(file.readlines()), b"12345678\n|90"),
    "iteration": (lambda file: b"|".join(iter(file)), b"12345678\n|90"),
    "read1": (lambda file: file.read1(100), b"123"),
    "read1 without a size": (lambda file: file.read1(), b"123"),
    "peek": (lambda file: file.peek(), b"123"),
    "readinto": (lambda file: into(file.readinto, 8), b"12345678"),
    "readinto1": (lambda file: into(file.readinto1, 8), b"123"),
}


def into(call, size):
    buffer = bytearray(size)
    return bytes(buffer[: call(buffer)])


@pytest.mark.parametrize("name", READS)
@pytest.mark.parametrize("buffering", [-1, 16, 0])
def test_only_the_reader_waits(name, buffering):
    read, expected = READS[name]
    if buffering == 0 and name.startswith(("read1", "peek", "readinto1")) or buffering and name == "readall":
        pytest.skip("this kind of file has no such method")

    def root():
        file, writer = piped("rb", buffering=buffering)
        with file, ThreadGroup() as group:
            reader = group.spawn(read, file)
            for piece in (b"123", b"4567", b"8\n9", b"0"):
                time.sleep(1)
                os.write(writer, piece)
            os.close(writer)
        return reader.result()

    answer = virtual(root)
    # Without a buffer one read of the file is one read of the descriptor.
    assert (b"123" if buffering == 0 and name in ("read", "readinto") else expected) == answer


@pytest.mark.parametrize("name", READS)
def test_a_cancelled_read_has_taken_nothing(name):
    read, _ = READS[name]
    if name == "readall":
        pytest.skip("files with a buffer have no such method")

    def root():
        file, writer = piped("rb")
        with file:
            os.write(writer, b"123")
            for seconds in (1, 0):
                with vthreads.move_on_after(seconds) as scope:
                    # The available data are enough for some of them.
                    read(file)
                    file.read()
                assert scope.cancelled_caught
            os.write(writer, b"456\n")
            os.close(writer)
            return file.read()

    answer = virtual(root)
    assert answer == (b"456\n" if name in ("read1", "read1 without a size", "readinto1") else b"123456\n")


def test_a_line_of_text_that_comes_in_pieces_is_one_line():
    def root():
        file, writer = piped(encoding="utf-8")
        with file, ThreadGroup() as group:
            lines = group.spawn(list, file)
            for piece in ("größ".encode()[:3], "größ".encode()[3:], b"e\r", b"\nand", b" more"):
                time.sleep(1)
                os.write(writer, piece)
            os.close(writer)
        return lines.result()

    assert ["größe\n", "and more"] == virtual(root)


def test_readers_of_one_file_get_whole_lines():
    def root():
        file, writer = piped("rb")
        with file:
            with ThreadGroup() as group:
                readers = [group.spawn(file.readline) for _ in range(3)]
                for piece in (b"o", b"ne\ntw", b"o\n", b"three\n"):
                    time.sleep(1)
                    os.write(writer, piece)
            os.close(writer)
        return [reader.result() for reader in readers]

    assert [b"one\n", b"two\n", b"three\n"] == virtual(root)


def test_a_file_in_non_blocking_mode_never_waits_and_is_no_checkpoint():
    def root():
        reader, writer = os.pipe()
        os.set_blocking(reader, False)
        os.set_blocking(writer, False)
        # Its buffer is smaller than the pipe, which the one of Python 3.14 is not.
        out = open(writer, "wb", buffering=8_192)
        with open(reader, "rb") as file, out, vthreads.CancelScope() as scope:
            scope.cancel()
            assert file.read() is None
            assert file.raw.read(5) is None
            out.write(b"line\n")
            out.flush()
            assert b"line\n" == file.readline()
            with pytest.raises(BlockingIOError) as caught:
                while True:
                    out.write(b"x" * 5000)
            assert errno.EAGAIN == caught.value.errno
            while file.read():
                pass
            out.flush()
        assert not scope.cancelled_caught

    virtual(root)


def test_an_end_that_a_tty_reports_is_one_end():
    def root():
        master, slave = os.openpty()
        with open(slave, "rb") as file, ThreadGroup() as group:
            first = group.spawn(file.readline)
            time.sleep(1)
            # Ctrl-D: the end of this input, but not of the terminal.
            os.write(master, b"\4")
            assert b"" == first.result()
            second = group.spawn(file.readline)
            time.sleep(1)
            os.write(master, b"line\n")
            assert b"line\n" == second.result()
        os.close(master)

    virtual(root)


def test_a_tty_is_read_and_written_through_open():
    def root():
        master, slave = os.openpty()
        tty.setraw(slave)
        with open(slave, "w") as file, open(master, "rb", closefd=False) as screen, ThreadGroup() as group:
            assert file.line_buffering
            assert not file.seekable()
            written = group.spawn(lambda: [print("line", number, file=file) for number in range(20_000)])
            shown = b"".join(screen.readline() for _ in range(20_000))
            written.result()
        os.close(master)
        return shown

    assert b"".join(b"line %d\n" % number for number in range(20_000)) == virtual(root)


def test_what_a_virtual_thread_opens_an_os_thread_may_read():
    def root():
        file, writer = piped("rb")
        lines = []
        os_thread = threading.Thread(target=lambda: lines.extend([file.readline(), file.read()]))
        os_thread.start()
        for piece in (b"li", b"ne\n", b"rest"):
            os.write(writer, piece)
            vthreads.sleep(0.01)
        os.close(writer)
        os_thread.join()
        file.close()
        return lines

    assert [b"line\n", b"rest"] == vthreads.run(root)


# --- writing to them


def test_only_the_writer_waits():
    def root():
        reader, writer = os.pipe()
        with open(reader, "rb") as file, open(writer, "w") as out, ThreadGroup() as group:
            group.spawn(lambda: (out.writelines(f"line {number}\n" for number in range(50_000)), out.close()))
            lines = file.readlines()
        return len(lines), lines[-1]

    assert (50_000, b"line 49999\n") == virtual(root)


def test_many_that_print_to_one_full_pipe_do_not_mix_their_lines():
    def root():
        reader, writer = os.pipe()
        lines = [letter * 500 for letter in "abcdefgh"]
        with open(reader) as file, open(writer, "w", buffering=1) as out:
            with ThreadGroup() as group:
                for line in lines:
                    group.spawn(lambda: [print(line, file=out) for _ in range(100)])
                shown = [file.readline().rstrip("\n") for _ in range(800)]
        return sorted(set(shown)), len(shown)

    assert ([letter * 500 for letter in "abcdefgh"], 800) == virtual(root)


def test_a_cancelled_write_tells_how_much_the_file_has_taken():
    def root():
        reader, writer = os.pipe()
        with open(reader, "rb") as file, open(writer, "wb") as out:
            with vthreads.move_on_after(1) as scope:
                try:
                    out.write(b"x" * 1_000_000)
                except vthreads.Cancelled as cancelled:
                    taken = cancelled.bytes_sent
                    raise
            assert scope.cancelled_caught
            with ThreadGroup() as group:
                group.spawn(out.close)
                return taken == len(file.read())

    assert virtual(root)


def test_a_cancelled_flush_keeps_what_it_had_to_write():
    def root():
        reader, writer = os.pipe()
        with open(reader, "rb") as file, open(writer, "wb") as out:
            for _ in range(16):
                os.write(writer, b"x" * 4096)
            out.write(b"kept")
            with vthreads.move_on_after(1) as scope:
                out.flush()
            assert scope.cancelled_caught
            with ThreadGroup() as group:
                group.spawn(out.close)
                return file.read()[65536:]

    assert b"kept" == virtual(root)


def test_closing_a_file_flushes_it_first_without_blocking_the_others():
    def root():
        reader, writer = os.pipe()
        with open(reader, "rb") as file, ThreadGroup() as group:
            out = open(writer, "wb", buffering=200_000)  # closed by the child
            out.write(b"x" * 150_000)
            group.spawn(out.close)
            return len(file.read())

    assert 150_000 == virtual(root)


def test_a_writer_learns_that_nobody_reads():
    def root():
        reader, writer = os.pipe()
        os.close(reader)
        with pytest.raises(BrokenPipeError):
            with open(writer, "w") as out:
                out.write("x")

    virtual(root)


# --- closing


@pytest.mark.parametrize("buffering", [-1, 0])
def test_closing_ends_the_wait_with_an_error_at_once(buffering):
    def root():
        file, writer = piped("rb", buffering=buffering)
        with ThreadGroup(on_failure="continue") as group:
            readers = [group.spawn(file.read, 10), group.spawn(file.readline)]
            file.close()
            errors = [type(reader.exception()) for reader in readers]
        assert {OSError, ValueError} >= set(errors)
        assert OSError is errors[0]
        os.close(writer)
        return vthreads.now()

    assert 0.0 == virtual(root)


def test_a_closed_file_is_gone_for_the_other_side_and_its_number_is_free():
    def root():
        numbers = set()
        for _ in range(5):
            file, writer = piped("rb")
            with open(writer, "wb") as out:
                out.write(b"x")
                numbers.add(out.fileno())
            assert b"x" == file.read()
            numbers.add(file.fileno())
            file.close()
        return len(numbers)

    assert 2 == virtual(root)
