"""Files on a disk: what the page cache has is read at once, and all else on an OS thread."""

from __future__ import annotations

import _io
import errno
import os
import threading

import pytest

import vthreads
from vthreads._calls.files import kinds, raw, reading
from vthreads.testing import VirtualClock


def virtual(fn):
    return vthreads.run(fn, clock=VirtualClock())


def into(call, size):
    buffer = bytearray(size)
    return bytes(buffer[: call(buffer)])


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


def test_the_rest_of_a_file_in_the_cache_is_read_at_once(path):
    def root():
        path.write_bytes(b"0123456789")
        with open(path, "rb", 0) as file:
            file.seek(4)
            assert b"456789" == reading.rest_in_cache(file.fileno())
            assert 10 == file.tell()
            # At the end there is no rest.
            assert reading.rest_in_cache(file.fileno()) is None
            file.seek(11)
            assert reading.rest_in_cache(file.fileno()) is None
            os.truncate(path, reading.LARGEST_REST + 4)
            file.seek(4)
            assert reading.rest_in_cache(file.fileno()) is None
            assert 4 == file.tell()
            file.seek(5)
            assert reading.LARGEST_REST - 1 == len(reading.rest_in_cache(file.fileno()))

    virtual(root)


def test_a_large_file_is_read_as_ever(path, cached):
    expected = bytes(range(256)) * 1024
    path.write_bytes(expected)

    def root():
        with open(path, "rb") as file:
            assert expected == file.read()
            assert b"" == file.read()
            file.seek(5)
            assert expected[5:200_000] == file.read(199_995)
            assert expected[200_000:] == file.read(None)

    virtual(root)


def test_a_raw_file_waits_for_its_data_after_a_read_through_its_buffer(path, cached):
    expected = path.read_bytes()

    def root():
        with open(path, "rb") as file:
            assert expected == file.read()
            with pytest.raises(TypeError):
                file.read("1")
            file.raw.seek(3)
            assert expected[3:] == file.raw.readall()
            file.raw.seek(3)
            assert expected[3:8] == file.raw.read(5)
            file.raw.seek(3)
            assert expected[3:8] == into(file.raw.readinto, 5)

    virtual(root)


def test_a_due_checkpoint_ends_a_read_of_the_cache_before_it_reads(path):
    expected = path.read_bytes()

    def root():
        with open(path, "rb") as file:
            with vthreads.CancelScope() as scope:
                scope.cancel()
                file.read()
            assert scope.cancelled_caught
            assert 0 == file.tell()
            assert expected == file.read()

    virtual(root)


def test_a_file_that_replaces_another_while_it_is_opened_is_waited_for_as_its_kind_needs(run_script, path):
    out = run_script(
        f"""
        import os, sys, vthreads
        from vthreads._calls.files import kinds

        def replace(event, arguments):
            if event == "open" and arguments[0] == {str(path)!r} and not os.path.islink({str(path)!r}):
                os.unlink({str(path)!r})
                os.symlink("/dev/null", {str(path)!r})

        def root():
            with open({str(path)!r}, "rb") as file:
                assert b"" == file.read()
                print(file.raw.kind.name)

        kinds._in_memory[os.stat({str(path)!r}).st_dev] = False
        sys.addaudithook(replace)
        vthreads.run(root)
        """
    )
    assert "POLLED" == out.strip()


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
            monkeypatch.setattr(raw.File, "_read_rest_at_once", lambda *_: None)
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
            assert _io.BufferedWriter is type(file.buffer)
            assert _io.FileIO is type(file.buffer.raw)
        monkeypatch.setitem(kinds._in_memory, path.stat().st_dev, True)
        with open(path) as file:
            assert _io.BufferedReader is type(file.buffer)

    virtual(root)


def test_a_forked_child_reads_a_file_that_somebody_was_reading(run_script):
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
