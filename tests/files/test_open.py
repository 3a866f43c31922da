"""`open`: what it returns is the standard library's, and only the virtual thread that reads or writes it waits."""

from __future__ import annotations

import builtins
import errno
import gc
import io
import os
import pathlib
import pickle
import subprocess
import sys
import tempfile
import textwrap
import threading
import time
import tty
import warnings

import pytest

import vthreads
from vthreads import ThreadGroup
from vthreads.files import kinds, reading
from vthreads.os_calls import calls_under_way
from vthreads.testing import VirtualClock


def virtual(fn):
    return vthreads.run(fn, clock=VirtualClock())


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"".join(b"line %d\n" % number for number in range(2000)))
    return path


@pytest.fixture
def fifo(tmp_path):
    path = tmp_path / "fifo"
    os.mkfifo(path)
    return path


@pytest.fixture(params=["cached", "not cached"])
def cached(request, monkeypatch):
    """Whether the page cache has what is read."""
    monkeypatch.setattr(kinds, "is_in_memory", lambda _: False)
    if request.param == "not cached":

        def preadv(fd, buffers, offset, flags=0):
            if flags & reading.NOWAIT:
                raise BlockingIOError(errno.EAGAIN, "not cached")
            return original(fd, buffers, offset, flags)

        original = reading.original_preadv
        monkeypatch.setattr(reading, "original_preadv", preadv)


def piped(mode="r", **options):
    """A file that reads from a pipe, and the descriptor that writes to it."""
    reader, writer = os.pipe()
    return open(reader, mode, **options), writer


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
                    # What is there is enough for some of them.
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


# --- FIFOs


def test_opening_a_fifo_waits_for_the_other_side():
    def check(fifo):
        def root():
            with ThreadGroup() as group:
                reader = group.spawn(lambda: read_whole(fifo))
                vthreads.sleep(0.01)
                assert not reader.done()
                with open(fifo, "w") as out:
                    out.write("data")
            assert "data" == reader.result()

        vthreads.run(root)

    with tempfile.TemporaryDirectory() as folder:
        fifo = os.path.join(folder, "fifo")
        os.mkfifo(fifo)
        check(fifo)


def read_whole(path):
    with open(path) as file:
        return file.read()


def open_in_its_folder(path):
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        return os.open(path.name, os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW, dir_fd=folder)
    finally:
        os.close(folder)


OPENS = {
    "open to read": lambda path: open(path),  # looked up when called: patched by then
    "open to write": lambda path: open(path, "w"),
    "open without a buffer": lambda path: open(path, "rb", 0),
    "pathlib": lambda path: path.open(),
    "pathlib.read_bytes": lambda path: path.read_bytes(),
    "os.open": lambda path: os.open(path, os.O_WRONLY),
    "os.open with dir_fd": open_in_its_folder,
}


@pytest.mark.parametrize("name", OPENS)
def test_a_cancelled_open_of_a_fifo_leaves_nothing(fifo, name):
    def root():
        with vthreads.move_on_after(1) as scope:
            OPENS[name](fifo)
        assert scope.cancelled_caught
        while calls_under_way():
            time.sleep(0.001)

    virtual(root)


def exchange(path):
    path.rename(path.with_name("moved"))
    os.mkfifo(path)


# What happens to the name of a FIFO while it is opened.
CHANGES = {
    "it is gone": pathlib.Path.unlink,
    "another one has it": exchange,
    "it is of another folder": lambda path: os.chdir(path.root),
}


@pytest.mark.skipif(not hasattr(os, "O_PATH"), reason="nothing but its name stands for a FIFO here")
@pytest.mark.parametrize("name", OPENS)
@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_a_cancelled_open_leaves_nothing_though_the_name_has_changed(fifo, name, change, monkeypatch):
    def root():
        before = os.listdir("/proc/self/fd")
        with ThreadGroup() as group:
            opening = group.spawn(OPENS[name], pathlib.Path(fifo.name))
            vthreads.sleep(0.01)
            change(fifo)
            opening.cancel()
        while calls_under_way():
            time.sleep(0.001)
        assert before == os.listdir("/proc/self/fd")

    # Back there at the end.
    monkeypatch.chdir(fifo.parent)
    vthreads.run(root)


def test_a_fifo_is_read_that_was_renamed_while_it_was_opened(fifo):
    def root():
        with ThreadGroup() as group:
            reader = group.spawn(read_whole, fifo)
            vthreads.sleep(0.01)
            exchange(fifo)
            with open(fifo.with_name("moved"), "w") as out:
                out.write("data")
        assert "data" == reader.result()

    vthreads.run(root)


@pytest.mark.parametrize("flags", [os.O_WRONLY, os.O_WRONLY | os.O_CREAT], ids=["existing", "to be created"])
def test_a_fifo_that_is_read_is_opened_to_write_in_blocking_mode(fifo, flags):
    def root():
        reader = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)
        writer = os.open(fifo, flags)
        assert os.get_blocking(writer)
        assert not os.get_inheritable(writer)
        os.close(reader)
        os.close(writer)

    virtual(root)


def test_an_opened_fifo_has_the_lowest_number_and_the_name_that_was_given(fifo):
    def root():
        # Somebody is there, so that nobody waits.
        peer = os.open(fifo, os.O_RDWR | os.O_NONBLOCK)
        lowest = os.dup(peer)
        os.close(lowest)
        for path in (fifo, os.fspath(fifo), os.fsencode(fifo)):
            fd = os.open(path, os.O_RDONLY)
            os.close(fd)
            with open(path, "rb", 0) as file:
                assert (lowest, os.fspath(path)) == (file.fileno(), file.name)
            assert lowest == fd
        os.close(peer)

    virtual(root)


# Flags with which a FIFO, or a link to one, is not opened.
REFUSED = {
    "it is there": ("fifo", os.O_WRONLY | os.O_CREAT | os.O_EXCL),
    "a link is there": ("link", os.O_WRONLY | os.O_CREAT | os.O_EXCL),
    "it is a link": ("link", os.O_RDONLY | os.O_NOFOLLOW),
    "it is a link to write": ("link", os.O_WRONLY | os.O_NOFOLLOW),
    "it is no folder": ("fifo", os.O_RDONLY | os.O_DIRECTORY),
    "it is no folder to write": ("fifo", os.O_WRONLY | os.O_DIRECTORY),
}


@pytest.mark.parametrize(("name", "flags"), REFUSED.values(), ids=REFUSED)
def test_a_fifo_is_refused_with_the_error_of_the_original(fifo, name, flags):
    fifo.with_name("link").symlink_to(fifo)

    def error():
        with pytest.raises(OSError) as caught:  # noqa: PT011  the two are compared
            os.open(fifo.with_name(name), flags)
        return type(caught.value), caught.value.errno, caught.value.filename, str(caught.value)

    assert error() == virtual(error)


def test_audit_hooks_hear_of_a_fifo_first_as_the_original_tells_it(fifo):
    out = run_script(
        """
        import os, sys, vthreads
        path, told, refused = sys.argv[1], [], []
        def hook(event, arguments):
            if event == "open" and path in arguments:
                told.append(arguments)
                if refused:
                    raise refused[0]
        sys.addaudithook(hook)
        def first_of(*arguments):
            told.clear()
            os.close(os.open(*arguments))
            return told[0]
        def opens():
            yield first_of(path, os.O_RDONLY)
            yield first_of(path, os.O_WRONLY | os.O_CREAT)
            told.clear()
            with open(path, "rb", 0):
                yield told[0]
        def refusal():
            refused[:] = [PermissionError("refused")]
            told.clear()
            try:
                os.open(path, os.O_RDONLY)
            except PermissionError as error:
                return error.args, len(told)
        peer = os.open(path, os.O_RDWR | os.O_NONBLOCK)
        plain = list(opens())
        os.write(1, repr((plain == vthreads.run(lambda: list(opens())), vthreads.run(refusal))).encode())
        """,
        str(fifo),
    )
    assert "(True, (('refused',), 1))" == out


def test_a_cancelled_open_of_a_fifo_is_no_peer_for_others(fifo):
    def root():
        for _ in range(20):
            with vthreads.move_on_after(1):
                open(fifo)
            with pytest.raises(OSError, match="No such device") as caught:
                os.open(fifo, os.O_WRONLY | os.O_NONBLOCK)
            assert errno.ENXIO == caught.value.errno

    virtual(root)


def test_a_fifo_that_stalls_its_reader_stalls_nobody_else(fifo):
    def root():
        ticks = []
        with ThreadGroup() as group:
            reader = group.spawn(lambda: list(open(fifo)))  # what ends it is the test
            group.spawn(lambda: [(time.sleep(1), ticks.append(vthreads.now())) for _ in range(3)])
            time.sleep(5)
            with open(fifo, "w") as out:
                out.write("one\n")
                out.flush()
                time.sleep(5)
                out.write("two\n")
        return reader.result(), len(ticks)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        assert (["one\n", "two\n"], 3) == virtual(root)


def run_script(script, *arguments):
    ended = subprocess.run(
        [sys.executable, "-W", "error", "-c", textwrap.dedent(script), *arguments],
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
    )
    assert "" == ended.stderr
    return ended.stdout


@pytest.mark.parametrize("opened", ["sys.argv[1]", "os.open(sys.argv[1], os.O_RDWR)"], ids=["opening", "reading"])
def test_the_interpreter_ends_though_a_cancelled_thread_was_in_a_fifo(fifo, opened):
    out = run_script(
        f"""
        import os, sys, vthreads
        def read():
            with open({opened}) as file:
                file.readline()
        with vthreads.ThreadGroup() as group:
            group.spawn(read)
            vthreads.sleep(0.01)
            group.cancel()
        os.write(1, b"ended")
        """,
        str(fifo),
    )
    assert "ended" == out


# --- files on a disk


def test_a_file_on_a_disk_is_read_as_ever(path, cached):
    expected = path.read_bytes()

    def root():
        with open(path, "rb") as file:
            assert b"line 0\n" == file.readline()
            assert 7 == file.tell()
            assert expected[7:17] == file.read(10)
            assert 100 == file.seek(100)
            assert expected[100:110] == into(file.readinto, 10)
            assert expected[110] == file.peek()[0]
            assert expected[110:] == file.read()
            assert b"" == file.read()
            assert 0 == file.seek(0)
            assert expected.splitlines(keepends=True) == list(file)
        with open(path) as file:
            assert expected.decode() == file.read()
            file.seek(0)
            assert "line 0\n" == file.readline()
            file.seek(file.tell())
            assert "line 1\n" == file.readline()
        with open(path, "rb", 0) as file:
            assert expected[:5] == file.read(5)
            assert expected[5:10] == into(file.readinto, 5)
            assert expected[10:] == file.readall()
        assert expected == path.read_bytes()

    virtual(root)


def test_a_file_that_is_read_and_written_is_read_and_written_as_ever(path, cached):
    def root():
        with open(path, "rb+") as file:
            assert b"line 0\n" == file.readline()
            file.write(b"LINE")
            assert b" 1\n" == file.readline()
            file.seek(-7, os.SEEK_CUR)
            assert b"LINE 1\n" == file.readline()
            assert b"line 2\n" == file.readline()
            file.seek(0, os.SEEK_END)
            file.write(b"end")
            file.seek(-5, os.SEEK_END)
            assert b"9\nend" == file.read()
            file.truncate(14)
        with open(path, "r+") as file:
            assert ["line 0\n", "LINE 1\n"] == file.readlines()
            file.write("text")
        assert b"line 0\nLINE 1\ntext" == path.read_bytes()

    virtual(root)


def test_a_cancelled_read_of_a_file_on_a_disk_does_not_move_it(path, monkeypatch):
    gate = threading.Event()

    def preadv(fd, buffers, offset, flags=0):
        if flags & reading.NOWAIT:
            raise BlockingIOError(errno.EAGAIN, "not cached")
        gate.wait()
        return original(fd, buffers, offset, flags)

    def root():
        with open(path, "rb") as file:
            # Nothing has been read ahead.
            file.seek(7)
            monkeypatch.setattr(reading, "original_preadv", preadv)
            for call in (lambda: file.read(10_000), file.read, lambda: file.readinto(bytearray(10_000))):
                with vthreads.move_on_after(1) as scope:
                    call()
                assert scope.cancelled_caught
                assert 7 == file.tell()
            gate.set()
            return file.readline()

    original = reading.original_preadv
    # Wherever temporary files are.
    monkeypatch.setitem(kinds._in_memory, path.stat().st_dev, False)
    assert b"line 1\n" == virtual(root)


def test_what_is_only_written_or_in_memory_is_the_original_s_own(path, monkeypatch):
    def root():
        with open(path.with_name("new"), "w") as file:
            assert io.BufferedWriter is type(file.buffer)
            assert io.FileIO is type(file.buffer.raw)
        monkeypatch.setattr("vthreads.files.opening.is_in_memory", lambda _: True)
        with open(path) as file:
            assert io.BufferedReader is type(file.buffer)

    virtual(root)


def test_a_forked_child_reads_a_file_that_somebody_was_reading():
    out = run_script(
        """
        import os, vthreads
        vthreads.patch()
        reader, writer = os.pipe()
        with open(reader, "rb") as file, vthreads.ThreadGroup() as group:
            line = group.spawn(file.readline)
            os.write(writer, b"par")
            vthreads.sleep(0.01)
            child = os.fork()
            if not child:
                os.write(writer, b"child\\n")
                os.write(1, file.readline())
                os._exit(0)
            # Without parking, or the parent's reader would take what is the child's.
            while os.waitpid(child, os.WNOHANG) == (0, 0):
                pass
            os.write(writer, b"ent\\n")
            os.close(writer)
            os.write(1, line.result())
        """
    )
    assert "child\nparent\n" == out


# --- compatibility


def test_open_is_one_function_under_all_its_names():
    def root():
        assert builtins.open is io.open is open
        assert pickle.loads(pickle.dumps(open)) is open
        assert ("open", "open") == (open.__name__, open.__qualname__)

    virtual(root)


def test_what_os_open_can_do_is_said_of_it_as_before():
    def root():
        return os.open in os.supports_dir_fd

    assert virtual(root)
    vthreads.unpatch()
    assert os.open in os.supports_dir_fd
    vthreads.patch()


SHAPES = [
    lambda path: open(path),
    lambda path: open(str(path), "rb"),
    lambda path: open(os.fsencode(path), "r+b"),
    lambda path: open(path, "rb", 0),
    lambda path: open(path, "r", 1, "latin-1", "replace", ""),
    lambda path: open(path, "tr", buffering=100, newline="\n"),
    lambda path: open(path, opener=lambda name, flags: os.open(name, flags)),  # a user's function
    lambda path: open(path, "ab", opener=os.open),
]


def described(file):
    layers = []
    while file is not None:
        layers.append(
            [repr(file), type(file).__name__, type(file).__module__, getattr(file, "mode", None), file.name]
            + [getattr(file, name, None) for name in ("encoding", "errors", "newlines", "line_buffering", "closefd")]
            + [file.fileno() > 2, file.isatty(), file.readable(), file.writable(), file.seekable(), file.closed]
        )
        file = getattr(file, "buffer", None) or getattr(file, "raw", None)
    return layers


@pytest.mark.parametrize("shape", SHAPES, ids=range(len(SHAPES)))
def test_a_file_describes_itself_as_the_original_does(path, shape):
    vthreads.unpatch()
    with shape(path) as file:
        expected = described(file)
        bases = [base for base in (io.TextIOWrapper, io.BufferedIOBase, io.RawIOBase) if isinstance(file, base)]

    def root():
        with shape(path) as file:
            assert all(isinstance(file, base) for base in bases)
            with pytest.raises(TypeError, match="cannot pickle"):
                pickle.dumps(file)
            return described(file)

    vthreads.patch()
    assert expected == virtual(root)


MISTAKES = [
    lambda path: open(path, "z"),
    lambda path: open(path, "rw"),
    lambda path: open(path, "rbt"),
    lambda path: open(path, ""),
    lambda path: open(path, "U"),
    lambda path: open(path, 5),
    lambda path: open(path, "rb", encoding="utf-8"),
    lambda path: open(path, "rb", newline="\n"),
    lambda path: open(path, "rb", errors="strict"),
    lambda path: open(path, "r", 0),
    lambda path: open(path, "r", -2, "no such encoding"),
    lambda path: open(path, newline="x"),
    lambda path: open(path, closefd=False),
    lambda path: open(path, "x"),
    lambda path: open(str(path) + "/not there"),
    lambda path: open("not there"),
    lambda path: open("/"),
    lambda path: open("nul\0byte"),
    lambda path: open(None),
    lambda path: open(-1),
    lambda path: open(1_000_000),
    lambda path: open(1.5),
    lambda path: open(path, "rb", "1"),
    lambda path: open(path, opener=lambda *_: -1),
    lambda path: open(path, opener=lambda *_: 1 / 0),
    lambda path: open(),
]


@pytest.mark.parametrize("mistake", MISTAKES, ids=range(len(MISTAKES)))
def test_mistakes_are_answered_as_by_the_original(path, mistake):
    def answer():
        try:
            mistake(path).close()
        except BaseException as error:
            return type(error), str(error), getattr(error, "filename", None)

    vthreads.unpatch()
    expected = answer()
    vthreads.patch()
    assert expected is not None
    if TypeError is expected[0]:
        assert TypeError is virtual(answer)[0]
    else:
        assert expected == virtual(answer)


@pytest.mark.parametrize("mode", ["r", "rb", "w", "r+"])
@pytest.mark.parametrize("buffering", [-1, 0])
def test_a_forgotten_file_is_warned_of_where_it_was_forgotten(path, mode, buffering):
    if not buffering and "b" not in mode:
        pytest.skip("text has a buffer")

    def root():
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            file = open(path, mode, buffering)  # the subject
            del file
            gc.collect()
        return [(warning.category, warning.filename) for warning in caught]

    assert [(ResourceWarning, __file__)] == virtual(root)


def test_opening_is_audited_once(path):
    out = run_script(
        """
        import sys, vthreads
        vthreads.patch()
        seen = []
        sys.addaudithook(lambda event, args: event == "open" and args[0] == sys.argv[1] and seen.append(args[1]))
        def root():
            for mode in ("r", "rb", "a", "r+"):
                open(sys.argv[1], mode).close()
        vthreads.run(root)
        print(seen)
        """,
        str(path),
    )
    # The original has the mode of the raw file, too.
    assert "['r', 'r', 'a', 'r+']\n" == out


def test_a_missing_encoding_is_warned_of_where_it_is_missing(path):
    ended = subprocess.run(
        [sys.executable, "-X", "warn_default_encoding", "-c", OPEN_WITHOUT_ENCODING, str(path)],
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
    )
    assert "<string>:3: EncodingWarning" in ended.stderr
    assert 1 == ended.stderr.count("EncodingWarning")


OPEN_WITHOUT_ENCODING = """import sys, vthreads
vthreads.patch()
open(sys.argv[1]).close()
"""


def test_temporary_files_and_pathlib_go_through_it(tmp_path):
    def root():
        with tempfile.TemporaryFile("w+", dir=tmp_path) as file:
            file.write("text")
            file.seek(0)
            assert "text" == file.read()
        with tempfile.NamedTemporaryFile(dir=tmp_path) as file:
            assert os.path.exists(file.name)
        (tmp_path / "text").write_text("more\n")
        assert "more\n" == pathlib.Path(tmp_path / "text").read_text()
        with os.fdopen(os.open(tmp_path / "text", os.O_RDONLY)) as file:
            assert ["more\n"] == list(file)

    virtual(root)


def test_the_pipes_of_a_child_process_are_read_while_others_run():
    def root():
        child = subprocess.Popen(["cat"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        with child, ThreadGroup() as group:
            line = group.spawn(child.stdout.readline)
            vthreads.sleep(0.01)
            assert not line.done()
            print("there and back", file=child.stdin, flush=True)
            assert "there and back\n" == line.result()

    vthreads.run(root)


def test_files_opened_meanwhile_work_after_unpatching(path):
    def root():
        return open(path), open(path, "rb+"), *piped("rb")

    text, both, file, writer = virtual(root)
    vthreads.unpatch()
    assert io.open is builtins.open is vthreads.files.opening.original_open
    with text, both, file:
        assert "line 0\n" == text.readline()
        assert b"line 0\n" == both.readline()
        os.write(writer, b"line\nrest")
        os.close(writer)
        assert [b"line\n", b"rest"] == [file.readline(), file.read()]
    vthreads.patch()
