"""`inject_cancel`."""

import contextlib
import os
import queue
import re
import socket
import subprocess
import threading
import time

import pytest

import vthreads
from vthreads import Channel, Lock, Queue, Semaphore, ThreadGroup, fail_after, shield, sleep, spawn
from vthreads.testing import InjectionError, LeakError, VirtualClock, inject_cancel


class Account:
    def __init__(self):
        self.money, self.lock = 10, Lock()


def is_whole(account):
    return 10 == account.money


def carelessly(account):
    with account.lock:
        account.money -= 1
    sleep(1)
    with account.lock:
        account.money += 1


def carefully(account):
    account.money -= 1
    try:
        sleep(1)
    finally:
        account.money += 1


@pytest.mark.thorough
@pytest.mark.everywhere
def test_it_names_the_checkpoint_at_which_the_invariant_breaks():
    with pytest.raises(InjectionError) as caught:
        inject_cancel(carelessly, setup=Account, invariant=is_whole)
    error = caught.value
    assert f"{__file__}:{carelessly.__code__.co_firstlineno + 3} in carelessly" in error.checkpoint.call
    # The first was the lock; before that nothing has happened.
    assert 2 == error.checkpoint.number
    assert "invariant does not hold" in str(error)


@pytest.mark.thorough
@pytest.mark.everywhere
def test_code_that_stands_it_is_cancelled_at_each_checkpoint():
    checkpoints = inject_cancel(carefully, setup=Account, invariant=is_whole)
    # Once before it parks, once parked.
    assert [1, 2] == [checkpoint.number for checkpoint in checkpoints]
    assert all(f"{carefully.__code__.co_firstlineno + 3} in carefully" in checkpoint.call for checkpoint in checkpoints)


def test_each_checkpoint_is_reached_once():
    def fn():
        reached.append([])
        for step in range(3):
            lock.acquire()
            reached[-1].append(step)
            lock.release()

    lock, reached = Lock(), []
    assert 3 == len(inject_cancel(fn))
    assert [[0, 1, 2], [], [0], [0, 1], [0, 1, 2]] == reached


@pytest.mark.thorough
@pytest.mark.everywhere
def test_virtual_threads_inside_are_cancelled_as_well():
    def child(items):
        for _ in range(2):
            items.put(None)

    def fn():
        items = Queue(1)
        with ThreadGroup() as g:
            g.spawn(child, items)
            for _ in range(2):
                items.get()

    checkpoints = inject_cancel(fn)
    assert {"child", "fn"} == {checkpoint.call.rpartition(" in ")[2] for checkpoint in checkpoints}
    assert any("ThreadGroup.__exit__" in checkpoint.call for checkpoint in checkpoints)


@pytest.mark.thorough
@pytest.mark.everywhere
def test_a_compiled_function_that_was_spawned_is_named_at_its_first_checkpoint():
    def fn():
        with ThreadGroup() as g:
            g.spawn(sleep, 1)

    first, second, *_ = inject_cancel(fn)
    assert first.call.startswith("sleep()")
    assert second.call.startswith("sleep()")


@pytest.mark.thorough
@pytest.mark.everywhere
def test_the_standard_library_is_told_by_what_the_user_called():
    def fn():
        items = queue.Queue()
        with pytest.raises(queue.Empty):
            items.get(timeout=1)
        time.sleep(1)

    calls = [checkpoint.call for checkpoint in inject_cancel(fn)]
    assert any(call.startswith("Queue.get() of <queue.Queue") for call in calls)
    assert all(f"at {__file__}" in call for call in calls)


def test_a_thread_left_running_is_reported():
    def fn(event):
        events.append(event)
        spawned = spawn(event.wait)
        sleep(1)
        event.set()
        spawned.result()

    def root():
        try:
            inject_cancel(fn, setup=vthreads.Event)
        finally:
            events[-1].set()

    events = []
    with pytest.raises(InjectionError, match="left something behind") as caught:
        vthreads.run(root, clock=VirtualClock())
    assert isinstance(caught.value.__cause__, LeakError)
    assert f"{__file__}:" in caught.value.checkpoint.call


@pytest.mark.thorough
@pytest.mark.everywhere
def test_a_lock_left_locked_is_reported():
    def fn():
        lock.acquire()
        sleep(1)
        lock.release()

    lock = Lock()
    with pytest.raises(InjectionError, match="checkpoint 2,") as caught:
        inject_cancel(fn)
    assert "<Lock locked" in str(caught.value.__cause__)


@pytest.mark.sampled(1)
@pytest.mark.everywhere
@pytest.mark.parametrize("module", [vthreads, threading])
@pytest.mark.parametrize("name", ["Lock", "RLock", "Semaphore", "BoundedSemaphore"])
def test_what_stays_held_of_what_was_set_up_is_reported(module, name):
    def setup():
        # Looked up now that the standard library's is patched.
        return getattr(module, name)()

    def carelessly(held):
        held.acquire()
        sleep(1)
        held.release()

    def carefully(held):
        with held:
            sleep(1)

    with pytest.raises(InjectionError, match="left something behind") as caught:
        inject_cancel(carelessly, setup=setup)
    assert f":{carelessly.__code__.co_firstlineno + 2} in carelessly" in caught.value.checkpoint.call
    assert 1 == len(caught.value.__cause__.leaks)
    assert inject_cancel(carefully, setup=setup)


def test_a_call_that_was_not_cancelled_may_keep_what_it_takes():
    assert 1 == len(inject_cancel(lambda lock: lock.acquire(), setup=vthreads.Lock))


def test_what_the_setup_holds_may_stay_held():
    def setup():
        lock = Lock()
        lock.acquire()
        return lock

    inject_cancel(lambda lock: sleep(1), setup=setup)


def test_a_descriptor_left_open_is_reported():
    def fn():
        fds.append(os.open("/dev/null", os.O_RDONLY))
        sleep(1)
        os.close(fds.pop())

    fds = []
    with pytest.raises(InjectionError, match="checkpoint 1,"):
        inject_cancel(fn)
    os.close(fds.pop())


def test_an_exception_in_place_of_the_cancellation_is_reported_unless_expected():
    def fn():
        try:
            sleep(1)
        except BaseException as error:
            raise KeyError from error

    def group():
        with ThreadGroup() as g:
            g.spawn(fn)

    with pytest.raises(InjectionError, match="KeyError") as caught:
        inject_cancel(fn)
    assert isinstance(caught.value.__cause__, KeyError)
    assert 2 == len(inject_cancel(fn, expected=KeyError))
    with pytest.raises(InjectionError):
        inject_cancel(group, expected=ValueError)
    assert 2 <= len(inject_cancel(group, expected=(ValueError, KeyError)))


def test_without_a_cancellation_failures_come_out_as_they_are():
    with pytest.raises(ZeroDivisionError):
        inject_cancel(lambda: 1 / 0)
    with pytest.raises(AssertionError):
        inject_cancel(lambda: None, invariant=lambda: False)
    with pytest.raises(LeakError):
        inject_cancel(Lock().acquire)


def test_an_invariant_may_assert_and_answer_nothing():
    def holds():
        checked.append(True)

    checked = []
    inject_cancel(lambda: sleep(1), invariant=holds)
    # Without a cancellation, at the two checkpoints, and once more to find that there is no third.
    assert [True] * 4 == checked


def test_shields_deadlines_and_cleanup_do_what_they_always_do():
    def fn():
        events = []
        try:
            with fail_after(5):
                sleep(1)
        finally:
            with shield(1):
                sleep(0.5)
                events.append("shielded")
            sleep(0.5)
            events.append("cleaned up")
            done.append(events)

    done = []
    checkpoints = inject_cancel(fn)
    assert len(checkpoints) >= 6
    # At least the one in the shield, whatever was cancelled where; cleanup has its grace after a cancellation before.
    assert all("shielded" in events for events in done)
    assert ["shielded", "cleaned up"] in done[1:]


def test_it_runs_in_the_runtime_of_the_caller_if_there_is_one():
    def root():
        here = vthreads.current_thread()
        kind = type(here)
        inject_cancel(lambda: seen.append(vthreads.current_thread()) or sleep(1))
        assert {here} == set(seen)
        assert kind is type(here)
        assert not here._pending
        assert here._scheduler.observer is None

    seen = []
    vthreads.run(root, clock=VirtualClock())


# --- what a cancellation spoils


def failure_of(fn, **options):
    with pytest.raises(InjectionError) as caught:
        inject_cancel(fn, **options)
    return caught.value


def test_a_child_process_that_is_left_running_is_reported():
    children = []

    def fn():
        child = subprocess.Popen(["sleep", "60"])
        children.append(child)
        sleep(1)
        child.kill()
        child.wait()

    try:
        assert re.search(r"child process \d+ \(sleep 60\)", str(failure_of(fn).__cause__))
    finally:
        for child in children:
            child.kill()
            child.wait()


@pytest.mark.parametrize("make", [Semaphore, threading.Semaphore], ids=["own", "standard"])
def test_a_permit_that_is_given_back_too_often_is_reported(make):
    def fn(semaphore):
        try:
            semaphore.acquire()
            sleep(1)
        finally:
            semaphore.release()

    failure = failure_of(fn, setup=lambda: make(2))
    assert "released too often" in str(failure.__cause__)
    assert 1 == failure.checkpoint.number


def test_a_function_that_produces_permits_may_have_produced_some():
    def produce(semaphore):
        for _ in range(2):
            semaphore.release()
            sleep(1)

    assert 4 == len(inject_cancel(produce, setup=lambda: Semaphore(0)))


def test_a_cancellation_that_is_swallowed_is_reported():
    def fn():
        with contextlib.suppress(BaseException):
            sleep(1)

    failure = failure_of(fn)
    assert "thread 'MainThread' returned although Cancelled was raised in it" in str(failure)
    assert 1 == failure.checkpoint.number


def test_a_cancellation_that_is_swallowed_in_a_spawned_thread_is_reported():
    def swallow():
        with contextlib.suppress(BaseException):
            sleep(1)

    def fn():
        with ThreadGroup() as group:
            group.spawn(swallow)
            group.spawn(sleep, 2)

    assert re.search(r"thread 'virtual-\d+' returned although Cancelled was raised in it", str(failure_of(fn)))


def test_a_cancellation_that_an_own_scope_ends_is_not_swallowed():
    def ends_early():
        with vthreads.move_on_after(1):
            sleep(2)
        with ThreadGroup() as group:
            group.spawn(sleep, 5)
            group.cancel()

    def fn():
        with ThreadGroup() as group:
            group.spawn(ends_early)
        assert 1 == vthreads.race(lambda: sleep(1) or 1, lambda: sleep(2))
        assert [None, None] == vthreads.gather(lambda: sleep(1), lambda: sleep(2))

    assert inject_cancel(fn)


def test_the_clock_can_be_given():
    clock = VirtualClock(start=7.0)
    times = []
    inject_cancel(lambda: times.append(vthreads.now()), clock=clock)
    assert {7.0} == set(times)
    with pytest.raises(ValueError, match="pass it to `run` instead"):
        vthreads.run(lambda: inject_cancel(int, clock=clock))


class HalfMade:
    """Its repr fails while it waits in `__init__`, and is a checkpoint afterwards."""

    def __init__(self):
        self.lock = threading.Lock()
        self.wait()
        self.name = "whole"

    def __repr__(self):
        sleep(1)
        return f"<{self.name}>"

    def wait(self):
        sleep(1)


def test_the_repr_of_a_half_made_object_is_not_called():
    # Issue 10: an AttributeError out of Popen.__repr__ was reported as the function's.
    def fn():
        with subprocess.Popen(["cat"], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
            try:
                child.communicate(b"hello")
            except BaseException:
                child.kill()
                raise

    checkpoints = inject_cancel(fn)
    assert any(" of <subprocess.Popen object at 0x" in checkpoint.call for checkpoint in checkpoints)


def test_the_repr_of_an_object_is_no_checkpoint_of_the_function():
    assert 2 == len(inject_cancel(HalfMade))


def test_endless_code_is_told():
    def fn():
        for _ in range(20):
            Lock().acquire()

    with pytest.raises(RuntimeError, match="larger max_checkpoints"):
        inject_cancel(fn, max_checkpoints=10)
    assert 20 == len(inject_cancel(fn, max_checkpoints=30))


# --- what the runtime itself promises: whatever is cancelled where, nothing is lost


def through_channel():
    channel = Channel(1)
    with ThreadGroup() as g:
        g.spawn(lambda: [channel.send(n) for n in range(3)])
        for _ in range(3):
            channel.receive()


def with_semaphore():
    semaphore = Semaphore(1)

    def use():
        with semaphore:
            sleep(1)

    with ThreadGroup() as g:
        for _ in range(3):
            g.spawn(use)


def with_condition():
    condition, ready = threading.Condition(), []

    def consume():
        with condition:
            condition.wait_for(lambda: ready, timeout=10)

    with ThreadGroup() as g:
        g.spawn(consume)
        sleep(1)
        with condition:
            ready.append(True)
            condition.notify_all()


def over_sockets():
    here, there = socket.socketpair()
    with here, there, ThreadGroup() as g:
        g.spawn(there.sendall, b"x" * 10)
        here.recv(10)


def bounded_group():
    with ThreadGroup(max_concurrency=1) as g:
        for _ in range(3):
            g.spawn(sleep, 1)


def offloaded():
    vthreads.offload(lambda: None)


@pytest.mark.parametrize(
    "fn", [through_channel, with_semaphore, with_condition, over_sockets, bounded_group, offloaded]
)
def test_the_runtime_itself_stands_it(fn):
    assert inject_cancel(fn)
