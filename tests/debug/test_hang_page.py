"""The page about a hang: its program has both faults as described, and none after the fixes shown."""

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


# The output of the commands on the page, in this order: three dumps or tables of its service, then of other programs.
BLOCKS = re.findall(r"^```console\n(.*?)^```$", PAGE, re.M | re.S)


def shapes(text):
    """The lines of an output without what differs between two runs of the same program: numbers, times, folders."""
    text = text.replace("reference engine", "accelerated engine").replace("program.py", "service.py")
    text = re.sub(r"\b[\d.]+ (?:ms|s)\b", "TIME", re.sub(r"/\S*/", "", text))
    return [re.sub(r"0x\w+|[\d.]*\d", "N", line) for line in text.splitlines() if line and line[0] != "$"]


DIFFS = re.findall(r"^```diff\n(.*?)^```$", PAGE, re.M | re.S)


def dump_once(program, condition, times=None):
    """The text of its dump, as soon as that is as expected, or the last one of so many."""
    text = ""
    while not condition(text) and times != 0:
        assert program.process.poll() is None
        if list(Path(program.environment["XDG_RUNTIME_DIR"]).glob("vthreads/*.sock")):
            text = render(ask_process(program.pid, "dump"))
            # At the moment of a dump, the heartbeat may run.
            times = None if times is None else times - 1
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
    # The dump on the page ends with a line of dots: the other workers.
    shown = set(shapes(BLOCKS[0])) - {"      …"}
    assert shown <= set(shapes(dump_once(program, lambda text: shown <= set(shapes(text)), times=20)))


def test_the_second_hang_is_a_forgotten_task(start, served_here):
    program = start(mended(SERVICE, DIFFS[0]), VTHREADS_DEBUG="1")
    everybody_is_idle = "waits in Queue.get() of <Queue size=0 maxsize=0 getters=4 putters=0>"
    text = dump_once(program, lambda text: everybody_is_idle in text)
    assert "waits in Queue.join() of <Queue size=0" in text
    assert "DEADLOCK" not in text
    shown = shapes(BLOCKS[1])
    assert shown == shapes(dump_once(program, lambda text: shown == shapes(text), times=20))


def headings(table):
    return [line.split() for line in table.splitlines() if line.startswith(("carrier ", "parked for "))]


def test_top_has_the_columns_of_the_page(start, served_here):
    program = start(mended(SERVICE, DIFFS[0]), VTHREADS_DEBUG="1")
    dump_once(program, lambda text: "MainThread" in text)
    assert headings(BLOCKS[2]) == headings(program.look("top", "--once", "--interval", "0.1", "--slowest", "6"))


def test_mended_twice_it_ends(start):
    program = start(mended(mended(SERVICE, DIFFS[0]), DIFFS[1]))
    assert (0, "done\n", "") == program.finish()
