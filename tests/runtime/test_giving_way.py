"""A runtime that was started by its first use, and `run` on the same OS thread afterwards."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

import vthreads
from vthreads import ThreadGroup
from vthreads._core import carrier, current
from vthreads._core.originals import get_ident
from vthreads.testing import VirtualClock

pytestmark = pytest.mark.real


def in_os_thread(fn):
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(fn).result()


def use_a_group():
    with ThreadGroup() as group:
        group.spawn(int)


def test_a_runtime_that_was_started_by_a_group_gives_way_to_run():
    def alternate():
        for number in range(3):
            use_a_group()
            lazily_started = vthreads.current_thread()
            assert number == vthreads.run(lambda: number, clock=VirtualClock())
            assert not lazily_started.is_alive()
            assert get_ident() not in current.carriers

    at_exit = threading._shutdown
    alternate()
    assert at_exit is threading._shutdown
    in_os_thread(alternate)
    assert {} == current.carriers
    assert {} == carrier.without_run


def test_a_runtime_with_something_left_does_not_give_way():
    def refused():
        with pytest.raises(RuntimeError, match="runs here already"):
            vthreads.run(lambda: None)

    def other():
        refused()
        in_background.set()

    def body():
        with vthreads.move_on_after(60):
            refused()
        with ThreadGroup() as group:
            refused()
            group.spawn(refused)
        future = vthreads.spawn(other)
        assert future.result() is None
        in_background.clear()
        future = vthreads.spawn(in_background.wait)
        refused()
        in_background.set()
        future.result()
        return vthreads.run(lambda: "at last")

    in_background = vthreads.Event()
    assert "at last" == in_os_thread(body)


def test_what_is_pending_is_raised_before_a_runtime_gives_way():
    def body():
        use_a_group()
        vthreads.current_thread().interrupt(KeyError("pending"))
        with pytest.raises(KeyError, match="pending"):
            vthreads.run(lambda: None)
        return vthreads.run(lambda: "then")

    assert "then" == in_os_thread(body)
