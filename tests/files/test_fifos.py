"""`open` of a FIFO: it waits for the other side."""

from __future__ import annotations

import errno
import os
import pathlib
import tempfile
import time
import warnings

import pytest

import vthreads
from vthreads import ThreadGroup
from vthreads._os_threads.calls import calls_under_way
from vthreads.testing import VirtualClock


def virtual(fn):
    return vthreads.run(fn, clock=VirtualClock())


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


# Changes of the name of a FIFO while it is opened.
CHANGES = {
    "it is gone": pathlib.Path.unlink,
    "another one has it": exchange,
    "it is of another folder": lambda path: os.chdir(path.root),
}


@pytest.mark.skipif(not hasattr(os, "O_PATH"), reason="without O_PATH a FIFO can be identified by its name only")
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
        # The FIFO has a peer, so opening it does not wait.
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


def test_audit_hooks_hear_of_a_fifo_first_as_the_original_tells_it(fifo, run_script):
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


@pytest.mark.parametrize("opened", ["sys.argv[1]", "os.open(sys.argv[1], os.O_RDWR)"], ids=["opening", "reading"])
def test_the_interpreter_ends_though_a_cancelled_thread_was_in_a_fifo(fifo, opened, run_script):
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
