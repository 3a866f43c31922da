"""`sys.stdin` and `input()`: who waits for the user keeps nobody else waiting."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
import tty

import pytest


def start(script, stdin, **options):
    return subprocess.Popen(
        [sys.executable, "-W", "error", "-X", "utf8", "-c", textwrap.dedent(script)],
        stdin=stdin,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        encoding="utf-8",
        **options,
    )


def told(script, given):
    """What `script` prints when it gets the pieces of `given` through a pipe, the next once it has printed a line."""
    with start(script, subprocess.PIPE) as child:
        lines = []
        for number, piece in enumerate(given):
            if number:
                lines.append(child.stdout.readline())
            child.stdin.write(piece)
            child.stdin.flush()
        out, errors = child.communicate(timeout=200)
        assert "" == errors
        return "".join(lines) + out


TICKING = """
import sys, vthreads
vthreads.patch()
def tick(other):
    ticks = 0
    while not other.done():
        vthreads.sleep(0.001)
        ticks += 1
        if ticks == 5:
            print("others run", flush=True)
def root(read):
    with vthreads.ThreadGroup() as group:
        reader = group.spawn(read)
        group.spawn(tick, reader)
    return reader.result()
"""

READS = {
    "input": "input()",
    "readline": "sys.stdin.readline().rstrip()",
    "iteration": "next(iter(sys.stdin)).rstrip()",
    "the buffer": "sys.stdin.buffer.readline().decode().rstrip()",
    "captured": "captured().rstrip()",
    "os.read": "__import__('os').read(0, 100).decode().rstrip()",
    "fileinput": "next(iter(__import__('fileinput').input('-'))).rstrip()",
}


@pytest.mark.sampled(2)
@pytest.mark.parametrize("name", READS)
def test_only_the_reader_of_a_pipe_waits(name):
    script = f"import sys\nfrom sys import stdin\ndef captured(): return stdin.readline()\n{TICKING}"
    out = told(script + f"print(root(lambda: {READS[name]}))", ["", "größe\n"])
    assert "others run\ngröße\n" == out


def test_what_was_read_ahead_before_is_not_lost():
    out = told(
        """
        import sys
        first = sys.stdin.readline()
        import vthreads
        def root():
            return [first, input(), sys.stdin.readline(), sys.stdin.read()]
        print(vthreads.run(root))
        """,
        ["one\ntwo\nthree\nfour, größe"],
    )
    assert "['one\\n', 'two', 'three\\n', 'four, größe']\n" == out


def test_the_end_of_input_is_an_error_for_input():
    out = told(
        """
        import vthreads
        def root():
            try:
                input("prompt> ")
            except EOFError:
                return "EOF"
        print(vthreads.run(root))
        """,
        [],
    )
    assert "prompt> EOF\n" == out


def test_a_cancelled_read_leaves_the_line_to_the_next():
    out = told(
        """
        import sys, vthreads
        def root():
            with vthreads.move_on_after(0.01) as scope:
                input()
            print("cancelled" if scope.cancelled_caught else "read", flush=True)
            return input()
        print(vthreads.run(root))
        """,
        ["", "kept\n"],
    )
    assert "cancelled\nkept\n" == out


def test_it_looks_as_before_and_is_blocking_as_before():
    script = """
        import os, sys
        def look():
            file = sys.stdin
            return [repr(layer) for layer in (file, file.buffer, file.buffer.raw)] + [
                file.encoding, file.errors, file.line_buffering, file.isatty(), file.fileno(), os.get_blocking(0),
                file.name, file.mode, sys.__stdin__ is file, type(file).__name__, type(file.buffer.raw).__name__]
        before = look()
        import vthreads
        vthreads.patch()
        after = look()
        print("same" if before == after else [before, after])
        """
    assert "same\n" == told(script, [])


@pytest.mark.parametrize(
    "instead", ["None", "io.StringIO('line\\n')", "open(os.devnull)"], ids=["None", "StringIO", "a file"]
)
def test_what_the_user_put_there_stays(instead):
    script = f"""
        import io, os, sys, vthreads
        mine = sys.stdin = {instead}
        def root():
            assert sys.stdin is mine
            try:
                return input()
            except (RuntimeError, EOFError) as error:
                return type(error).__name__
        print(vthreads.run(root))
        if mine is not None:
            mine.close()
        """
    expected = {"None": "RuntimeError\n", "io.StringIO('line\\n')": "line\n"}.get(instead, "EOFError\n")
    assert expected == told(script, [])


def test_a_closed_standard_input_stays_closed():
    script = """
        import sys, vthreads
        vthreads.patch()
        print(sys.stdin)
        """
    with start(script, None, preexec_fn=lambda: os.close(0)) as child:
        assert ("None\n", "") == child.communicate(timeout=200)


def test_the_interpreter_ends_though_somebody_waited_for_input():
    script = """
        import os, vthreads
        with vthreads.ThreadGroup() as group:
            group.spawn(input)
            vthreads.sleep(0.01)
            group.cancel()
        os.write(1, b"ended")
        """
    with start(script, subprocess.PIPE) as child:
        assert "ended" == child.stdout.read(5)
        assert 0 == child.wait(20)
        child.stdin.close()
        assert "" == child.stderr.read()


def test_input_on_a_terminal_shows_its_prompt_and_keeps_nobody_waiting():
    master, slave = os.openpty()
    tty.setraw(slave)
    script = TICKING.replace('print("others run", flush=True)', 'print("others run", file=sys.stderr, flush=True)')
    child = subprocess.Popen(
        [sys.executable, "-c", script + "\nprint(root(lambda: input('name? ')), file=sys.stderr)"],
        stdin=slave,
        stdout=slave,
        stderr=subprocess.PIPE,
    )
    os.close(slave)
    with child:
        assert b"others run\n" == child.stderr.readline()
        assert b"name? " == os.read(master, 100)
        os.write(master, b"somebody\n")
        assert b"somebody\n" == child.stderr.readline()
        assert 0 == child.wait(20)
    os.close(master)
