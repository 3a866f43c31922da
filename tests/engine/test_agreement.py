"""Compiled classes and the Python classes that they replace: random programs have the same outcome with both.

Both run on whichever engine is chosen. The readable classes come from a second copy of their modules, read with nothing
compiled in it.
"""

from __future__ import annotations

import importlib.util
import itertools
from contextlib import contextmanager
from unittest import mock

import pytest
from hypothesis import given
from hypothesis import strategies as st

import vthreads
from vthreads import Cancelled, ThreadGroup
from vthreads._core import engine, semaphore, wait_queue
from vthreads._core.engine import reference
from vthreads.errors import Empty, Full, ShutDown
from vthreads.testing import VirtualClock

pytestmark = pytest.mark.skipif(
    engine.engine_name != "accelerated", reason="on the readable engine there is nothing compiled to compare with"
)


def readable(module, **given):
    """A copy of `module` in which everything is as it reads; `given` are the names that it finds there besides."""
    with mock.patch.multiple(engine, compiled=reference.compiled, supply=reference.supply):
        copied = importlib.util.module_from_spec(importlib.util.find_spec(module))
        copied.__spec__.loader.exec_module(copied)
    vars(copied).update(given)
    return copied


queues_of_readable = readable("vthreads._core.wait_queue").WaitQueue
readable_semaphores = readable("vthreads._core.semaphore", WaitQueue=queues_of_readable)
readable_locks = readable("vthreads._sync.locks", WaitQueue=queues_of_readable)
readable_queues = readable("vthreads._sync.queues", WaitQueue=queues_of_readable)


def test_the_copies_are_readable():
    for kind in (readable_locks.Lock, readable_locks.RLock, readable_semaphores.Semaphore, readable_queues._Exchange):
        assert hasattr(kind.__init__, "__code__")
        assert kind is not getattr(vthreads, kind.__name__, None)


# --- wait queues


class Waiter:
    def __init__(self, number, log):
        self.number = number
        self.log = log

    def _unpark(self, value):
        self.log.append((self.number, value))
        # One that has won elsewhere by now lets the next one have it.
        return self.number % 2 == 0


STEPS = st.lists(
    st.tuples(st.sampled_from(["add", "withdraw", "unpark_one", "unpark_all", "first"]), st.integers(0, 3))
)


def replies(kind, steps):
    log = []
    queue, waiters = kind(), [Waiter(number, log) for number in range(4)]
    for name, number in steps:
        given = {"add": waiters[number], "withdraw": waiters[number], "unpark_one": number, "unpark_all": number}
        answer = getattr(queue, name)(*([given[name]] if name in given else []))
        log.append((name, len(queue), answer.number if isinstance(answer, Waiter) else answer))
    return log


@given(steps=STEPS)
def test_wait_queues_agree(steps):
    assert replies(queues_of_readable, steps) == replies(wait_queue.WaitQueue, steps)


# --- what threads share

SECONDS = st.sampled_from([None, 0, 1, 2])
ANYTHING = st.one_of(
    st.tuples(st.just("sleep"), st.integers(0, 2)),
    st.tuples(st.just("cancel"), st.integers(0, 3)),
    st.tuples(st.just("interrupt"), st.integers(0, 3)),
    st.tuples(st.just("look"), st.none()),
)
TAKING = (
    st.tuples(st.just("take"), SECONDS) | st.tuples(st.just("try"), st.none()) | st.tuples(st.just("give"), st.none())
)
QUEUEING = st.one_of(
    st.tuples(st.just("put"), SECONDS),
    st.tuples(st.just("get"), SECONDS),
    st.tuples(st.just("shut down"), st.booleans()),
)


def programs(actions):
    return st.lists(st.lists(ANYTHING | actions, max_size=6), min_size=1, max_size=4)


def taken_and_given(thing):
    """The effect of the actions on a lock or a semaphore."""
    forever = None if hasattr(thing, "_take_or_queue") else -1
    return {
        "take": lambda seconds: thing.acquire(True, forever if seconds is None else seconds),
        "try": lambda _: thing.acquire(False),
        "give": lambda _: thing.release(),
        # Without the numbers of threads, which go on from run to run.
        "look": lambda _: {name: value for name, value in vars(thing.statistics()).items() if name != "owner"},
    }


def put_and_got(queue):
    """The effect of the actions on a queue: items are numbers, and some cannot be compared with the others."""
    items = itertools.cycle([3, 1, 2, "a", 5])
    return {
        "put": lambda seconds: queue.put(next(items), timeout=seconds),
        "get": lambda seconds: queue.get(timeout=seconds),
        "shut down": queue.shutdown,
        "look": lambda _: (repr(queue.statistics()), repr(queue), getattr(queue, "unfinished_tasks", None)),
    }


@contextmanager
def told(log, *entry):
    try:
        yield
    except (Cancelled, vthreads.Interrupted, Empty, Full, ShutDown, RuntimeError, TypeError, ValueError) as error:
        log.append((*entry, type(error).__name__))


def log_of(program, make, meanings):
    """The events that the threads of `program` see, in order: thread, action, answer or error, time."""
    log = []

    def perform(number, actions, calls, futures):
        for action, argument in actions:
            with told(log, number, action):
                if action == "cancel" and argument < len(futures):
                    futures[argument].cancel()
                elif action == "interrupt" and argument < len(futures):
                    futures[argument].thread and futures[argument].thread.interrupt()
                elif action == "sleep":
                    vthreads.sleep(argument)
                elif action in calls:
                    log.append((number, action, calls[action](argument), vthreads.now()))

    def root():
        calls = meanings(make())
        futures = []
        with ThreadGroup(on_failure="continue") as group, vthreads.move_on_after(10):
            for number, actions in enumerate(program):
                futures.append(group.spawn(perform, number, actions, calls, futures))
            vthreads.sleep(9)
            group.cancel()
        log.append(calls["look"](None))

    vthreads.run(root, clock=VirtualClock())
    return log


@given(kind=st.sampled_from(["Lock", "RLock"]), program=programs(TAKING))
def test_locks_agree(kind, program):
    outcomes = [log_of(program, getattr(module, kind), taken_and_given) for module in (readable_locks, vthreads)]
    assert outcomes[0] == outcomes[1]


@given(kind=st.sampled_from(["Semaphore", "BoundedSemaphore"]), permits=st.integers(0, 2), program=programs(TAKING))
def test_semaphores_agree(kind, permits, program):
    outcomes = [
        log_of(program, lambda module=module: getattr(module, kind)(permits), taken_and_given)
        for module in (readable_semaphores, semaphore)
    ]
    assert outcomes[0] == outcomes[1]


@given(
    kind=st.sampled_from(["Queue", "LifoQueue", "PriorityQueue"]), maxsize=st.integers(0, 2), program=programs(QUEUEING)
)
def test_queues_agree(kind, maxsize, program):
    outcomes = [
        log_of(program, lambda module=module: getattr(module, kind)(maxsize), put_and_got)
        for module in (readable_queues, vthreads)
    ]
    assert outcomes[0] == outcomes[1]
