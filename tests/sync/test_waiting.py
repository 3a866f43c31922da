"""Guarantees of every primitive for waiting threads: the same tests for all of them.

A case is one way to wait. `wait` parks until `wake` is called; one `wake` ends one wait, or all where the primitive
does so. `expires(seconds)` waits with a timeout and returns whether it expired; `tries` are the forms that never wait.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from threading import BrokenBarrierError

import pytest

import vthreads
from vthreads import (
    Barrier,
    BoundedSemaphore,
    Cancelled,
    CancelScope,
    Condition,
    Empty,
    Event,
    Full,
    Interrupted,
    Lock,
    RLock,
    Semaphore,
    ThreadGroup,
    now,
    sleep,
)
from vthreads._calls.standard_locks import ConditionWaiterLock, StandardLock, StandardRLock
from vthreads._sync.channels import Channel, receive_any
from vthreads._sync.mutex import Mutex, RwLock
from vthreads._sync.queues import LifoQueue, PriorityQueue, Queue, SimpleQueue

pytestmark = pytest.mark.unpatched


@dataclass
class Case:
    wait: Callable[[], object]
    wake: Callable[[], object]
    waiting: Callable[[], int]
    expires: Callable[[float], bool] | None = None
    tries: tuple[Callable[[], object], ...] = ()
    wakes_all: bool = False
    # Waiters beside the one of a test that it takes to be woken at all.
    spare: bool = True


CASES: dict[str, Callable[[], Case]] = {}


def case(make: Callable[[], Case]) -> Callable[[], Case]:
    CASES[make.__name__] = make
    return make


def raises(error: type[BaseException], call: Callable[[], object]) -> bool:
    try:
        call()
    except error:
        return True
    return False


# --- sync


def locked(lock):
    lock.acquire()
    return Case(
        wait=lock.acquire,
        wake=lock.release,
        waiting=lambda: lock.statistics().waiting,
        expires=lambda seconds: not lock.acquire(timeout=seconds),
        tries=(lambda: lock.acquire(blocking=False), lambda: lock.acquire(timeout=0)),
    )


for kind in (Lock, StandardLock, RLock, StandardRLock, ConditionWaiterLock):
    CASES[kind.__name__] = lambda kind=kind: locked(kind())


def semaphore(permits):
    return Case(
        wait=permits.acquire,
        wake=permits.release,
        waiting=lambda: permits.statistics().waiting,
        expires=lambda seconds: not permits.acquire(timeout=seconds),
        tries=(lambda: permits.acquire(blocking=False), lambda: permits.acquire(timeout=0)),
    )


CASES["Semaphore"] = lambda: semaphore(Semaphore(0))


@case
def bounded_semaphore():
    permits = BoundedSemaphore(1)
    permits.acquire()
    return semaphore(permits)


def condition(condition):
    def wait(timeout=None):
        with condition:
            return condition.wait(timeout)

    def wake():
        # `with condition:` would be a checkpoint, and some wake after they have been cancelled.
        while not condition.acquire(blocking=False):
            sleep(0)
        condition.notify()
        condition.release()

    def try_it():
        assert condition.acquire(blocking=False)
        assert not condition.wait(0)
        condition.release()

    return Case(
        wait=wait,
        wake=wake,
        waiting=lambda: condition.statistics().waiting,
        expires=lambda seconds: not wait(seconds),
        tries=(try_it,),
    )


CASES["Condition"] = lambda: condition(Condition())
CASES["Condition of a Lock"] = lambda: condition(Condition(Lock()))


@case
def event():
    event = Event()
    return Case(
        wait=event.wait,
        wake=event.set,
        waiting=lambda: event.statistics().waiting,
        expires=lambda seconds: not event.wait(seconds),
        tries=(lambda: event.wait(0), event.clear),
        wakes_all=True,
    )


@case
def barrier():
    barrier = Barrier(2)
    return Case(
        wait=barrier.wait,
        wake=lambda: barrier.wait(0),
        waiting=lambda: barrier.statistics().waiting,
        expires=lambda seconds: raises(BrokenBarrierError, lambda: barrier.wait(seconds)),
        tries=(lambda: raises(BrokenBarrierError, lambda: barrier.wait(0)),),
        spare=False,
    )


# --- mutex


def entered(block):
    with block:
        pass


@case
def mutex():
    mutex = Mutex([])
    held = mutex.lock()
    held.__enter__()

    def try_it():
        assert mutex.try_lock() is None

    return Case(
        wait=lambda: entered(mutex.lock()),
        wake=lambda: held and held.__exit__(None, None, None),
        waiting=lambda: mutex.statistics().waiting,
        expires=lambda seconds: raises(TimeoutError, lambda: entered(mutex.lock(seconds))),
        tries=(try_it, lambda: raises(TimeoutError, lambda: entered(mutex.guard(0)))),
        wakes_all=True,
    )


def read_write(take, held):
    held.__enter__()
    return Case(
        wait=lambda: entered(take()),
        wake=lambda: held.__exit__(None, None, None),
        waiting=lambda: held._lock.statistics().waiting,
        expires=lambda seconds: raises(TimeoutError, lambda: entered(take(seconds))),
        tries=(lambda: raises(TimeoutError, lambda: entered(take(0))),),
        wakes_all=True,
    )


@case
def reading():
    lock = RwLock([])
    return read_write(lock.read, lock.write())


@case
def writing():
    lock = RwLock([])
    return read_write(lock.write, lock.read())


# --- queues


def getting(items):
    return Case(
        wait=items.get,
        wake=lambda: items.put(1, block=False),
        waiting=lambda: items.statistics().getters,
        expires=lambda seconds: raises(Empty, lambda: items.get(timeout=seconds)),
        tries=(
            lambda: raises(Empty, items.get_nowait),
            lambda: raises(Empty, lambda: items.get(block=False)),
            lambda: raises(Empty, lambda: items.get(timeout=0)),
            items.empty,
        ),
    )


def putting(items):
    items.put(1)
    return Case(
        wait=lambda: items.put(1),
        wake=items.get_nowait,
        waiting=lambda: items.statistics().putters,
        expires=lambda seconds: raises(Full, lambda: items.put(1, timeout=seconds)),
        tries=(
            lambda: raises(Full, lambda: items.put_nowait(1)),
            lambda: raises(Full, lambda: items.put(1, block=False)),
            lambda: raises(Full, lambda: items.put(1, timeout=0)),
            items.full,
        ),
    )


for kind in (Queue, LifoQueue, PriorityQueue, SimpleQueue):
    CASES[f"{kind.__name__}.get"] = lambda kind=kind: getting(kind())
for kind in (Queue, LifoQueue, PriorityQueue):
    CASES[f"{kind.__name__}.put"] = lambda kind=kind: putting(kind(1))


@case
def joining():
    items = Queue()
    items.put(1)
    return Case(wait=items.join, wake=items.task_done, waiting=lambda: items.statistics().joiners, wakes_all=True)


# --- channels


@case
def receiving():
    channel = Channel()
    return Case(
        wait=channel.receive,
        wake=lambda: raises(TimeoutError, lambda: channel.send(1, timeout=0)),
        waiting=lambda: channel.statistics().receivers,
        expires=lambda seconds: raises(TimeoutError, lambda: channel.receive(timeout=seconds)),
        tries=(lambda: raises(TimeoutError, lambda: channel.receive(timeout=0)),),
    )


def sending(channel):
    return Case(
        wait=lambda: channel.send(1),
        wake=lambda: raises(TimeoutError, lambda: channel.receive(timeout=0)),
        waiting=lambda: channel.statistics().senders,
        expires=lambda seconds: raises(TimeoutError, lambda: channel.send(1, timeout=seconds)),
        tries=(lambda: raises(TimeoutError, lambda: channel.send(1, timeout=0)),),
    )


@case
def sending_to_a_receiver():
    return sending(Channel())


@case
def sending_into_a_full_buffer():
    channel = Channel(1)
    channel.send(1)
    return sending(channel)


@case
def receiving_from_any():
    first, second = Channel(), Channel(2)
    return Case(
        wait=lambda: receive_any(first, second),
        wake=lambda: raises(TimeoutError, lambda: first.send(1, timeout=0)),
        waiting=lambda: max(first.statistics().waiting, second.statistics().waiting),
        expires=lambda seconds: raises(TimeoutError, lambda: receive_any(first, second, timeout=seconds)),
        tries=(lambda: raises(TimeoutError, lambda: receive_any(first, second, timeout=0)),),
    )


def test_every_primitive_has_a_case():
    primitives = {name for name in vthreads.__all__ if hasattr(getattr(vthreads, name), "statistics")}
    assert set() == primitives - globals().keys(), "import it here, and add a case for each way to wait for it"


@pytest.fixture(params=CASES)
def make(request):
    return CASES[request.param]


@pytest.fixture(params=[name for name in CASES if name != "joining"])
def make_timed(request):
    return CASES[request.param]


@pytest.fixture(params=[name for name in CASES if "RLock" not in name])
def make_wakeable(request):
    """Cases in which any thread may wake, not only an owner."""
    return CASES[request.param]


def elsewhere(call):
    """Call it in a virtual thread that owns nothing."""
    with ThreadGroup() as group:
        future = group.spawn(call)
    return future.result()


def until(condition):
    while not condition():
        sleep(0)
        time.sleep(0)


# --- order


def test_waiters_are_served_first_come_first_served(virtual, make, order):
    def root():
        case, log = make(), []
        if not case.spare:
            return [0, 1, 2]

        def waiter(number):
            case.wait()
            log.append(number)
            if not case.wakes_all:
                case.wake()

        with ThreadGroup() as group:
            for number in range(3):
                group.spawn(waiter, number)
                assert number + 1 == case.waiting()
            case.wake()
        assert 0 == case.waiting()
        # Those woken together are ready together, and then their order is the scheduler's.
        return sorted(log) if case.wakes_all else log

    assert [0, 1, 2] == virtual(root, order=order)


def test_one_wake_wakes_one_or_all(virtual, make):
    def root():
        case, woken = make(), []
        with ThreadGroup() as group:
            for number in range(2 if case.spare else 1):
                group.spawn(lambda number=number: (case.wait(), woken.append(number)))
            case.wake()
            sleep(1)
            count = len(woken)
            group.cancel()
        return count, 2 if case.wakes_all else 1

    count, expected = virtual(root)
    assert expected == count


# --- timeouts


def test_a_timeout_comes_exactly_then_and_leaves_nothing(virtual, make_timed):
    def root():
        case, start = make_timed(), now()
        assert elsewhere(lambda: case.expires(5))
        assert 5 == now() - start
        return case.waiting()

    assert 0 == virtual(root)


def test_a_waiter_woken_in_time_does_not_expire(virtual, make_timed):
    def root():
        case = make_timed()
        with ThreadGroup() as group:
            expired = group.spawn(case.expires, 5)
            sleep(4)
            case.wake()
        return expired.result(), now(), case.waiting()

    assert (False, 4, 0) == virtual(root)


def test_when_waking_and_timeout_coincide_one_of_them_wins(virtual, make_timed, order):
    def root():
        case = make_timed()
        with ThreadGroup() as group:
            expired = group.spawn(case.expires, 5)
            sleep(5)
            waited = case.waiting()
            if waited:
                case.wake()
        assert 0 == case.waiting()
        return expired.result() is (not waited)

    assert virtual(root, order=order)


def test_forms_that_do_not_wait_never_park(virtual, make):
    def root():
        case, others = make(), []
        with ThreadGroup() as group:
            group.spawn(lambda: (sleep(0), others.append("ran")))
            for attempt in case.tries:
                attempt()
            return case.waiting(), list(others)

    assert (0, []) == virtual(root)


# --- cancellation


def test_in_a_cancelled_scope_nothing_is_waited_for(virtual, make):
    def root():
        case = make()

        def waiter():
            with CancelScope() as scope:
                scope.cancel()
                with pytest.raises(Cancelled):
                    case.wait()
                assert 0 == case.waiting()
                case.wait()
            assert scope.cancelled_caught

        elsewhere(waiter)
        return case.waiting()

    assert 0 == virtual(root)


def test_forms_that_do_not_wait_never_raise_cancelled(virtual, make):
    def root():
        case = make()
        with CancelScope() as scope:
            scope.cancel()
            for attempt in case.tries:
                attempt()
            if case.spare:
                case.wake()
        assert not scope.cancelled_caught

    virtual(root)


def end_first_of_two(virtual, make, order, end):
    """Two wait; `end` makes an end of the first one's waiting before the wake: it is the second one that is woken."""

    def root():
        case, log = make(), []

        def waiter(number):
            try:
                case.wait()
            except Interrupted:
                return "interrupted"
            log.append(number)
            return None

        with ThreadGroup() as group:
            first = group.spawn(waiter, 1)
            second = group.spawn(waiter, 2) if case.spare else None
            end(first, case)
            if second:
                assert 1 == case.waiting()
                case.wake()
        assert 0 == case.waiting()
        assert ([2] if second else []) == log
        return first

    return virtual(root, order=order)


def test_a_parked_waiter_is_cancelled_and_the_next_one_is_served(virtual, make, order):
    def end(future, case):
        future.cancel()
        sleep(0)

    assert end_first_of_two(virtual, make, order, end).cancelled()


def test_a_waiter_cancelled_just_before_the_wake_does_not_swallow_it(virtual, make, order):
    def end(future, case):
        future.cancel()

    assert end_first_of_two(virtual, make, order, end).cancelled()


def test_an_interrupted_waiter_does_not_swallow_the_wake(virtual, make, order):
    def end(future, case):
        assert future.thread.interrupt()

    assert "interrupted" == end_first_of_two(virtual, make, order, end).result()


def test_a_waiter_cancelled_just_after_the_wake_has_succeeded(virtual, make, order):
    def root():
        case, log = make(), []

        def waiter():
            case.wait()
            log.append("succeeded")
            sleep(0)
            log.append("went on")

        with ThreadGroup() as group:
            future = group.spawn(waiter)
            case.wake()
            future.cancel()
        assert future.cancelled()
        assert 0 == case.waiting()
        return log

    assert ["succeeded"] == virtual(root, order=order)


def test_a_waiter_interrupted_just_after_the_wake_has_succeeded(virtual, make, order):
    def root():
        case, log = make(), []

        def waiter():
            case.wait()
            log.append("succeeded")
            with pytest.raises(Interrupted):
                sleep(0)

        with ThreadGroup() as group:
            future = group.spawn(waiter)
            case.wake()
            future.thread.interrupt()
        assert 0 == case.waiting()
        return log

    assert ["succeeded"] == virtual(root, order=order)


def test_a_waiter_gives_up_when_its_scope_runs_out_of_time(virtual, make):
    def root():
        case = make()

        def waiter():
            with pytest.raises(TimeoutError), vthreads.fail_after(3):
                case.wait()

        elsewhere(waiter)
        return now(), case.waiting()

    assert (3, 0) == virtual(root)


# --- plain OS threads


def test_an_os_thread_is_woken_by_a_virtual_thread(virtual, make):
    def root():
        case = make()
        with ThreadPoolExecutor(1) as pool:
            future = pool.submit(case.wait)
            until(case.waiting)
            case.wake()
            future.result()
        return case.waiting()

    assert 0 == virtual(root)


def test_a_virtual_thread_is_woken_by_an_os_thread(virtual, make_wakeable):
    def root():
        case = make_wakeable()
        with ThreadPoolExecutor(1) as pool, ThreadGroup() as group:
            group.spawn(case.wait)
            assert 1 == case.waiting()
            pool.submit(case.wake).result()
        return case.waiting()

    assert 0 == virtual(root)


def test_os_threads_need_no_runtime(make):
    case = make()
    with ThreadPoolExecutor(1) as pool:
        future = pool.submit(case.wait)
        while not case.waiting():
            time.sleep(0)
        case.wake()
        future.result()
    assert 0 == case.waiting()


def test_the_timeout_of_an_os_thread_leaves_nothing(make_timed):
    case = make_timed()
    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(case.expires, 0.001).result()
    assert 0 == case.waiting()


def test_an_os_thread_that_has_given_up_does_not_swallow_the_wake(virtual, make_timed):
    def root():
        case = make_timed()
        if not case.spare:
            return 0
        with ThreadPoolExecutor(1) as pool:
            assert pool.submit(case.expires, 0.001).result()
        with ThreadGroup() as group:
            group.spawn(case.wait)
            case.wake()
        return case.waiting()

    assert 0 == virtual(root)
