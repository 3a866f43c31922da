"""A finalizer comes at each place of the runtime and does each thing: it works or raises, and the place completes.

The collector comes after each number of allocations in turn, so that the finalizer comes at each step of a place.
"""

from __future__ import annotations

import gc
import os
import sys
from contextvars import ContextVar

import pytest

import vthreads
from vthreads import Cancelled, Event, Lock, ThreadGroup, current_thread, move_on_after, sleep
from vthreads._core.current import running
from vthreads.testing import VirtualClock

# A wait that lost its wake-up ends with a DeadlockError; the handler that reports a timeout could still unpark one.
pytestmark = [pytest.mark.timeout(0), pytest.mark.unpatched]

# A place that is reached by more allocations than this was reached by fewer as well.
ALLOCATIONS = range(1, 40)

variable: ContextVar[object] = ContextVar("variable")


class World:
    """What a finalizer uses: each has other threads that wait, on the same OS thread."""

    def __init__(self):
        self.lock, self.event, self.side = Lock(), Event(), None
        self.ended = []

    def __enter__(self):
        self._group = ThreadGroup()
        self._group.__enter__()
        self._group.spawn(self._hold)
        self._group.spawn(self._wait)
        self._group.spawn(self._enter_side)
        return self

    def _hold(self):
        with self.lock:
            sleep(0.01)

    def _wait(self):
        self.event.wait()
        self.ended.append("event")

    def _enter_side(self):
        with ThreadGroup() as self.side:
            self.side.spawn(Event().wait)
        self.ended.append("side")

    def __exit__(self, *error):
        self.event.set()
        self.side.cancel()
        self._group.__exit__(*error)
        assert sorted(self.ended) == ["event", "side"]
        assert not self.lock.locked()


# --- what the finalizer does


def spawns(world):
    assert vthreads.spawn(int).result is not None


def takes_a_held_lock(world):
    with world.lock:
        pass


def fails(world):
    raise ZeroDivisionError


ACTIONS = {
    "spawn": spawns,
    "sleep": lambda world: sleep(0.001),
    "yield": lambda world: sleep(0),
    "held lock": takes_a_held_lock,
    "set": lambda world: world.event.set(),
    "fail": fails,
    "cancel": lambda world: world.side.cancel(),
}


class Garbage:
    """A cycle, whose finalizer acts when the collector finds it, and records what came of it."""

    def __init__(self, action, world, came):
        self.myself, self.action, self.world, self.came = self, action, world, came

    def __del__(self):
        is_on_a_thread = running() is not None
        try:
            self.action(self.world)
        except RuntimeError:
            # No virtual thread runs inside the scheduler, so that a wait is refused there, and only there.
            self.came.append("wrong" if is_on_a_thread else "refused")
        except (ZeroDivisionError, Cancelled):
            # A wait in a cancelled scope, as that of any other code there.
            self.came.append("worked")
            raise
        else:
            self.came.append("worked")


# --- where it comes


def starts():
    with ThreadGroup() as group:
        futures = [group.spawn(sleep_and_return, number) for number in range(3)]
    return [future.result() for future in futures] == [0, 1, 2]


def sleep_and_return(number):
    mine = current_thread()
    variable.set([number])
    sleep(0.001)
    return number if current_thread() is mine else None


def ends():
    with ThreadGroup() as group:
        futures = [group.spawn(int, number) for number in range(3)]
        joined = group.spawn(sleep, 0.001).thread
        joined.join()
    return [future.result() for future in futures] == [0, 1, 2] and not joined.is_alive()


def switches():
    order = []

    def turns(number):
        for _ in range(2):
            order.append(number)
            sleep(0)

    with ThreadGroup() as group:
        for number in range(3):
            group.spawn(turns, number)
    return sorted(order) == [0, 0, 1, 1, 2, 2]


def waits_for_a_lock():
    lock, order = Lock(), []

    def takes(number):
        with lock:
            order.append(number)
            sleep(0.001)

    with ThreadGroup() as group:
        for number in range(3):
            group.spawn(takes, number)
    return sorted(order) == [0, 1, 2] and not lock.locked()


def leaves_scopes():
    with move_on_after(0.001) as outer, move_on_after(1) as inner:
        sleep(2)
    return outer.cancelled_caught and not inner.cancelled_caught


def leaves_groups():
    try:
        with ThreadGroup() as group:
            waiting = group.spawn(sleep, 1)
            group.spawn(divmod, 1, 0)
    except* ZeroDivisionError:
        pass
    return waiting.cancelled()


def runs_timers():
    began = vthreads.now()
    with ThreadGroup() as group:
        for number in range(3):
            group.spawn(sleep, number / 1000)
    return vthreads.now() - began > 0.0019


def polls():
    reading, writing = os.pipe()
    try:
        with ThreadGroup() as group:
            got = group.spawn(os.read, reading, 1)
            sleep(0)
            os.write(writing, b"x")
        return got.result() == b"x"
    finally:
        os.close(reading)
        os.close(writing)


PLACES = {
    "spawn": starts,
    "end of a thread": ends,
    "switch": switches,
    "wait for a lock": waits_for_a_lock,
    "exit of a scope": leaves_scopes,
    "exit of a group": leaves_groups,
    "timer": runs_timers,
    "poll": polls,
}


@pytest.mark.sampled(8)
@pytest.mark.everywhere
@pytest.mark.parametrize("action", ACTIONS)
@pytest.mark.parametrize("place", PLACES)
def test_a_finalizer_works_or_raises_and_the_place_completes(monkeypatch, place, action):
    # What the finalizer raises is nobody's failure.
    monkeypatch.setattr(sys, "unraisablehook", lambda unraisable: None)
    came, before = [], gc.get_threshold()

    def root():
        me = current_thread()
        for allocations in ALLOCATIONS:
            with World() as world:
                gc.collect(0)
                Garbage(ACTIONS[action], world, came)
                gc.set_threshold(allocations, 2, 2)
                try:
                    assert PLACES[place]()
                finally:
                    gc.set_threshold(*before)
                assert current_thread() is me
                # If it has not come yet, it comes here.
                gc.collect(1)

    gc.collect()
    # The objects of the tests need not be searched each time.
    gc.freeze()
    try:
        vthreads.run(root, clock=VirtualClock())
    finally:
        gc.unfreeze()
    assert len(came) == len(ALLOCATIONS)
    assert "wrong" not in came
    assert "worked" in came
