"""The page "Debug a hang": its program has both faults as described, and none after the fixes shown."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from vthreads.debug._client import ask_process
from vthreads.debug._text import render

pytestmark = [pytest.mark.real, pytest.mark.unpatched]

PAGE = (Path(__file__).parents[2] / "docs" / "how-to" / "debug-a-hang.md").read_text()
SERVICE = re.search(r"^```py\n(.*?)^```$", PAGE, re.M | re.S)[1]
# The runtime reports the circle of locks within 2 s, which ends the service: a busy machine may need longer for a dump.
WITHOUT_REPORT = "from vthreads.debug import _lock_circles\n_lock_circles.LOOK_EVERY = 600\n"


def mended(program, diff):
    """`program` with one of the page's changes: the lines that go, as a block, become those that come."""
    kept = [line for line in diff.splitlines() if not line.startswith("+")]
    made = [line for line in diff.splitlines() if not line.startswith("-")]
    before, after = ("\n".join(line[1:] for line in lines) for lines in (kept, made))
    assert 1 == program.count(before)
    return program.replace(before, after)


DIFFS = re.findall(r"^```diff\n(.*?)^```$", PAGE, re.M | re.S)


def dump_once(program, condition):
    """The text of its dump, as soon as that is as expected."""
    text = ""
    while not condition(text):
        assert program.process.poll() is None
        if list(Path(program.environment["XDG_RUNTIME_DIR"]).glob("vthreads/*.sock")):
            text = render(ask_process(program.pid, "dump"))
    return text


@pytest.fixture
def served_here(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))


def test_the_first_hang_is_a_circle_of_two_locks(start, served_here):
    program = start(WITHOUT_REPORT + SERVICE, VTHREADS_DEBUG="1")
    text = dump_once(program, lambda text: "DEADLOCK" in text)
    circle = text[text.index("DEADLOCK") :].splitlines()[1:3]
    assert "in pack at" in circle[0] + circle[1]
    assert "in charge at" in circle[0] + circle[1]


def test_the_second_hang_is_a_forgotten_task(start, served_here):
    program = start(mended(SERVICE, DIFFS[0]), VTHREADS_DEBUG="1")
    everybody_is_idle = "waits in Queue.get() of <Queue size=0 maxsize=0 getters=4 putters=0>"
    text = dump_once(program, lambda text: everybody_is_idle in text)
    assert "waits in Queue.join() of <Queue size=0" in text
    assert "DEADLOCK" not in text


def test_mended_twice_it_ends(start):
    program = start(mended(mended(SERVICE, DIFFS[0]), DIFFS[1]))
    assert (0, "done\n", "") == program.finish()
