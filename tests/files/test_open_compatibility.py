"""`open` and its files do what the originals of the standard library do."""

from __future__ import annotations

import builtins
import gc
import io
import os
import pathlib
import pickle
import subprocess
import sys
import tempfile
import warnings

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


def test_open_is_one_function_under_all_its_names():
    def root():
        assert builtins.open is io.open is open
        assert pickle.loads(pickle.dumps(open)) is open
        assert ("open", "open") == (open.__name__, open.__qualname__)

    virtual(root)


@pytest.mark.thorough
@pytest.mark.everywhere
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


def test_files_describe_themselves_as_the_originals_do(path):
    vthreads.unpatch()
    expected, bases = [], []
    for shape in SHAPES:
        with shape(path) as file:
            expected.append(described(file))
            kinds = io.TextIOWrapper, io.BufferedIOBase, io.RawIOBase
            bases.append([base for base in kinds if isinstance(file, base)])

    def look(shape, bases):
        with shape(path) as file:
            assert all(isinstance(file, base) for base in bases)
            with pytest.raises(TypeError, match="cannot pickle"):
                pickle.dumps(file)
            return described(file)

    vthreads.patch()
    assert expected == virtual(lambda: list(map(look, SHAPES, bases)))


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


def test_mistakes_are_answered_as_by_the_original(path):
    def answer(mistake):
        try:
            mistake(path).close()
        except BaseException as error:
            # Only the class of a TypeError: its text names the function that was called.
            return type(error), *(
                () if isinstance(error, TypeError) else (str(error), getattr(error, "filename", None))
            )

    def answers():
        return [answer(mistake) for mistake in MISTAKES]

    vthreads.unpatch()
    expected = answers()
    vthreads.patch()
    assert None not in expected
    assert expected == virtual(answers)


@pytest.mark.sampled(1)
@pytest.mark.everywhere
@pytest.mark.usefixtures("collected")
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


def test_opening_is_audited_once(path, run_script):
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
        timeout=200,
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
    assert io.open is builtins.open is vthreads._calls.files.opening.original_open
    with text, both, file:
        assert "line 0\n" == text.readline()
        assert b"line 0\n" == both.readline()
        os.write(writer, b"line\nrest")
        os.close(writer)
        assert [b"line\n", b"rest"] == [file.readline(), file.read()]
    vthreads.patch()
