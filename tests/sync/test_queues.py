"""Queues: order, hand-over, shutdown, and calls from finalizers."""

from __future__ import annotations

import gc
import queue
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from typing import get_args, get_origin

import pytest

import vthreads
from vthreads import CancelScope, Empty, Full, ShutDown, ThreadGroup, now, sleep
from vthreads._sync.queues import LifoQueue, PriorityQueue, Queue, SimpleQueue
from vthreads._sync.statistics import QueueStatistics

pytestmark = pytest.mark.unpatched

ALL = [Queue, LifoQueue, PriorityQueue, SimpleQueue]
BOUNDED = [Queue, LifoQueue, PriorityQueue]


def until(condition):
    while not condition():
        sleep(0)
        time.sleep(0)


def drained(items):
    result = []
    while not items.empty():
        result.append(items.get_nowait())
    return result


@pytest.mark.parametrize("kind", ALL)
def test_a_queue_of_something_is_a_type_and_a_base(kind):
    class Mine(kind[int]):
        pass

    assert (kind, (int,)) == (get_origin(kind[int]), get_args(kind[int]))
    items = Mine()
    items.put(1)
    assert 1 == items.get()


# --- items


@pytest.mark.parametrize(
    ("kind", "expected"),
    [(Queue, [2, 3, 1]), (SimpleQueue, [2, 3, 1]), (LifoQueue, [1, 3, 2]), (PriorityQueue, [1, 2, 3])],
)
def test_items_come_out_in_the_order_of_the_kind(kind, expected):
    items = kind()
    for item in (2, 3, 1):
        items.put(item)
    assert (3, False) == (items.qsize(), items.empty())
    assert expected == drained(items)
    assert (0, True) == (items.qsize(), items.empty())


@pytest.mark.parametrize("kind", BOUNDED)
def test_a_queue_holds_as_many_as_it_was_told(kind):
    items = kind(2)
    for item in (1, 2):
        assert not items.full()
        items.put(item)
    assert items.full()
    with pytest.raises(Full):
        items.put_nowait(3)
    assert 2 == items.qsize()


@pytest.mark.parametrize("kind", BOUNDED)
def test_a_queue_without_a_size_is_never_full(kind):
    for items in (kind(), kind(-1)):
        for item in range(100):
            items.put_nowait(item)
        assert not items.full()


@pytest.mark.parametrize("kind", ALL)
def test_none_and_other_false_items_go_from_hand_to_hand(virtual, kind):
    def root():
        items = kind()
        with ThreadGroup() as group:
            got = group.spawn(items.get)
            items.put(None)
        items.put(0)
        return got.result(), items.get()

    assert (None, 0) == virtual(root)


@pytest.mark.parametrize("kind", BOUNDED)
def test_an_item_for_a_waiting_getter_does_not_count_for_the_size(virtual, kind):
    def root():
        items = kind(1)
        with ThreadGroup() as group:
            got = group.spawn(items.get)
            items.put_nowait(1)
            items.put_nowait(2)
            with pytest.raises(Full):
                items.put_nowait(3)
        return got.result(), items.get()

    assert (1, 2) == virtual(root)


@pytest.mark.parametrize("kind", ALL)
def test_each_getter_has_the_item_that_was_put_for_it(virtual, kind, order):
    def root():
        items, got = kind(), {}
        with ThreadGroup() as group:
            for number in range(3):
                group.spawn(lambda number=number: got.update({number: items.get()}))
            for item in (2, 0, 1):
                items.put(item)
            # They are gone already, though no getter has run yet.
            assert 0 == items.qsize()
            with pytest.raises(Empty):
                items.get_nowait()
        return got

    assert {0: 2, 1: 0, 2: 1} == virtual(root, order=order)


def test_putters_are_let_in_in_their_order(virtual, order):
    def root():
        items = Queue(1)
        items.put(0)
        with ThreadGroup() as group:
            for number in (1, 2, 3):
                group.spawn(items.put, number)
            assert QueueStatistics(1, 3, 0, 3, 0) == items.statistics()
            # A waiting put takes the free place, so the queue is full again.
            got = [items.get()]
            with pytest.raises(Full):
                items.put_nowait(4)
            return got + [items.get() for _ in range(3)]

    assert [0, 1, 2, 3] == virtual(root, order=order)


@pytest.mark.parametrize("kind", BOUNDED)
def test_producers_and_consumers_lose_nothing(virtual, kind, order):
    def root():
        items, got = kind(2), []

        def produce(start):
            for item in range(start, start + 10):
                items.put(item)

        def consume():
            for _ in range(10):
                got.append(items.get())
                sleep(0)

        with ThreadGroup() as group:
            for number in range(3):
                group.spawn(produce, number * 10)
                group.spawn(consume)
        return sorted(got), items.statistics()

    assert (list(range(30)), QueueStatistics(0, 0, 0, 0, 0)) == virtual(root, order=order)


@pytest.mark.parametrize("kind", ALL)
def test_arguments_are_checked_as_in_the_standard_library(virtual, kind):
    def root():
        items = kind()
        with CancelScope() as scope:
            scope.cancel()
            with pytest.raises(ValueError, match="'timeout' must be a non-negative number"):
                items.get(timeout=-1)
            # Without waiting, the timeout is of no interest.
            with pytest.raises(Empty):
                items.get(False, -1)
        if kind is not SimpleQueue:
            with pytest.raises(ValueError, match="'timeout' must be a non-negative number"):
                items.put(1, timeout=-1)
            assert items.empty()
            items.put(1, False, -1)

    virtual(root)


def test_the_exceptions_are_those_of_the_standard_library():
    with pytest.raises(queue.Empty):
        Queue().get_nowait()
    full = Queue(1)
    full.put(1)
    with pytest.raises(queue.Full):
        full.put_nowait(1)
    if sys.version_info >= (3, 13):
        assert ShutDown is queue.ShutDown


@pytest.mark.parametrize("kind", ALL)
def test_a_queue_says_its_state(kind):
    items = kind()
    items.put(1)
    assert f"<{kind.__name__} size=1 maxsize=0 getters=0 putters=0>" == repr(items)
    assert QueueStatistics(1, 0, 0, 0, 0) == items.statistics()


def test_simple_queue_takes_the_arguments_of_put_and_ignores_them(virtual):
    def root():
        items = SimpleQueue()
        with CancelScope() as scope:
            scope.cancel()
            items.put(1, True, -1)
            items.put(2, block=False, timeout=None)
            items.put_nowait(3)
        return drained(items)

    assert [1, 2, 3] == virtual(root)


# --- priorities


class Incomparable:
    """Cannot be ordered."""


def test_an_item_that_cannot_be_compared_is_refused_and_leaves_no_trace():
    items = PriorityQueue()
    for item in (5, 3, 4, 1, 2):
        items.put(item)
    with pytest.raises(TypeError, match="not supported between"):
        items.put(Incomparable())
    assert (5, 5) == (items.qsize(), items.unfinished_tasks)
    assert [1, 2, 3, 4, 5] == drained(items)


def test_a_parked_put_of_an_incomparable_item_raises_in_the_putter(virtual):
    def root():
        items, errors = PriorityQueue(2), []
        items.put(1)
        items.put(2)

        def put(item):
            try:
                items.put(item)
            except TypeError as error:
                errors.append(error)

        with ThreadGroup() as group:
            group.spawn(put, Incomparable())
            group.spawn(put, 3)
            assert 1 == items.get()
            # The room that was not used is for the next one.
            assert 0 == items.statistics().putters
        assert 1 == len(errors)
        return drained(items), items.unfinished_tasks

    assert ([2, 3], 3) == virtual(root)


# --- task_done and join


def test_join_waits_for_all_tasks(virtual):
    def root():
        items = Queue()
        items.join()
        for item in (1, 2):
            items.put(item)
        with ThreadGroup() as group:
            joiners = [group.spawn(items.join) for _ in range(2)]
            assert QueueStatistics(2, 2, 0, 0, 2) == items.statistics()
            items.get()
            items.task_done()
            items.get()
            sleep(1)
            assert not any(joiner.done() for joiner in joiners)
            items.task_done()
        return items.unfinished_tasks, items.statistics().waiting

    assert (0, 0) == virtual(root)


def test_an_item_that_went_from_hand_to_hand_is_a_task_too(virtual):
    def root():
        items = Queue()
        with ThreadGroup() as group:
            group.spawn(items.get)
            items.put(1)
            joiner = group.spawn(items.join)
            sleep(1)
            assert not joiner.done()
            items.task_done()

    virtual(root)


def test_an_item_is_a_task_once_it_is_in_the_queue(virtual):
    def root():
        items = Queue(1)
        items.put(1)
        with ThreadGroup() as group:
            putter = group.spawn(items.put, 2)
            assert 1 == items.unfinished_tasks
            putter.cancel()
        return items.unfinished_tasks

    assert 1 == virtual(root)


def test_more_task_done_than_tasks_is_an_error():
    items = Queue()
    with pytest.raises(ValueError, match="called too many times"):
        items.task_done()


def test_join_waits_for_a_task_done_of_an_os_thread(virtual):
    def root():
        items = Queue()
        items.put(1)
        with ThreadPoolExecutor(1) as pool, ThreadGroup() as group:
            group.spawn(items.join)
            pool.submit(items.task_done).result()

    virtual(root)


# --- shutdown


@pytest.mark.parametrize("kind", BOUNDED)
def test_after_shutdown_the_rest_can_be_got_and_nothing_put(kind):
    items = kind()
    for item in (1, 2):
        items.put(item)
    items.shutdown()
    assert items.is_shutdown
    for put in (items.put, items.put_nowait):
        with pytest.raises(ShutDown):
            put(3)
    assert {1, 2} == {items.get(), items.get_nowait()}
    for get in (items.get, items.get_nowait):
        with pytest.raises(ShutDown):
            get()


def ended(call, *args):
    with pytest.raises(ShutDown):
        call(*args)
    return True


@pytest.mark.parametrize("immediate", [False, True])
def test_shutdown_ends_those_who_wait(virtual, immediate):
    def root():
        empty, full = Queue(), Queue(1)
        full.put(1)
        with ThreadGroup() as group:
            futures = [group.spawn(ended, empty.get) for _ in range(2)]
            futures += [group.spawn(ended, full.put, 2) for _ in range(2)]
            empty.shutdown(immediate)
            full.shutdown(immediate)
            assert (0, 0) == (empty.statistics().waiting, full.statistics().waiting)
        assert all(future.result() for future in futures)
        return drained(full)

    assert ([] if immediate else [1]) == virtual(root)


def test_immediate_shutdown_counts_what_it_throws_away_as_done(virtual):
    def root():
        items = Queue()
        for item in range(3):
            items.put(item)
        items.get()
        with ThreadGroup() as group:
            joiner = group.spawn(items.join)
            items.shutdown(immediate=True)
            assert (0, 1) == (items.qsize(), items.unfinished_tasks)
            sleep(1)
            # The one that was taken is still being dealt with.
            assert not joiner.done()
            items.task_done()

    virtual(root)


def test_shutdown_does_not_end_join(virtual):
    def root():
        items = Queue()
        items.put(1)
        with ThreadGroup() as group:
            joiner = group.spawn(items.join)
            items.shutdown()
            sleep(1)
            assert not joiner.done()
            items.get()
            items.task_done()

    virtual(root)


def test_shutdown_twice_first_gently_and_then_at_once():
    items = Queue()
    items.put(1)
    items.shutdown()
    items.shutdown(immediate=True)
    with pytest.raises(ShutDown):
        items.get()


def test_a_getter_that_has_its_item_is_not_shut_down(virtual):
    def root():
        items = Queue()
        with ThreadGroup() as group:
            got = group.spawn(items.get)
            items.put(1)
            items.shutdown(immediate=True)
        return got.result()

    assert 1 == virtual(root)


def test_shutdown_reaches_an_os_thread(virtual):
    def root():
        items = Queue()
        with ThreadPoolExecutor(1) as pool:
            future = pool.submit(ended, items.get)
            until(lambda: items.statistics().waiting)
            items.shutdown()
            return future.result()

    assert virtual(root)


# --- OS threads, cancellation, finalizers


@pytest.mark.parametrize("kind", ALL)
def test_os_and_virtual_threads_exchange_items(virtual, kind):
    def root():
        there, back = kind(), Queue(3)

        def echo():
            while (item := there.get()) >= 0:
                back.put(item)

        with ThreadPoolExecutor(1) as pool:
            future = pool.submit(echo)
            for item in range(200):
                there.put(item)
            got = [back.get() for _ in range(200)]
            there.put(-1)
            future.result()
        return sorted(got), there.statistics().waiting, back.statistics().waiting

    assert (list(range(200)), 0, 0) == virtual(root)


@pytest.mark.parametrize("kind", ALL)
def test_a_cancelled_getter_has_taken_nothing(virtual, kind, order):
    def root():
        items, got = kind(), []
        with ThreadGroup() as group:
            getters = [group.spawn(lambda: got.append(items.get())) for _ in range(3)]
            for getter in getters[::2]:
                getter.cancel()
            for item in range(2):
                items.put(item)
        return got + drained(items)

    assert [0, 1] == virtual(root, order=order)


def test_a_cancelled_putter_has_put_nothing(virtual, order):
    def root():
        items = Queue(1)
        items.put(0)
        with ThreadGroup() as group:
            putters = [group.spawn(items.put, number) for number in (1, 2, 3)]
            putters[0].cancel()
            putters[2].cancel()
            return [items.get(), items.get()], items.statistics()

    assert ([0, 2], QueueStatistics(0, 0, 0, 0, 0)) == virtual(root, order=order)


def test_a_getter_with_a_timeout_gets_what_comes_in_time(virtual):
    def root():
        items = Queue()
        with ThreadGroup() as group:
            group.spawn(lambda: (sleep(2), items.put("late"), sleep(3), items.put("too late")))
            assert "late" == items.get(timeout=3)
            with pytest.raises(Empty):
                items.get(timeout=2)
        return now(), drained(items)

    assert (5, ["too late"]) == virtual(root)


class PutsWhenCollected:
    """In a reference cycle, so that only the garbage collector finds it, at any moment it likes."""

    def __init__(self, items, item):
        self.items, self.item, self.me = items, item, self

    def __del__(self):
        self.items.put(self.item)


def test_simple_queue_can_be_put_to_by_finalizers(virtual):
    def root():
        items, count, got = SimpleQueue(), 30, []
        for number in range(count):
            PutsWhenCollected(items, number)
            items.put(None)
            gc.collect(0)
            got += [items.get(), items.get()]
        return sorted(item for item in got if item is not None) == list(range(count))

    assert virtual(root)


def test_a_finalizer_wakes_a_getter_that_waits(virtual):
    def root():
        items = SimpleQueue()
        PutsWhenCollected(items, 1)
        with ThreadGroup() as group:
            got = group.spawn(items.get)
            gc.collect()
        return got.result()

    assert 1 == virtual(root)


@pytest.mark.parametrize("kind", [vthreads.Queue, vthreads.LifoQueue, vthreads.PriorityQueue, queue.Queue])
def test_a_cancelled_thread_puts_into_an_unbounded_queue_but_not_into_a_bounded_one(kind, virtual):
    def root():
        unbounded, bounded = kind(), kind(1)
        with vthreads.CancelScope() as scope:
            scope.cancel()
            unbounded.put(1)
            bounded.put(1)
        assert scope.cancelled_caught
        return unbounded.qsize(), bounded.qsize()

    assert (1, 0) == virtual(root, patch=True)


@pytest.mark.parametrize("kind", [vthreads.Queue, queue.Queue])
def test_a_thread_that_only_puts_gives_way_to_others(kind):
    def root():
        items = kind()
        with ThreadGroup() as group:
            stop = group.spawn(lambda: (vthreads.checkpoint(), items.put("stop")))
            while not stop.done():
                items.put("more")

    vthreads.run(root)
