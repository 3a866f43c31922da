"""A finalizer or a signal handler may use a primitive during a call of its own thread on the same primitive.

It can run between any two lines. Each case runs it at every place in turn, and checks that the interrupted call still
ends with the right result. A lost wake-up would be a `DeadlockError`.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable
from pathlib import Path
from threading import BrokenBarrierError
from typing import Any, NamedTuple

import pytest

import vthreads
from vthreads import Barrier, ChannelClosed, DeadlockError, Event, Lock, RLock, Semaphore, ShutDown, ThreadGroup
from vthreads._calls.standard_locks import StandardLock, StandardRLock
from vthreads._core.current import running
from vthreads._core.engine import engine_name
from vthreads._sync.channels import Channel, receive_any
from vthreads._sync.local import local
from vthreads._sync.mutex import Mutex, RwLock
from vthreads._sync.queues import PriorityQueue, Queue, SimpleQueue
from vthreads._sync.statistics import RwLockStatistics
from vthreads.testing import VirtualClock

# A wait that cannot end is a DeadlockError, unless a signal handler is set, as pytest-timeout does: turn it off.
pytestmark = [pytest.mark.timeout(0), pytest.mark.unpatched]

PACKAGE = Path(vthreads.__file__).parent
# Where it may come: in what users call, and in what that is made of.
PLACES = {str(path) for folder in (".", "_core", "_sync", "_calls") for path in PACKAGE.glob(f"{folder}/*.py")}


class Intruder:
    """Calls `intrude` once, before the line number `place` of those in PLACES that the block executes."""

    def __init__(self, intrude: Callable[[], object], place: int, is_virtual: bool = True) -> None:
        self._intrude = intrude
        self._is_virtual = is_virtual
        self._places_before = place
        self._is_over = False
        # Where, or nowhere.
        self.came = ""

    def give_up(self) -> bool:
        """Come nowhere any more; whether it has not come yet."""
        self._is_over = True
        return not self.came

    def __enter__(self) -> None:
        self._before = sys.gettrace()
        sys.settrace(self._trace)

    def __exit__(self, *_: object) -> None:
        sys.settrace(self._before)

    def _trace(self, frame: Any, event: str, _: Any) -> Any:
        if frame.f_code.co_filename not in PLACES:
            return None
        # Inside the scheduler it would be on no thread. Once it was a deadlock, it is too late to come.
        thread = running()
        self._is_over = self._is_over or (thread is not None and thread._pending)
        if event == "line" and not self._is_over and (thread is not None) == self._is_virtual:
            if self._places_before == 0:
                self._is_over = True
                self.came = f"{frame.f_code.co_filename}:{frame.f_lineno}"
                self._intrude()
            self._places_before -= 1
        return self._trace


class Case(NamedTuple):
    call: Callable[[], object]
    intrude: Callable[[], object]
    # The value that is compared in the end, and the expected one.
    answer: Callable[[object], object]
    expected: object


CASES: dict[str, Callable[[], Case]] = {}


def case(make: Callable[[], Case]) -> Callable[[], Case]:
    CASES[make.__name__] = make
    return make


def outcome(call: Callable[[], object]) -> object:
    try:
        return call()
    except Exception as error:
        return type(error)


# --- an item is put, or a permit released, while a thread begins to wait


def putting_while_it_gets(kind):
    def make():
        items = kind()
        return Case(items.get, lambda: items.put(1, block=False), lambda got: (got, items.qsize()), (1, 0))

    return make


for kind in (SimpleQueue, Queue, PriorityQueue):
    CASES[f"put while {kind.__name__} gets"] = putting_while_it_gets(kind)


@case
def get_while_it_puts():
    items = Queue(1)
    items.put(1)
    return Case(lambda: items.put(2), items.get_nowait, lambda _: items.get_nowait(), 2)


@case
def shutdown_while_it_gets():
    items = Queue()
    return Case(lambda: outcome(items.get), items.shutdown, lambda answer: answer, ShutDown)


@case
def shutdown_while_it_puts():
    items = Queue(1)
    items.put(1)
    return Case(lambda: outcome(lambda: items.put(2)), items.shutdown, lambda answer: answer, ShutDown)


@case
def task_done_while_it_joins():
    items = Queue()
    items.put(1)
    return Case(items.join, items.task_done, lambda _: items.unfinished_tasks, 0)


@case
def release_while_a_semaphore_is_acquired():
    permits = Semaphore(0)
    return Case(permits.acquire, permits.release, lambda answer: (answer, permits.statistics().value), (True, 0))


@case
def set_while_an_event_is_waited_for():
    event = Event()
    return Case(event.wait, event.set, lambda answer: answer, True)


@case
def a_mutex_released_while_it_is_locked():
    mutex = Mutex([])
    held = mutex.lock()
    held.__enter__()
    return Case(
        lambda: enter_and_leave(mutex.lock()),
        lambda: held.__exit__(None, None, None),
        lambda _: mutex.statistics().locked,
        False,
    )


def release_while_it_is_acquired(kind):
    def make():
        lock = kind()
        lock.acquire()
        return Case(lock.acquire, lock.release, lambda answer: (answer, lock.locked()), (True, True))

    return make


for kind in (Lock, StandardLock):
    CASES[f"release while {kind.__name__} is acquired"] = release_while_it_is_acquired(kind)


@case
def abort_while_a_barrier_is_waited_for():
    barrier = Barrier(2)
    return Case(lambda: outcome(barrier.wait), barrier.abort, lambda answer: answer, BrokenBarrierError)


@case
def close_while_it_receives():
    channel = Channel()
    return Case(lambda: outcome(channel.receive), channel.close, lambda answer: answer, ChannelClosed)


@case
def close_while_it_sends():
    channel = Channel()
    return Case(lambda: outcome(lambda: channel.send(1)), channel.close, lambda answer: answer, ChannelClosed)


@case
def send_while_it_receives():
    channel = Channel(1)
    return Case(channel.receive, lambda: channel.send(1, 0), lambda got: (got, channel.statistics().buffered), (1, 0))


@case
def send_while_it_receives_from_any():
    one, two = Channel(1), Channel(1)
    return Case(
        lambda: receive_any(one, two)[1],
        lambda: two.send(1, 0),
        lambda got: (got, two.statistics().buffered),
        (1, 0),
    )


@case
def close_while_it_receives_from_any():
    one, two = Channel(1), Channel(1)
    two.close()
    return Case(lambda: outcome(lambda: receive_any(one, two)), one.close, lambda answer: answer, ChannelClosed)


def enter_and_leave(block):
    with block:
        pass


@case
def a_reader_leaves_while_a_writer_comes():
    lock = RwLock([])
    reader = lock.read()
    reader.__enter__()
    return Case(
        lambda: enter_and_leave(lock.write()),
        lambda: reader.__exit__(None, None, None),
        lambda _: lock.statistics(),
        RwLockStatistics(0, False, 0),
    )


@case
def a_writer_leaves_while_a_reader_comes():
    lock = RwLock([])
    writer = lock.write()
    writer.__enter__()
    return Case(
        lambda: enter_and_leave(lock.read()),
        lambda: writer.__exit__(None, None, None),
        lambda _: lock.statistics(),
        RwLockStatistics(0, False, 0),
    )


# --- the same is used once more in between, and is as before


def taken_in_between(kind):
    def make():
        lock = kind()
        return Case(
            lambda: enter_and_leave(lock), lambda: enter_and_leave(lock), lambda _: lock.statistics().locked, False
        )

    return make


for kind in (RLock, StandardRLock):
    CASES[f"{kind.__name__} taken in between"] = taken_in_between(kind)


def handed_over(kind):
    """Another thread waits for the lock that is released."""

    def make():
        lock, log = kind(), []

        def call():
            with ThreadGroup() as group:
                with lock:
                    group.spawn(lambda: (lock.acquire(), log.append("other"), lock.release()))

        def intrude():
            if lock.acquire(blocking=False):
                lock.release()

        return Case(call, intrude, lambda _: (log, lock.statistics().locked), (["other"], False))

    return make


# The standard locks have the names of those that they replace.
for name, kind in {"RLock": RLock, "StandardRLock": StandardRLock, "Lock": Lock, "StandardLock": StandardLock}.items():
    CASES[f"{name} tried in between"] = handed_over(kind)


@case
def a_semaphore_tried_in_between():
    permits = Semaphore(1)

    def intrude():
        if permits.acquire(blocking=False):
            permits.release()

    return Case(lambda: enter_and_leave(permits), intrude, lambda _: permits.statistics().value, 1)


@case
def put_while_it_puts():
    items = PriorityQueue()
    return Case(
        lambda: items.put(1),
        lambda: items.put(2),
        lambda _: (items.get(), items.get(), items.unfinished_tasks),
        (1, 2, 2),
    )


@case
def release_while_a_semaphore_is_released():
    permits = Semaphore(0)
    return Case(permits.release, permits.release, lambda _: permits.statistics().value, 2)


@case
def a_reader_leaves_while_another_leaves():
    lock = RwLock([])
    reader, other = lock.read(), lock.read()
    reader.__enter__()
    other.__enter__()

    def call():
        with ThreadGroup() as group:
            group.spawn(enter_and_leave, lock.write())
            group.spawn(enter_and_leave, lock.read())
            reader.__exit__(None, None, None)

    return Case(
        call, lambda: other.__exit__(None, None, None), lambda _: lock.statistics(), RwLockStatistics(0, False, 0)
    )


@case
def local_data_read_while_they_are_made():
    class Mine(local):
        def __init__(self):
            self.value = 1

    mine = Mine()

    def call():
        with ThreadGroup() as group:
            return group.spawn(lambda: mine.value).result()

    return Case(call, lambda: mine.__dict__, lambda answer: answer, 1)


def came_at(make: Callable[[], Case], place: int) -> str:
    def root() -> None:
        call, intrude, answer, expected = make()
        nonlocal intruder
        intruder = Intruder(intrude, place)
        with intruder:
            result = call()
        if intruder.came:
            assert expected == answer(result), f"wrong because of what came at {intruder.came}"

    intruder = Intruder(list, 0)
    try:
        vthreads.run(root, clock=VirtualClock(), patch=False)
    except (DeadlockError, ExceptionGroup) as error:
        # Without an intrusion nothing ends the wait: all places have been tried.
        if intruder.came:
            pytest.fail(f"{error}, because of what came at {intruder.came}")
    return intruder.came


@pytest.mark.parametrize("name", CASES)
def test_at_every_place(name):
    place = 0
    while came_at(CASES[name], place):
        place += 1
    # In a compiled call there may be no line at all.
    if engine_name == "reference":
        assert place > 3


# --- on an OS thread, which blocks where a virtual thread parks

# These start virtual threads, or wait for two things at once.
OF_VIRTUAL_THREADS = {
    "Lock tried in between",
    "RLock tried in between",
    "StandardLock tried in between",
    "StandardRLock tried in between",
    "a_reader_leaves_while_another_leaves",
    "local_data_read_while_they_are_made",
}
# Seconds after which an OS thread that is still alive is taken for one that nothing but the intrusion lets go on.
BLOCKED_AFTER = 0.5


def came_on_an_os_thread_at(make: Callable[[], Case], place: int) -> str:
    call, intrude, answer, expected = make()
    intruder = Intruder(intrude, place, is_virtual=False)
    results: list[object] = []

    def work() -> None:
        with intruder:
            results.append(call())

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    thread.join(BLOCKED_AFTER)
    if thread.is_alive() and intruder.give_up():
        # All places have been tried.
        intrude()
        thread.join(10)
        return ""
    thread.join(10)
    if intruder.came:
        assert not thread.is_alive(), f"blocked for good by what came at {intruder.came}"
        assert [True] == [expected == answer(result) for result in results], f"wrong by what came at {intruder.came}"
    return intruder.came


@pytest.mark.real
@pytest.mark.everywhere
@pytest.mark.thorough
@pytest.mark.parametrize("name", [name for name in CASES if name not in OF_VIRTUAL_THREADS])
def test_at_every_place_on_an_os_thread(name):
    place = 0
    while came_on_an_os_thread_at(CASES[name], place):
        place += 1
