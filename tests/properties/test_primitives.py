"""Random programs on primitives: nothing is lost or duplicated, order and exclusion hold, no thread waits forever.

A program is a list of actors, an actor a list of steps. Programs, timeouts and capacities are tiny on purpose: steps
must collide. The order of ready threads is drawn too.
"""

from __future__ import annotations

import sys
import threading
import time
from collections import Counter
from itertools import count, product
from threading import BrokenBarrierError
from unittest import mock

import pytest
from hypothesis import given
from hypothesis import strategies as st

import vthreads
from vthreads import (
    Barrier,
    ChannelClosed,
    Condition,
    Empty,
    Event,
    Full,
    Interrupted,
    Lock,
    RLock,
    Semaphore,
    ShutDown,
    ThreadGroup,
    move_on_after,
    sleep,
)
from vthreads._calls.standard_locks import ConditionWaiterLock, StandardLock, StandardRLock
from vthreads._sync.channels import Channel, receive_any
from vthreads._sync.mutex import Mutex, RwLock
from vthreads._sync.queues import LifoQueue, PriorityQueue, Queue, SimpleQueue
from vthreads._sync.statistics import RwLockStatistics
from vthreads.testing import SeededOrder, VirtualClock

pytestmark = pytest.mark.unpatched

seeds = st.integers(0, 7)
TIMEOUTS = (None, None, 0, 1, 2)
ACTORS = 3


def step(name, *arguments):
    """All steps of this name: each choice of arguments is one."""
    return [(name, *chosen) for chosen in product(*arguments)]


# Steps that any actor may insert.
COMMON = step("sleep", (0, 1, 2)) + step("cancel", range(ACTORS)) + step("interrupt", range(ACTORS))


def programs(own):
    # Drawn from one list, since many small draws would take longer than the runs.
    share = max(1, len(COMMON) * 2 // len(own))
    return st.lists(st.lists(st.sampled_from(own * share + COMMON), max_size=4), min_size=1, max_size=ACTORS)


def run(seed, program, do, at_rest=lambda: None):
    """Run the actors on a virtual clock until none can go on, then cancel those that still wait.

    `do(actor, what)` makes a step; `at_rest()` is called before the rest is cancelled.
    """

    futures = []

    def actor(number):
        for what in program[number]:
            try:
                if what in COMMON:
                    do_common(*what)
                else:
                    do(number, what)
            except Interrupted:
                pass

    def do_common(name, argument):
        if name == "sleep":
            sleep(argument)
        elif argument < len(futures):
            futures[argument].cancel() if name == "cancel" else futures[argument].thread.interrupt()

    def root():
        with move_on_after(1000), ThreadGroup() as group:
            for number in range(len(program)):
                futures.append(group.spawn(actor, number))
            sleep(100)
            at_rest()
            group.cancel()

    vthreads.run(root, clock=VirtualClock(), order=SeededOrder(seed), patch=False)


class Journal:
    """What has succeeded, by the time at which it was begun.

    Who begins earlier is served earlier: so results in this order are results in the order of the hand-overs.
    """

    def __init__(self):
        self._ticks = count()
        self._entries = []

    def keep(self, call, *failures):
        """Call it, and keep what it returns."""
        tick = next(self._ticks)
        try:
            self._entries.append((tick, call()))
        except failures:
            pass

    def results(self):
        return [result for _, result in sorted(self._entries, key=lambda entry: entry[0])]


# --- queues

PUT_OR_GET = step("put", TIMEOUTS) + step("get", TIMEOUTS)


@given(
    seed=seeds,
    kind=st.sampled_from([Queue, Queue, LifoQueue, PriorityQueue]),
    maxsize=st.integers(0, 2),
    program=programs(PUT_OR_GET + step("shutdown", (False, True))),
)
def test_queues_lose_and_duplicate_nothing(seed, kind, maxsize, program):
    queue, items, puts, gets, thrown_away = kind(maxsize), count(), Journal(), Journal(), []

    def do(_, what):
        match what:
            case "put", timeout:
                item = next(items)
                puts.keep(lambda: (queue.put(item, timeout=timeout), item)[1], Full, ShutDown)
            case "get", timeout:
                gets.keep(lambda: queue.get(timeout=timeout), Empty, ShutDown)
            case "shutdown", immediate:
                if immediate:
                    thrown_away.extend(queue._items)
                queue.shutdown(immediate)

    run(seed, program, do)
    assert 0 == queue.statistics().waiting
    left = []
    while not queue.empty():
        left.append(queue.get())
    put_in = [item for item in puts.results() if item not in thrown_away]
    taken_out = gets.results() + left
    assert sorted(put_in) == sorted(taken_out)
    if kind is Queue:
        assert put_in == taken_out
    assert len(put_in) == queue.unfinished_tasks


@given(seed=seeds, program=programs(PUT_OR_GET))
def test_simple_queues_lose_and_duplicate_nothing(seed, program):
    queue, items, puts, gets = SimpleQueue(), count(), Journal(), Journal()

    def do(_, what):
        match what:
            case "put", _:
                item = next(items)
                puts.keep(lambda: (queue.put(item), item)[1])
            case "get", timeout:
                gets.keep(lambda: queue.get(timeout=timeout), Empty)

    run(seed, program, do)
    assert 0 == queue.statistics().waiting
    assert puts.results() == gets.results() + [queue.get_nowait() for _ in range(queue.qsize())]


@given(seed=seeds, program=programs(PUT_OR_GET + step("join", (None, None))))
def test_join_ends_when_and_only_when_all_is_done(seed, program):
    queue, joining = Queue(1), 0

    def do(_, what):
        nonlocal joining
        match what:
            case "put", timeout:
                try:
                    queue.put(1, timeout=timeout)
                except Full:
                    pass
            case "get", timeout:
                try:
                    queue.get(timeout=timeout)
                except Empty:
                    pass
                else:
                    queue.task_done()
            case "join", _:
                joining += 1
                try:
                    queue.join()
                finally:
                    joining -= 1

    def at_rest():
        assert joining == queue.statistics().joiners
        assert queue.unfinished_tasks or not joining

    run(seed, program, do, at_rest)
    assert 0 == queue.statistics().waiting
    assert queue.qsize() == queue.unfinished_tasks


# --- channels

SEND_OR_RECEIVE = step("send", (0, 1), TIMEOUTS) + step("receive", (0, 1), TIMEOUTS)
FROM_ANY = step("any", (False, True), TIMEOUTS)


@given(
    seed=seeds,
    capacities=st.tuples(st.integers(0, 2), st.integers(0, 2)),
    program=programs(SEND_OR_RECEIVE + FROM_ANY + step("close", (0, 1))),
)
def test_channels_lose_and_duplicate_nothing(seed, capacities, program):
    channels = [Channel(capacity) for capacity in capacities]
    items, sent, received = count(), [Journal(), Journal()], Journal()

    def do(_, what):
        match what:
            case "send", which, timeout:
                item = next(items)
                sent[which].keep(lambda: (channels[which].send(item, timeout), item)[1], ChannelClosed, TimeoutError)
            case "receive", which, timeout:
                received.keep(lambda: (which, channels[which].receive(timeout)), ChannelClosed, TimeoutError)
            case "any", turned, timeout:
                given_first = channels[::-1] if turned else channels

                def receive():
                    channel, item = receive_any(*given_first, timeout=timeout)
                    return channels.index(channel), item

                received.keep(receive, ChannelClosed, TimeoutError)
            case "close", which:
                channels[which].close()

    run(seed, program, do)
    names = {name for actor in program for name, *_ in actor}
    for which, channel in enumerate(channels):
        assert 0 == channel.statistics().waiting
        channel.close()
        taken_out = [item for where, item in received.results() if where == which] + list(channel)
        put_in = sent[which].results()
        assert sorted(put_in) == sorted(taken_out)
        # A receiver of several channels queues again, behind the others, when one of its channels is closed.
        if not {"any", "close"} <= names:
            assert put_in == taken_out


# --- locks of all kinds

HOLD = step("hold", TIMEOUTS, (0, 1, 2))


def seconds_or_forever(timeout):
    return -1 if timeout is None else timeout


def hold_lock(lock, timeout, use):
    if lock.acquire(timeout=seconds_or_forever(timeout)):
        try:
            use()
        finally:
            lock.release()


def hold_mutex(mutex, timeout, use):
    try:
        with mutex.lock(timeout):
            use()
    except TimeoutError:
        pass


@given(
    seed=seeds,
    kind=st.sampled_from([Lock, StandardLock, RLock, StandardRLock, ConditionWaiterLock, Mutex]),
    program=programs(HOLD),
)
def test_locks_are_held_by_one_and_in_the_order_asked_for(seed, kind, program):
    lock, ticks, inside, entered = (Mutex(None) if kind is Mutex else kind()), count(), 0, []

    def do(_, what):
        _, timeout, duration = what
        tick = next(ticks)

        def use():
            nonlocal inside
            entered.append(tick)
            inside += 1
            try:
                assert 1 == inside
                sleep(duration)
            finally:
                inside -= 1

        (hold_mutex if kind is Mutex else hold_lock)(lock, timeout, use)

    run(seed, program, do)
    assert entered == sorted(entered)
    assert (False, 0) == (lock.statistics().locked, lock.statistics().waiting)


@given(seed=seeds, permits=st.integers(1, 3), program=programs(HOLD))
def test_semaphores_let_in_as_many_as_they_have_permits(seed, permits, program):
    semaphore, ticks, inside, entered = Semaphore(permits), count(), 0, []

    def do(_, what):
        nonlocal inside
        _, timeout, duration = what
        tick = next(ticks)
        if semaphore.acquire(timeout=timeout):
            entered.append(tick)
            inside += 1
            try:
                assert inside <= permits
                sleep(duration)
            finally:
                inside -= 1
                semaphore.release()

    run(seed, program, do)
    if permits == 1:
        assert entered == sorted(entered)
    assert (permits, 0) == (semaphore.statistics().value, semaphore.statistics().waiting)


@given(seed=seeds, program=programs(step("read", TIMEOUTS, (0, 1, 2)) + step("write", TIMEOUTS, (0, 1, 2))))
def test_readers_share_and_writers_are_alone_in_the_order_asked_for(seed, program):
    lock, ticks, inside, entered = RwLock(None), count(), Counter(), []

    def do(_, what):
        name, timeout, duration = what
        tick = next(ticks)
        try:
            with lock.write(timeout) if name == "write" else lock.read(timeout):
                entered.append((tick, name))
                inside[name] += 1
                try:
                    assert not inside["write"] or 1 == inside["write"] + inside["read"]
                    sleep(duration)
                finally:
                    inside[name] -= 1
        except TimeoutError:
            pass

    run(seed, program, do)
    for place, (later, name) in enumerate(entered):
        for earlier, other in entered[:place]:
            # Readers that are let in together run in any order.
            assert earlier < later or name == other == "read"
    assert RwLockStatistics(0, False, 0) == lock.statistics()


# --- conditions, events, barriers


def standard_condition():
    return threading.Condition(StandardRLock())


def standard_condition_on_a_lock():
    return threading.Condition(StandardLock())


def condition_on_a_lock():
    return Condition(Lock())


@given(
    seed=seeds,
    make=st.sampled_from([Condition, condition_on_a_lock, standard_condition, standard_condition_on_a_lock]),
    program=programs(step("give", (1, 2)) + step("take", TIMEOUTS)),
)
def test_no_notify_is_lost(seed, make, program):
    with mock.patch.object(threading, "_allocate_lock", ConditionWaiterLock):
        condition, tokens, given_out, taken = make(), 0, 0, 0

        def do(_, what):
            nonlocal tokens, given_out, taken
            match what:
                case "give", n:
                    with condition:
                        tokens += n
                        given_out += n
                        condition.notify(n)
                case "take", timeout:
                    with condition:
                        while not tokens:
                            if not condition.wait(timeout):
                                break
                        if tokens:
                            tokens -= 1
                            taken += 1

        def at_rest():
            # A thread that still waits has nothing to take.
            assert not tokens or not waiting()

        def waiting():
            return condition.statistics().waiting if isinstance(condition, Condition) else len(condition._waiters)

        run(seed, program, do, at_rest)
        assert given_out == taken + tokens
        assert not waiting()
        assert condition.acquire(False)


@given(
    seed=seeds,
    program=programs(step("set", (None,)) + step("clear", (None,)) + step("wait", TIMEOUTS)),
)
def test_nobody_waits_for_an_event_that_is_set(seed, program):
    event, sets = Event(), 0

    def do(_, what):
        nonlocal sets
        match what:
            case "set", _:
                sets += 1
                event.set()
            case "clear", _:
                event.clear()
            case "wait", timeout:
                before = sets
                is_set = event.is_set()
                came = event.wait(timeout)
                # It was set when the wait began, or it has been set since.
                assert came is (is_set or sets > before) or (timeout is not None and not came)

    def at_rest():
        assert not event.is_set() or 0 == event.statistics().waiting

    run(seed, program, do, at_rest)
    assert 0 == event.statistics().waiting


@given(
    seed=seeds,
    parties=st.integers(1, 3),
    program=programs(step("wait", TIMEOUTS) * 2 + step("reset", (None,)) + step("abort", (None,))),
)
def test_barriers_open_for_whole_rounds(seed, parties, program):
    barrier, passed = Barrier(parties), Counter()

    def do(_, what):
        match what:
            case "wait", timeout:
                try:
                    passed[barrier.wait(timeout)] += 1
                except BrokenBarrierError:
                    pass
            case "reset", _:
                barrier.reset()
            case "abort", _:
                barrier.abort()

    def at_rest():
        assert not barrier.broken or 0 == barrier.n_waiting
        assert barrier.n_waiting < parties

    run(seed, program, do, at_rest)
    assert set(passed) <= set(range(parties))
    assert 1 == len({passed[index] for index in range(parties)})
    assert 0 == barrier.statistics().waiting


# --- the same with OS threads: the order is unknown, and the switches are real


@pytest.fixture(scope="module")
def switching_often():
    """Let OS threads take turns as often as they can."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    yield
    sys.setswitchinterval(before)


def mixed(own):
    """Actors on OS threads, and actors on virtual threads of one carrier."""
    some = st.lists(st.sampled_from(own), max_size=2)
    return st.tuples(st.lists(some, min_size=1, max_size=2), st.lists(some, min_size=1, max_size=2))


def run_mixed(seed, program, do, end):
    """Run the actors; `end()` must unpark all that still wait."""
    on_os_threads, on_virtual_threads = program
    errors = []

    def actor(number, actor_steps):
        try:
            for what in actor_steps:
                do(number, what)
        except BaseException as error:
            errors.append(error)

    def root():
        os_threads = [threading.Thread(target=actor, args=item) for item in enumerate(on_os_threads)]
        for os_thread in os_threads:
            os_thread.start()
        with ThreadGroup() as group:
            for number, actor_steps in enumerate(on_virtual_threads, len(on_os_threads)):
                group.spawn(actor, number, actor_steps)
            for _ in range(3):
                sleep(0)
                time.sleep(0)
            end()
        for os_thread in os_threads:
            os_thread.join(20)
            assert not os_thread.is_alive()

    vthreads.run(root, clock=VirtualClock(), order=SeededOrder(seed), patch=False)
    assert [] == errors


MOMENTS = (None, None, 0, 0.00001, 0.0001)


def in_order_between_any_two(sent, received):
    """Of what one actor sent, another one receives earlier what was sent earlier."""
    place = {item: (sender, number) for number, (sender, item) in enumerate(sent)}
    last = {}
    for receiver, item in received:
        sender, number = place[item]
        assert last.get((sender, receiver), -1) < number
        last[sender, receiver] = number


@given(
    seed=seeds,
    kind=st.sampled_from([Queue, LifoQueue]),
    maxsize=st.integers(0, 1),
    program=mixed(step("put", MOMENTS) + step("get", MOMENTS)),
)
def test_queues_between_os_and_virtual_threads(switching_often, seed, kind, maxsize, program):
    queue, items, sent, received = kind(maxsize), count(), [], []

    def do(me, what):
        name, timeout = what
        try:
            if name == "put":
                item = next(items)
                queue.put(item, timeout=timeout)
                sent.append((me, item))
            else:
                received.append((me, queue.get(timeout=timeout)))
        except (Empty, Full, ShutDown):
            pass

    run_mixed(seed, program, do, queue.shutdown)
    assert 0 == queue.statistics().waiting
    left = []
    while not queue.empty():
        left.append(queue.get_nowait())
    assert sorted(item for _, item in sent) == sorted([item for _, item in received] + left)
    if kind is Queue:
        in_order_between_any_two(sent, received)


@given(
    seed=seeds,
    capacity=st.integers(0, 1),
    program=mixed(step("send", MOMENTS) * 2 + step("receive", MOMENTS) + step("any", MOMENTS)),
)
def test_channels_between_os_and_virtual_threads(switching_often, seed, capacity, program):
    channel, other, items, sent, received = Channel(capacity), Channel(1), count(), [], []

    def do(me, what):
        name, timeout = what
        try:
            if name == "send":
                item = next(items)
                channel.send(item, timeout)
                sent.append((me, item))
            elif name == "receive":
                received.append((me, channel.receive(timeout)))
            else:
                received.append((me, receive_any(other, channel, timeout=timeout)[1]))
        except (ChannelClosed, TimeoutError):
            pass

    def end():
        channel.close()
        other.close()

    run_mixed(seed, program, do, end)
    assert (0, 0) == (channel.statistics().waiting, other.statistics().waiting)
    assert sorted(item for _, item in sent) == sorted([item for _, item in received] + list(channel))
    in_order_between_any_two(sent, received)


@given(
    seed=seeds,
    kind=st.sampled_from([Lock, StandardLock, RLock, StandardRLock, Semaphore, ConditionWaiterLock]),
    program=mixed(step("hold", MOMENTS)),
)
def test_locks_between_os_and_virtual_threads(switching_often, seed, kind, program):
    lock, inside, most = kind(), 0, 0

    def do(_, what):
        nonlocal inside, most
        timeout = what[1]
        if kind is not Semaphore:
            timeout = seconds_or_forever(timeout)
        if lock.acquire(timeout=timeout):
            inside += 1
            most = max(most, inside)
            if vthreads._core.current.running():
                sleep(0)
            time.sleep(0)
            inside -= 1
            lock.release()

    run_mixed(seed, program, do, lambda: None)
    assert most <= 1
    assert 0 == lock.statistics().waiting
    assert lock.acquire(blocking=False)


@given(seed=seeds, program=mixed(step("read", MOMENTS) + step("write", MOMENTS)))
def test_read_write_locks_between_os_and_virtual_threads(switching_often, seed, program):
    lock, inside = RwLock(None), []

    def do(_, what):
        name, timeout = what
        try:
            with lock.write(timeout) if name == "write" else lock.read(timeout):
                # A list, since readers come and go at the same time.
                inside.append(name)
                assert ["write"] == inside if name == "write" else "write" not in inside
                time.sleep(0)
                inside.remove(name)
        except TimeoutError:
            pass

    run_mixed(seed, program, do, lambda: None)
    assert RwLockStatistics(0, False, 0) == lock.statistics()


@given(
    seed=seeds,
    make=st.sampled_from([Condition, condition_on_a_lock, standard_condition, standard_condition_on_a_lock]),
    program=mixed(step("give", MOMENTS) + step("take", MOMENTS)),
)
def test_conditions_between_os_and_virtual_threads(switching_often, seed, make, program):
    with mock.patch.object(threading, "_allocate_lock", ConditionWaiterLock):
        condition, tokens, given_out, taken, over = make(), 0, 0, 0, False

    def do(_, what):
        nonlocal tokens, given_out, taken
        name, timeout = what
        with condition:
            if name == "give":
                tokens += 1
                given_out += 1
                condition.notify()
                return
            while not tokens and not over:
                if not condition.wait(timeout):
                    break
            if tokens:
                tokens -= 1
                taken += 1

    def end():
        nonlocal over
        with condition:
            over = True
            condition.notify_all()

    with mock.patch.object(threading, "_allocate_lock", ConditionWaiterLock):
        run_mixed(seed, program, do, end)
    assert given_out == taken + tokens
    assert condition.acquire(False)
