"""Patching: order does not matter, OS threads notice nothing, and it can be taken back."""

from __future__ import annotations

import concurrent.futures
import copy
import importlib
import inspect
import os
import pickle
import queue
import select
import signal
import socket
import sys
import threading
import time
import traceback
import types
from time import sleep as captured_sleep

import pytest

import vthreads
from vthreads import ThreadGroup
from vthreads.testing import VirtualClock

pytestmark = pytest.mark.unpatched


class Captured:
    pause = time.sleep
    make_poll = getattr(select, "poll", None)
    close = staticmethod(os.close)


def with_default(pause=time.sleep, *, again=time.sleep):
    pause(1)
    again(1)


def virtual(fn):
    return vthreads.run(fn, clock=VirtualClock())


# --- what was captured before


def test_names_captured_before_are_mended():
    def root():
        captured_sleep(1)
        Captured.pause(1)
        Captured().pause(1)
        with_default()
        return vthreads.now()

    assert 5.0 == virtual(root)


def test_a_module_that_captured_and_is_imported_later_is_mended_too():
    module = types.ModuleType("late_module")
    exec("from time import sleep\ndef pause(): sleep(3)", module.__dict__)
    sys.modules["late_module"] = module
    try:

        def root():
            module.pause()
            return vthreads.now()

        assert 3.0 == virtual(root)
    finally:
        del sys.modules["late_module"]


def test_locks_made_before_the_runtime_started_do_not_block_the_carrier(run_script):
    out = run_script(
        """
        import queue, threading, time
        lock, rlock, items = threading.Lock(), threading.RLock(), queue.Queue(1)
        class Pool:
            def __init__(self):
                self.lock = threading.RLock()
                self.free = threading.Condition(self.lock)
                self.bounded = threading.BoundedSemaphore(1)
        pool = Pool()
        held = threading.Lock()
        held.acquire()
        import warnings
        warnings.filterwarnings("ignore", "vthreads could not exchange")
        import vthreads
        def work(guard, number):
            with guard:
                time.sleep(0.01)
                order.append(number)
        with vthreads.ThreadGroup() as group:
            assert not isinstance(held, vthreads._sync.locks.Lock), "a lock that somebody holds stays"
            for guard in (lock, rlock, pool.lock, pool.free, pool.bounded, items.mutex):
                order = []
                with vthreads.ThreadGroup() as group:
                    for number in range(3):
                        group.spawn(work, guard, number)
                assert [0, 1, 2] == order, guard
            getter = vthreads.spawn(items.get)
            items.put("through")
            print(getter.result())
        """
    )
    assert "through\n" == out


def test_a_lock_in_a_class_is_exchanged_where_the_interpreter_remembers_it(run_script):
    assert "True True\n" == run_script(
        """
        import gc, threading, weakref, vthreads

        class Meta(type):
            lock = threading.Lock()

        class Holder(metaclass=Meta):
            inner = threading.Lock()

        def look():
            return Holder.inner, Holder.lock

        class Gone:
            pass

        gone = Gone()
        proxies = [weakref.proxy(gone)]
        del gone
        for _ in range(1000):
            look()
        vthreads.patch()
        fill = [{} for _ in range(10_000)]
        print(*(type(lock) is type(threading.Lock()) for lock in look()))
        """
    )


def test_a_lock_that_was_frozen_for_the_garbage_collector_is_exchanged_and_frozen_again(run_script):
    assert "True True\n" == run_script(
        """
        import gc, threading, vthreads

        class Holder:
            lock = threading.Lock()

        gc.freeze()
        frozen = gc.get_freeze_count()
        vthreads.patch()
        print(type(Holder.lock) is type(threading.Lock()), gc.get_freeze_count() >= frozen)
        """
    )


def test_a_lock_that_was_frozen_is_reported_with_its_place_and_not_once_it_is_garbage(run_script):
    assert "in __main__.Server.lock\n1\n" == run_script(
        """
        import gc, threading, vthreads, warnings

        class Server:
            lock = threading.Lock()

        class Gone:
            lock = threading.Lock()

        Server.lock.acquire(), Gone.lock.acquire()
        gone = Gone()
        gone.itself = gone
        del gone, Gone
        gc.freeze()
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            vthreads.patch()
        text = str(caught[0].message)
        print(text.rpartition("; ")[2])
        print(text.count("_thread.lock"))
        """
    )


def test_nothing_is_frozen_in_a_program_that_has_frozen_nothing(run_script):
    assert "True\n" == run_script(
        """
        import gc, vthreads
        frozen = gc.get_freeze_count()
        vthreads.patch()
        print(gc.get_freeze_count() <= frozen)
        """
    )


def test_thread_locals_made_before_keep_the_data_of_os_threads_and_are_per_virtual_thread(run_script):
    out = run_script(
        """
        import threading
        data = threading.local()
        data.value = "set before"
        class Registry:
            def __init__(self):
                self.session = threading.local()
        registry = Registry()
        import vthreads
        def work(number):
            assert not hasattr(data, "value")
            registry.session.number = number
            vthreads.sleep(0.01)
            return registry.session.number
        with vthreads.ThreadGroup() as group:
            futures = [group.spawn(work, number) for number in range(3)]
        print([future.result() for future in futures], data.value, hasattr(registry.session, "number"))
        """
    )
    assert "[0, 1, 2] set before False\n" == out


def test_two_virtual_threads_never_own_one_rlock():
    def root():
        lock, inside = threading.RLock(), []

        def work(number):
            with lock, lock:
                inside.append(number)
                time.sleep(1)
                assert number == inside[-1]

        with ThreadGroup() as group:
            for number in range(3):
                group.spawn(work, number)
        return inside

    assert [0, 1, 2] == virtual(root)


def test_a_queue_that_is_imported_again_parks_as_well(monkeypatch):
    def root():
        monkeypatch.delitem(sys.modules, "queue")
        monkeypatch.delitem(sys.modules, "_queue")
        again = importlib.import_module("queue")
        assert again is not queue
        items = again.SimpleQueue()
        with ThreadGroup() as group:
            taken = group.spawn(items.get)
            items.put("item")
        with pytest.raises(again.Empty):
            items.get(timeout=1)
        return taken.result()

    assert "item" == virtual(root)


# --- taking it back


@pytest.mark.thorough
@pytest.mark.everywhere
def test_unpatching_puts_the_originals_back_everywhere():
    vthreads.unpatch()
    # In tuples, which are not changed.
    originals = (time.sleep, socket.socket.recv, threading.Lock, select.select, os.close, queue.SimpleQueue)
    originals += (vars(threading.Event)["set"], Captured.__dict__["pause"], with_default.__defaults__)
    vthreads.patch()
    assert time.sleep is not originals[0]
    vthreads.patch()
    vthreads.unpatch()
    again = (time.sleep, socket.socket.recv, threading.Lock, select.select, os.close, queue.SimpleQueue)
    again += (vars(threading.Event)["set"], Captured.__dict__["pause"], with_default.__defaults__)
    assert all(one is other for one, other in zip(originals[:-1], again[:-1], strict=True))
    assert originals[-1] == again[-1]
    assert captured_sleep is time.sleep
    vthreads.patch()


def test_after_unpatching_nothing_patches_again_by_itself(run_script):
    out = run_script(
        """
        import time, vthreads
        kept = [time.sleep]
        vthreads.patch()
        vthreads.unpatch()
        vthreads.run(lambda: vthreads.sleep(0))
        print(time.sleep is kept[0])
        """
    )
    assert "True\n" == out


@pytest.mark.parametrize(
    ("environment", "call"),
    [({"VTHREADS_PATCH": "0"}, "vthreads.run(main)"), ({}, "vthreads.run(main, patch=False)")],
)
def test_patching_can_be_left_out(environment, call, run_script):
    out = run_script(
        f"""
        import time, vthreads
        kept = [time.sleep]
        def main():
            with vthreads.ThreadGroup() as group:
                group.spawn(vthreads.sleep, 0)
            print(time.sleep is kept[0])
        {call}
        """,
        **environment,
    )
    assert "True\n" == out


def test_virtual_threads_alive_when_unpatched_end_normally():
    def root():
        with ThreadGroup() as group:
            sleeper = group.spawn(lambda: (time.sleep(1), "slept"))
            locked = threading.Lock()
            locked.acquire()
            waiter = group.spawn(locked.acquire)
            vthreads.unpatch()
            locked.release()
        return sleeper.result()[1], waiter.result()

    try:
        assert ("slept", True) == virtual(root)
    finally:
        vthreads.patch()


# --- who am I


def test_each_virtual_thread_is_a_thread_of_its_own_and_the_root_is_still_the_main_thread():
    def who():
        me = threading.current_thread()
        return me, threading.get_ident(), isinstance(me, threading.Thread), me.ident, me.is_alive()

    def root():
        assert threading.main_thread() is threading.current_thread()
        assert threading.get_ident() == threading.main_thread().ident
        return vthreads.gather(who, who)

    one, two = virtual(root)
    assert one[0] is not two[0]
    assert one[1] != two[1]
    assert (True, one[1], True) == one[2:]


def test_thread_locals_are_per_virtual_thread():
    def root():
        data = threading.local()
        data.value = "root"

        def work(value):
            assert not hasattr(data, "value")
            data.value = value
            time.sleep(1)
            return data.value

        assert ["one", "two"] == vthreads.gather(lambda: work("one"), lambda: work("two"))
        return data.value

    assert "root" == virtual(root)


# --- the standard library on top


def test_a_condition_of_the_standard_library_loses_no_notify_to_a_cancelled_waiter():
    def root():
        items = queue.Queue()
        with ThreadGroup() as group:
            first = group.spawn(items.get)
            second = group.spawn(items.get)
            first.cancel()
            # Before the first has run its cleanup: its place in the queue of the condition is still there.
            items.put("for the second")
        assert first.cancelled()
        return second.result()

    assert "for the second" == virtual(root)


@pytest.mark.parametrize("lock", ["Lock", "RLock"])
def test_taking_the_lock_again_after_a_wait_is_never_cancelled(lock):
    def wait(condition):
        with condition:
            notified = condition.wait()
            # Cancelled while it waited for the lock, which it has all the same: leaving the block releases it.
            held.append((notified, condition._is_owned()))
            with pytest.raises(vthreads.Cancelled):
                vthreads.checkpoint()

    def root():
        condition = threading.Condition(getattr(threading, lock)())
        with ThreadGroup() as group:
            group.spawn(wait, condition)
            with condition:
                condition.notify()
                vthreads.sleep(0)
                group.cancel()
                with vthreads.shield(None):
                    vthreads.sleep(1)
        assert condition.acquire(blocking=False)
        condition.release()

    held = []
    virtual(root)
    assert [(True, True)] == held


def test_giving_back_never_raises_a_cancellation():
    def root():
        semaphore, event, items = threading.Semaphore(0), threading.Event(), queue.Queue()
        future = concurrent.futures.Future()
        with vthreads.CancelScope() as scope:
            scope.cancel()
            semaphore.release()
            event.set()
            items.put("kept", block=False)
            future.set_result("kept")
            with pytest.raises(vthreads.Cancelled):
                event.wait()
            with pytest.raises(vthreads.Cancelled):
                items.get()
            with pytest.raises(vthreads.Cancelled):
                semaphore.acquire()
        assert semaphore.acquire(blocking=False)
        assert event.is_set()
        return items.get(), future.result()

    assert ("kept", "kept") == virtual(root)


def test_giving_back_through_a_contended_lock_waits_and_succeeds():
    def root():
        semaphore = threading.Semaphore(0)

        def hold():
            with semaphore._cond:
                time.sleep(1)

        def give_back():
            with vthreads.CancelScope() as scope:
                scope.cancel()
                semaphore.release()

        vthreads.gather(hold, give_back)
        assert semaphore.acquire(blocking=False)

    virtual(root)


def test_an_uncontended_standard_lock_is_taken_in_a_cancelled_scope():
    def root():
        lock, rlock = threading.Lock(), threading.RLock()
        with vthreads.CancelScope() as scope:
            scope.cancel()
            with lock, rlock, rlock:
                pass
        assert not scope.cancelled_caught

    virtual(root)


def test_a_thread_pool_is_shared_by_virtual_threads():
    def root():
        with concurrent.futures.ThreadPoolExecutor(4) as pool:
            assert [0, 1, 4, 9] == list(pool.map(lambda n: n * n, range(4)))
            return vthreads.gather(*[lambda n=n: pool.submit(pow, n, 3).result() for n in range(4)])

    assert [0, 1, 8, 27] == virtual(root)


def test_joining_an_os_thread_parks_the_virtual_thread():
    def root():
        gate = threading.Event()
        thread = threading.Thread(target=gate.wait)
        thread.start()
        with ThreadGroup() as group:
            joined = group.spawn(lambda: (thread.join(), thread.is_alive()))
            timed = group.spawn(lambda: (thread.join(1), thread.is_alive()))
            assert (None, True) == timed.result()
            gate.set()
        return joined.result()

    assert (None, False) == virtual(root)


def test_a_queue_between_os_threads_and_virtual_threads_carries_everything():
    def root():
        there, back = queue.Queue(2), queue.SimpleQueue()

        def os_thread():
            while (item := there.get()) is not None:
                back.put(item * 10)

        thread = threading.Thread(target=os_thread)
        thread.start()
        with ThreadGroup() as group:
            for number in range(20):
                group.spawn(there.put, number)
            received = [back.get() for _ in range(20)]
        there.put(None)
        thread.join()
        return sorted(received)

    assert [number * 10 for number in range(20)] == virtual(root)


# --- what a program sees of the replacements


def test_a_class_that_keeps_a_replaced_builtin_does_not_make_a_method_of_it():
    vthreads.patch()

    class Closer:
        close = os.close
        wait = time.sleep

    assert Closer.close is os.close
    assert Closer().wait is time.sleep
    readable, writable = os.pipe()
    Closer().close(readable)
    Closer().close(writable)
    vthreads.run(lambda: Closer().wait(0))


def test_replaced_functions_have_the_names_of_the_originals_and_are_pickled_by_them():
    places = [(time, "sleep"), (os, "close"), (select, "select"), (socket, "getaddrinfo"), (signal, "signal")]
    vthreads.unpatch()
    # In a tuple, which the patch leaves as it is.
    originals = tuple(getattr(module, name) for module, name in places)
    vthreads.patch()
    for original, (module, name) in zip(originals, places, strict=True):
        replaced = getattr(module, name)
        assert replaced is not original
        for attribute in ("__module__", "__name__", "__qualname__"):
            assert getattr(original, attribute) == getattr(replaced, attribute)
        assert pickle.loads(pickle.dumps(replaced)) is replaced
        assert copy.deepcopy(replaced) is replaced
        assert inspect.isbuiltin(original) == inspect.isbuiltin(replaced)


def test_lock_types_and_thread_locals_are_known_by_the_names_of_the_originals():
    def names():
        classes = [type(threading.Lock()), type(threading.RLock()), threading.local, type(select.poll())]
        return [(cls.__module__, cls.__qualname__) for cls in classes]

    vthreads.unpatch()
    before = names()
    vthreads.patch()
    assert before == names()


def test_a_condition_made_before_the_runtime_takes_its_lock_back_when_a_wait_in_it_is_cancelled():
    # What is made on a lock of the original type is put on one of ours, without the methods that ours brings along.
    semaphore = threading.BoundedSemaphore(1)

    def waits():
        with semaphore:
            pytest.fail("nobody released it")

    def root():
        semaphore.acquire()
        with ThreadGroup() as group:
            futures = [group.spawn(waits) for _ in range(3)]
            # All of them stand in line for the lock of the condition when the cancel comes.
            with semaphore._cond:
                for future in futures:
                    future.cancel()
                vthreads.sleep(1)
        semaphore.release()
        return [future.cancelled() for future in futures]

    assert [True] * 3 == vthreads.run(root, clock=VirtualClock())


def test_a_traceback_is_shown_with_its_source_in_a_cancelled_thread(tmp_path, monkeypatch):
    (tmp_path / "fails_when_called.py").write_text("def call():\n    1 / 0  # the line in question\n")
    monkeypatch.syspath_prepend(tmp_path)
    import fails_when_called

    shown = []

    def root():
        with vthreads.CancelScope() as scope:
            try:
                fails_when_called.call()
            except ZeroDivisionError as error:
                scope.cancel()
                shown.extend(traceback.format_exception(error))
            vthreads.sleep(1)
        assert scope.cancelled_caught

    vthreads.run(root)
    del sys.modules["fails_when_called"]
    assert "1 / 0  # the line in question" in "".join(shown)
