"""The contract of the engine, through its users: threads that park, and descriptors that become ready."""

import gc
import signal
import threading
import time
import tracemalloc
import weakref
from importlib import import_module
from math import inf

import pytest
from greenlet import getcurrent, greenlet
from hypothesis import given
from hypothesis import strategies as st

import vthreads
from vthreads import ThreadGroup, sleep
from vthreads._core.engine import ABORTED, TIMED_OUT, State, engine_name
from vthreads._core.engine.pollers import POLLERS
from vthreads._core.wait_queue import WaitQueue

pytestmark = pytest.mark.unpatched


HOME_OF_TIMERS = {"reference": "timers", "accelerated": "accelerated"}[engine_name]
Timers = import_module(f"vthreads._core.engine.{HOME_OF_TIMERS}").Timers


class Owner:
    def __init__(self, log, name):
        self.log, self.name = log, name

    def _expire(self):
        self.log.append(self.name)


def scheduler_here():
    return vthreads.current_thread()._scheduler


# --- run queue


def test_ready_threads_run_first_in_first_out(virtual):
    def root():
        log = []

        def child(name):
            for turn in range(2):
                sleep(0)
                log.append((turn, name))

        with ThreadGroup() as g:
            for name in "abc":
                g.spawn(child, name)
        return log

    assert [(0, "a"), (0, "b"), (0, "c"), (1, "a"), (1, "b"), (1, "c")] == virtual(root)


def test_a_seeded_order_repeats_itself_and_differs_from_first_in_first_out(virtual):
    def root():
        log = []

        def child(name):
            sleep(0)
            log.append(name)

        with ThreadGroup() as g:
            for name in range(10):
                g.spawn(child, name)
        return log

    def run(seed):
        return virtual(root, order=vthreads.testing.SeededOrder(seed))

    assert run(7) == run(7)
    assert sorted(run(7)) == list(range(10))
    assert 1 < len({tuple(run(seed)) for seed in range(5)})


def test_yielding_lets_every_ready_thread_run_once(virtual):
    def root():
        log = []

        def child(name):
            sleep(0)
            log.append(name)

        with ThreadGroup() as g:
            g.spawn(child, 1)
            g.spawn(child, 2)
            sleep(0)
            log.append("root")
        return log

    assert [1, 2, "root"] == virtual(root)


def test_a_thread_with_nobody_else_ready_goes_on_after_a_yield(virtual, order):
    assert virtual(lambda: sleep(0), order=order) is None


@pytest.mark.thorough
@pytest.mark.everywhere
def test_very_many_threads_end_at_once(virtual):
    # Each greenlet that ended kept the next one alive: freed together, they overflowed the C stack.
    def root():
        with ThreadGroup() as g:
            for _ in range(50_000):
                g.spawn(sleep, 60)
            g.cancel()
        return len(g)

    assert 0 == virtual(root)


def test_the_scheduler_counts_switches_and_shows_its_timers(virtual):
    def root():
        scheduler = vthreads.current_thread()._scheduler
        before = scheduler.switches
        for _ in range(200):
            sleep(0)
        with ThreadGroup() as g:
            sleeper = g.spawn(sleep, 60).thread
            timers = [(when, owner is sleeper) for when, owner in scheduler.timers]
            g.cancel()
        return timers, scheduler.switches - before

    timers, switches = virtual(root)
    assert [(60.0, True)] == timers
    # 200 yields; then both park, and one ends.
    assert 203 == switches


class Observer:
    """Logs the notifications, except those about the root."""

    def __init__(self, scheduler):
        self.scheduler = scheduler
        self.log = []

    def note(self, what, fiber):
        if fiber is not self.scheduler.root:
            self.log.append((what, fiber.name))

    def readied(self, fiber):
        self.note("readied", fiber)

    def parked(self, fiber):
        self.note("parked", fiber)

    def ended(self, fiber):
        self.note("ended", fiber)

    def runs(self, fiber):
        # During a switch no fiber is running, so code called here could not park.
        assert self.scheduler.running is None
        self.note("runs", fiber)


def test_an_observer_is_told_what_the_fibers_do(virtual):
    def root():
        vthreads.current_thread().name = "root"
        scheduler = scheduler_here()
        observer = scheduler.observer = Observer(scheduler)

        def child():
            vthreads.current_thread().name = "child"
            sleep(1)

        with ThreadGroup() as g:
            g.spawn(child).thread.name = "child"
        scheduler.observer = None
        sleep(1)
        return [what for what, _ in observer.log]

    assert ["runs", "parked", "readied", "runs", "ended"] == virtual(root)


def test_switches_are_counted(virtual):
    def root():
        before = scheduler_here().switches
        with ThreadGroup() as g:
            # When it parks the root is chosen, then the child, and the root again when that ends.
            g.spawn(sleep, 1)
        return scheduler_here().switches - before

    assert 3 == virtual(root)


def test_a_parked_thread_tells_since_when(virtual):
    def root():
        sleep(2)
        with ThreadGroup() as g:
            child = g.spawn(sleep, 1).thread
            sleep(0.5)
            return child._parked_at

    assert 2 == virtual(root)


# --- park and unpark


def test_park_answers_with_the_value_it_was_unparked_with(virtual):
    def root():
        def child():
            return vthreads.current_thread()._park()

        with ThreadGroup() as g:
            future = g.spawn(child)
            assert future.thread._unpark("value")
        return future.result()

    assert "value" == virtual(root)


def test_a_thread_is_unparked_once(virtual):
    def root():
        with ThreadGroup() as g:
            future = g.spawn(lambda: vthreads.current_thread()._park())
            answers = [future.thread._unpark(1), future.thread._unpark(2)]
        return answers, future.result()

    assert ([True, False], 1) == virtual(root)


def test_an_ended_thread_is_not_unparked(virtual):
    def root():
        with ThreadGroup() as g:
            future = g.spawn(lambda: None)
        return future.thread._unpark()

    assert virtual(root) is False


def test_an_unpark_that_comes_before_the_park_makes_it_return_at_once(virtual):
    def root():
        me = vthreads.current_thread()
        me._unpark("early")
        return me._park(), vthreads.now()

    assert ("early", 0.0) == virtual(root)


def test_an_unpark_before_the_park_is_kept_while_a_child_runs(virtual):
    # A finalizer may spawn between the two: the spawner then stands back, and is neither running nor parked.
    def root():
        me = vthreads.current_thread()
        with ThreadGroup() as g:
            g.spawn(me._unpark, "early")
            return me._park()

    assert "early" == virtual(root)


def test_park_answers_timed_out_at_its_deadline(virtual):
    def root():
        return scheduler_here().park(None, 5.0), vthreads.now()

    assert (TIMED_OUT, 5.0) == virtual(root)


def test_a_deadline_does_not_end_a_wait_that_cannot_be_withdrawn(virtual):
    def root():
        def child():
            return scheduler_here().park(lambda: False, 1.0), vthreads.now()

        with ThreadGroup() as g:
            future = g.spawn(child)
            sleep(3)
            future.thread._unpark("granted")
        return future.result()

    assert ("granted", 3.0) == virtual(root)


def test_rousing_a_parked_thread_withdraws_its_wait(virtual):
    def root():
        withdrawn = []

        def child():
            return scheduler_here().park(lambda: withdrawn.append(1) or True)

        with ThreadGroup() as g:
            future = g.spawn(child)
            future.thread.interrupt()
            answer = future.result()
        return answer, withdrawn

    assert (ABORTED, [1]) == virtual(root)


def test_a_wait_queue_answers_each_wait_exactly_once(virtual):
    def root():
        queue, log = WaitQueue(), []

        def child(name):
            me = vthreads.current_thread()
            queue.add(me)
            log.append((name, queue.park(me, timeout=1)))

        with ThreadGroup() as g:
            for name in "abc":
                g.spawn(child, name)
            assert queue.unpark_one("first")
        assert not queue.unpark_one()
        return log, len(queue)

    assert ([("a", "first"), ("b", TIMED_OUT), ("c", TIMED_OUT)], 0) == virtual(root)


# --- starting


def test_a_child_that_never_parks_ends_before_its_spawner_goes_on(virtual):
    def root():
        with ThreadGroup() as g:
            thread = g.spawn(lambda: None).thread
            return thread.state

    assert State.ENDED is virtual(root)


def test_nested_spawners_go_on_from_the_innermost_outwards(virtual):
    def root():
        log = []

        def grandchild():
            log.append("grandchild")
            sleep(0)
            log.append("grandchild again")

        def child():
            ThreadGroup.current.spawn(grandchild)
            log.append("child")
            sleep(0)
            log.append("child again")

        with ThreadGroup() as g:
            g.spawn(child)
            log.append("root")
        return log

    assert ["grandchild", "child", "root", "grandchild again", "child again"] == virtual(root)


def test_the_spawner_goes_on_before_those_that_were_ready_before(virtual, order):
    def root():
        log = []
        with ThreadGroup() as g:
            for name in range(3):
                g.spawn(lambda: (sleep(0), log.append(name)))
            g.spawn(sleep, 1)
            log.append("root")
        return log[0]

    assert "root" == virtual(root, order=order)


def test_spawning_and_being_spawned_is_one_slice(clock, virtual):
    # Otherwise a thread that goes on spawning would never have to yield.
    def root():
        log = []
        with ThreadGroup() as g:
            g.spawn(lambda: (sleep(0), log.append("other")))
            clock.advance(0.0009)
            g.spawn(sleep, 1)
            clock.advance(0.0009)
            vthreads.current_thread()._check()
            log.append("root")
        return log

    assert ["other", "root"] == virtual(root)


# --- fairness


def ping_pong(g, rounds):
    """Two threads that keep each other ready."""

    def player():
        for _ in range(rounds):
            sleep(0)

    g.spawn(player)
    g.spawn(player)


def test_a_timer_is_seen_while_two_threads_keep_the_carrier_busy(clock, virtual):
    def root():
        turns = 0

        def player():
            nonlocal turns
            for _ in range(1_000):
                clock.advance(0.0001)
                turns += 1
                sleep(0)

        with ThreadGroup() as g:
            timed = g.spawn(lambda: (sleep(0.005), turns)[1])
            g.spawn(player)
            g.spawn(player)
        return timed.result()

    # 50 turns take 5 ms; within the next millisecond it is noticed.
    assert 50 <= virtual(root) <= 62


def test_a_due_timer_is_seen_after_64_switches_even_if_time_stands_still(virtual):
    def root():
        turns = 0

        def player():
            nonlocal turns
            for _ in range(1_000):
                turns += 1
                sleep(0)

        def timed():
            # The timer is due at the next poll, which is not immediate.
            scheduler_here().park(None, vthreads.now())
            return turns

        with ThreadGroup() as g:
            g.spawn(player)
            g.spawn(player)
            future = g.spawn(timed)
        return future.result()

    assert virtual(root) <= 130


# --- timers


def test_timers_expire_in_the_order_of_their_times_then_of_adding():
    log, timers = [], Timers()
    for when, name in [(2, "c"), (1, "a"), (2, "d"), (1, "b")]:
        timers.add(when, Owner(log, name))
    assert 1 == timers.due()
    assert timers.expire(2)
    assert ["a", "b", "c", "d"] == log
    assert not timers.expire(100)
    assert inf == timers.due()


def test_a_cancelled_timer_does_not_expire():
    log, timers = [], Timers()
    timers.add(1, Owner(log, "a"))
    cancelled = timers.add(1, Owner(log, "b"))
    timers.cancel(cancelled)
    timers.cancel(cancelled)
    assert 1 == len(timers)
    timers.expire(1)
    assert ["a"] == log
    assert 0 == len(timers)


def test_cancelled_timers_do_not_fill_the_heap():
    timers = Timers()
    timers.add(0, Owner([], None))
    tracemalloc.start()
    try:
        for _ in range(100_000):
            timers.cancel(timers.add(1_000, Owner([], None)))
        left, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    # A hundred thousand entries take more than 2,000,000 bytes. Python keeps some freed objects for itself.
    assert left < 500_000
    assert 1 == len(timers)


def test_expired_timers_leave_no_memory_behind():
    timers = Timers()
    tracemalloc.start()
    try:
        for _ in range(100_000):
            timers.add(1, Owner([], None))
        timers.expire(1)
        left, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert left < 500_000


@given(
    st.lists(
        st.one_of(
            st.tuples(st.just("add"), st.integers(0, 20)),
            st.tuples(st.just("cancel"), st.integers(0, 300)),
            st.tuples(st.just("expire"), st.integers(0, 20)),
        ),
        max_size=300,
    )
)
def test_timers_behave_like_a_sorted_list(operations):
    log, expected, timers, added, alive = [], [], Timers(), [], []
    for operation, number in operations:
        if operation == "add":
            added.append(timers.add(number, Owner(log, len(added))))
            alive.append((number, len(added) - 1))
        elif operation == "cancel" and added:
            name = number % len(added)
            timers.cancel(added[name])
            alive = [one for one in alive if one[1] != name]
        elif operation == "expire":
            due = sorted(one for one in alive if one[0] <= number)
            expected += [name for _, name in due]
            alive = [one for one in alive if one[0] > number]
            assert bool(due) == timers.expire(number)
        assert expected == log
        assert len(alive) == len(timers)
        assert min((when for when, _ in alive), default=inf) == timers.due()
        assert sorted(alive) == sorted((when, owner.name) for when, owner in timers)


def test_a_finalizer_of_the_owner_of_a_cancelled_timer_may_cancel_others():
    timers, log = Timers(), []

    class Cancelling(Owner):
        def __del__(self):
            for other in others:
                timers.cancel(other)

    others = [timers.add(1, Owner(log, "other")) for _ in range(1_000)]
    timers.add(2, Owner(log, "last"))
    timers.cancel(timers.add(1, Cancelling(log, "first")))
    assert 1 == len(timers)
    assert timers.expire(3)
    assert ["last"] == log
    assert 0 == len(timers)


def test_a_timer_may_cancel_and_add_others_while_it_expires():
    log, timers = [], Timers()

    class Changing(Owner):
        def _expire(self):
            super()._expire()
            timers.cancel(doomed)
            timers.add(1, Owner(log, "added"))

    timers.add(0, Changing(log, "first"))
    doomed = timers.add(1, Owner(log, "doomed"))
    timers.expire(1)
    assert ["first", "added"] == log


def test_sleepers_wake_at_their_times(virtual):
    def root():
        log = []
        with ThreadGroup() as g:
            for seconds in (3, 1, 2, 1):
                g.spawn(lambda: (sleep(seconds), log.append(vthreads.now())))
        return log

    assert [1, 1, 2, 3] == virtual(root)


def test_a_wait_longer_than_pollers_can_count_is_no_error(virtual):
    # poll and epoll count milliseconds in an int, which is full after 25 days.
    def root():
        waker = threading.Timer(0.02, vthreads.current_thread().interrupt)
        waker.start()
        with pytest.raises(vthreads.errors.Interrupted):
            sleep(1e9)
        waker.join()

    for poller in POLLERS:
        vthreads.run(root, poller=poller, patch=False)


def test_a_signal_that_another_os_thread_receives_is_handled_while_the_carrier_waits():
    # Only the byte in the wakeup pipe tells the carrier of it.
    def root():
        handled = vthreads.Event()
        before = signal.signal(signal.SIGUSR1, lambda *_: handled.set())
        try:
            receiver = threading.Thread(target=lambda: signal.pthread_kill(threading.get_ident(), signal.SIGUSR1))
            receiver.start()
            handled.wait()
            receiver.join()
        finally:
            signal.signal(signal.SIGUSR1, before)

    vthreads.run(root, patch=False)


def test_a_wait_that_ends_for_nothing_does_not_move_the_clock(virtual):
    def root():
        me = vthreads.current_thread()

        def outside():
            me._scheduler.poller.interrupt()
            time.sleep(0.02)
            me._unpark()

        os_thread = threading.Thread(target=outside)
        os_thread.start()
        me._park()
        os_thread.join()
        return vthreads.now()

    assert 0.0 == virtual(root)


# --- the inbox


def test_a_post_from_an_os_thread_ends_the_wait_of_the_poller(virtual):
    def root():
        me = vthreads.current_thread()
        os_thread = threading.Thread(target=me._unpark, args=("from outside",))
        os_thread.start()
        answer = me._park()
        os_thread.join()
        return answer

    for poller in POLLERS:
        assert "from outside" == virtual(root, poller=poller)


def test_no_message_of_many_os_threads_is_lost(virtual):
    def root():
        scheduler, me = scheduler_here(), vthreads.current_thread()
        seen = []

        def arrived(number):
            seen.append(number)
            if len(seen) == 2_000:
                me._unpark()

        def post(start):
            for number in range(start, start + 500):
                scheduler.post(arrived, number)

        os_threads = [threading.Thread(target=post, args=(start,)) for start in range(0, 2_000, 500)]
        for os_thread in os_threads:
            os_thread.start()
        me._park()
        for os_thread in os_threads:
            os_thread.join()
        return sorted(seen)

    assert list(range(2_000)) == virtual(root)


def test_messages_are_seen_while_two_threads_keep_the_carrier_busy(virtual):
    def root():
        scheduler, log = scheduler_here(), []
        with ThreadGroup() as g:
            ping_pong(g, 100)
            scheduler.post(log.append, "message")
            sleep(0)
            return log

    assert ["message"] == virtual(root)


# --- the pool


def test_finished_greenlets_run_the_next_threads(virtual):
    def root():
        def here():
            return id(getcurrent())

        with ThreadGroup() as g:
            return len({g.spawn(here).result() for _ in range(100)})

    assert 1 == virtual(root)


def test_the_pool_shrinks_after_a_rush_and_is_empty_after_the_run(virtual, monkeypatch):
    monkeypatch.setattr("vthreads._core.engine.states.POOL_SIZE", 5)
    # Greenlets that were unused since the last check are ended.
    monkeypatch.setattr("vthreads._core.engine.states.SHRINK_EVERY", 0.0)

    def root():
        with ThreadGroup() as g:
            for _ in range(50):
                g.spawn(sleep, 1)
        kept = len(scheduler_here()._pool)
        for _ in range(3):
            sleep(1)
        return scheduler_here(), kept, len(scheduler_here()._pool)

    scheduler, kept, pooled = virtual(root)
    assert 40 < kept
    assert 5 == pooled
    assert 0 == len(scheduler._pool)
    gc.collect()
    assert 0 == sum(
        isinstance(thing, greenlet) and thing.gr_frame is not None and not thing.dead for thing in gc.get_objects()
    )


@pytest.mark.parametrize("park", [False, True])
def test_an_ended_thread_and_its_result_go_with_their_last_user(virtual, park):
    class Result:
        pass

    def root():
        def child():
            if park:
                sleep(1)
            return Result()

        gc.disable()
        try:
            future = ThreadGroup.current.spawn(child)
            thread, result = weakref.ref(future.thread), weakref.ref(future.result())
            # Others park and end meanwhile, so that none of them is the last one the engine has seen.
            with ThreadGroup() as g:
                g.spawn(sleep, 1)
            del future
            return thread(), result()
        finally:
            gc.enable()

    assert (None, None) == virtual(root)


def test_a_reused_greenlet_starts_with_the_context_and_exception_state_of_its_own_thread(virtual):
    from contextvars import ContextVar
    from sys import exc_info

    var = ContextVar("var", default="default")

    def root():
        def dirty():
            var.set("dirty")

        def look():
            return var.get(), exc_info()[1]

        with ThreadGroup() as g:
            g.spawn(dirty)
            try:
                raise ValueError("being handled by the spawner")
            except ValueError:
                return g.spawn(look).result()

    assert ("default", None) == virtual(root)
