"""`ThreadGroup.submit`: members that run in an executor, from their start to their end or their abandonment."""

import concurrent.futures
import gc
import logging
import multiprocessing
import os
import threading
import time
import weakref
from concurrent.futures import CancelledError, ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextvars import ContextVar

import pytest

import vthreads
from vthreads import Cancelled, GroupClosed, Interrupted, Semaphore, ThreadGroup
from vthreads._core import originals
from vthreads._os_threads.calls import calls_under_way


class Manual(concurrent.futures.Executor):
    """An executor whose calls the test begins and ends, from any thread."""

    def __init__(self):
        self.futures = []
        self.calls = []

    def submit(self, fn, /, *args, **kwargs):
        future = concurrent.futures.Future()
        self.futures.append(future)
        self.calls.append((fn, args, kwargs))
        return future

    def begin_all(self):
        for future in self.futures:
            future.set_running_or_notify_cancel()


def from_os_thread(function, *args):
    """Call the function on an OS thread, and wait for its end without a checkpoint."""
    os_thread = threading.Thread(target=function, args=args)
    os_thread.start()
    os_thread.join()


def abandoned():
    return [call.abandoned for call in calls_under_way() if call.kind == "executor"]


def work():
    raise AssertionError("the executor of the test calls nothing")


# --- the main path


def test_the_future_of_the_member_has_the_result(virtual):
    manual = Manual()

    def root():
        with ThreadGroup() as group:
            future = group.submit(manual, work, 1, key=2)
            assert [(work, (1,), {"key": 2})] == manual.calls
            assert [future.thread] == list(group)
            manual.begin_all()
            assert [False] == abandoned()
            manual.futures[0].set_result("value")
            return future.result(), isinstance(future, vthreads.Future), abandoned()

    assert ("value", True, []) == virtual(root)


def test_contextvars_of_the_caller_are_not_passed_to_the_call():
    variable = ContextVar("variable", default="unset")

    def root():
        variable.set("set")
        with ThreadPoolExecutor(1) as pool, ThreadGroup() as group:
            return group.submit(pool, variable.get).result()

    assert "unset" == vthreads.run(root)


def test_an_original_stands_for_its_replacement(virtual):
    manual = Manual()

    def root():
        with ThreadGroup() as group:
            group.submit(manual, originals.sleep, 3600)
            manual.futures[0].set_result(None)
        return manual.calls == [(time.sleep, (3600,), {})]

    assert virtual(root)
    assert originals.sleep is not time.sleep


def test_the_block_waits_for_a_result_from_an_os_thread(virtual):
    manual = Manual()

    def root():
        with ThreadGroup() as group:
            future = group.submit(manual, work)
            group.spawn(lambda: from_os_thread(manual.futures[0].set_result, 5))
        return future.result(0)

    assert 5 == virtual(root, patch=False)


def test_a_call_that_ended_in_submit_has_its_result(virtual):
    class AtOnce(concurrent.futures.Executor):
        def submit(self, fn, /, *args, **kwargs):
            future = concurrent.futures.Future()
            future.set_result(fn(*args, **kwargs))
            return future

    def root():
        with ThreadGroup() as group:
            return group.submit(AtOnce(), divmod, 7, 2).result()

    assert (3, 1) == virtual(root)


def test_outside_any_group_the_background_group_has_the_member(virtual):
    manual = Manual()

    def root():
        future = ThreadGroup.current.submit(manual, work)
        manual.futures[0].set_result(1)
        return future.result()

    assert 1 == virtual(root)


@pytest.mark.parametrize(("executor", "fn"), [(None, work), (work, Manual()), (Manual(), 5)])
def test_wrong_arguments_are_refused_at_the_call(virtual, executor, fn):
    def root():
        with ThreadGroup() as group:
            with pytest.raises(TypeError, match=r"submit\(\) got"):
                group.submit(executor, fn)

    virtual(root)


def test_a_closed_group_refuses(virtual):
    manual = Manual()

    def root():
        with ThreadGroup() as group:
            group.close()
            with pytest.raises(GroupClosed):
                group.submit(manual, work)

    virtual(root)
    assert [] == manual.calls


# --- the limit of running members


def test_the_slot_is_held_until_the_call_has_ended(virtual):
    manual = Manual()

    def root():
        with ThreadGroup(max_concurrency=2) as group:

            def end_all():
                while len(manual.futures) < 5 or not all(future.done() for future in manual.futures):
                    seen.append(len([future for future in manual.futures if not future.done()]))
                    next(future for future in manual.futures if not future.done()).set_result(None)
                    vthreads.sleep(1)

            seen = []
            with ThreadGroup() as other:
                other.spawn(lambda: (vthreads.sleep(1), end_all()))
                for _ in range(5):
                    group.submit(manual, work)
        return seen

    assert [2, 2, 2, 2, 1] == virtual(root)


def test_an_abandoned_call_keeps_a_shared_slot_until_its_end(virtual):
    manual = Manual()
    slots = Semaphore(1)

    def root():
        with vthreads.move_on_after(1), ThreadGroup(max_concurrency=slots) as group:
            group.submit(manual, work)
            manual.begin_all()
        during = slots.statistics().value, abandoned()
        from_os_thread(manual.futures[0].set_result, None)
        return during, (slots.statistics().value, abandoned())

    assert ((0, [True]), (1, [])) == virtual(root, patch=False)


# --- failures


@pytest.mark.parametrize("error", [LookupError("there"), CancelledError("in the call"), StopIteration(1)])
def test_a_failure_cancels_the_siblings(virtual, error):
    manual = Manual()

    def root():
        with pytest.raises(ExceptionGroup) as raised, ThreadGroup() as group:
            failing, queued = group.submit(manual, work), group.submit(manual, work)
            sibling = group.spawn(vthreads.sleep, 100)
            manual.futures[0].set_exception(error)
        assert (error,) == raised.value.exceptions
        assert (True, True, False) == (queued.cancelled(), sibling.cancelled(), failing.cancelled())
        return vthreads.now()

    virtual(root)
    assert manual.futures[1].cancelled()


def test_a_failure_of_submit_itself_is_one_of_the_group(virtual):
    class Closed(Manual):
        def submit(self, fn, /, *args, **kwargs):
            raise RuntimeError("cannot schedule new futures after shutdown")

    def root():
        with pytest.raises(ExceptionGroup) as raised, ThreadGroup() as group:
            group.submit(Closed(), work)
        return [str(error) for error in raised.value.exceptions]

    assert ["cannot schedule new futures after shutdown"] == virtual(root)


def test_a_cancelled_of_a_runtime_in_the_call_is_a_failure(virtual):
    manual = Manual()

    def root():
        with ThreadGroup(on_failure="continue") as group:
            future = group.submit(manual, work)
            manual.futures[0].set_exception(Cancelled("of another runtime"))
            with pytest.raises(CancelledError, match="of another runtime"):
                future.result()
            return future.cancelled()

    assert virtual(root) is False


def test_a_system_exit_of_the_call_leaves_the_block_bare(virtual):
    manual = Manual()

    def root():
        with pytest.raises(SystemExit), ThreadGroup() as group:
            group.submit(manual, work)
            manual.futures[0].set_exception(SystemExit(3))

    virtual(root)


@pytest.mark.parametrize("on_os_thread", [False, True])
def test_a_future_that_others_cancel_is_a_cancelled_member(virtual, on_os_thread):
    manual = Manual()

    def root():
        with ThreadGroup() as group:
            future, sibling = group.submit(manual, work), group.submit(manual, work)
            (from_os_thread if on_os_thread else lambda function: function())(manual.futures[0].cancel)
            vthreads.wait(future)
            manual.futures[1].set_result("goes on")
        return future.cancelled(), sibling.result()

    assert (True, "goes on") == virtual(root, patch=False)


class Argument:
    """An argument to which a weak reference can be made."""


def test_an_argument_is_not_kept_while_the_call_runs(virtual):
    manual = Manual()

    def root():
        argument = Argument()
        reference = weakref.ref(argument)
        with ThreadGroup() as group:
            group.submit(manual, work, argument, key=argument)
            manual.calls.clear()
            del argument
            kept = reference()
            manual.futures[0].set_result(None)
        return kept

    assert virtual(root) is None


def test_nothing_is_kept_of_a_failure_that_was_handled(virtual):
    manual = Manual()

    def root():
        argument = Argument()
        reference = weakref.ref(argument)
        error = LookupError(argument)
        with pytest.raises(ExceptionGroup), ThreadGroup() as group:
            group.submit(manual, work, argument)
            manual.futures.pop().set_exception(error)
        manual.calls.clear()
        del argument, error, group
        return reference

    gc.disable()
    try:
        reference = virtual(root)
        gc.collect()
        assert reference() is None
    finally:
        gc.enable()


# --- cancellation in each state


def test_a_call_that_waits_for_a_slot_is_never_submitted(virtual):
    manual = Manual()

    def root():
        with ThreadGroup(max_concurrency=1) as group:
            # A member does not wait for a slot: its call is queued.
            group.spawn(lambda: (group.submit(manual, work), vthreads.sleep(1), group.cancel()))

    virtual(root)
    assert [] == manual.calls


def test_a_call_that_has_not_begun_is_cancelled_in_the_executor(virtual):
    manual = Manual()

    def root():
        with ThreadGroup() as group:
            future = group.submit(manual, work)
            group.cancel()
        return future.cancelled(), vthreads.now(), abandoned()

    assert (True, 0, []) == virtual(root)
    assert manual.futures[0].cancelled()


@pytest.mark.parametrize("fails", [False, True])
def test_a_call_that_ends_within_the_grace_has_its_outcome(virtual, fails):
    manual = Manual()

    def end():
        with vthreads.shield(9):
            vthreads.sleep(1)
            if fails:
                manual.futures[0].set_exception(LookupError("late"))
            else:
                manual.futures[0].set_result("late")

    def root():
        with ThreadGroup(on_failure="continue", cleanup_grace=2) as group:
            future = group.submit(manual, work)
            manual.begin_all()
            group.spawn(end)
            group.cancel()
        return future.result(0), vthreads.now()

    if fails:
        with pytest.raises(ExceptionGroup, match="1 failure"):
            virtual(root)
    else:
        assert ("late", 1) == virtual(root)


def test_the_block_abandons_calls_after_the_grace(virtual, caplog):
    manual = Manual()

    def root():
        vthreads.sleep(5)
        with ThreadGroup(cleanup_grace=3) as group:
            future = group.submit(manual, work)
            manual.begin_all()
            group.cancel()
        seen = future.cancelled(), vthreads.now(), abandoned()
        # Not in one line with the text, because a dump contains the line that asks for it.
        dump = vthreads.dump()
        assert "work (executor) for 3.0 s, abandoned" in dump
        caplog.set_level(logging.INFO, "vthreads")
        manual.futures[0].set_exception(LookupError("too late"))
        return seen, abandoned()

    assert ((True, 8, [True]), []) == virtual(root)
    assert ["an abandoned call of"] == [record.getMessage()[:20] for record in caplog.records]


def test_the_end_beats_a_cancellation_that_comes_at_the_same_time(virtual):
    manual = Manual()

    def root():
        with ThreadGroup() as group:
            future = group.submit(manual, work)
            manual.begin_all()
            from_os_thread(manual.futures[0].set_result, "value")
            group.cancel()
        return future.result(0)

    assert "value" == virtual(root, patch=False)


def test_an_outcome_that_came_just_before_the_cancellation_is_not_lost(virtual):
    manual = Manual()

    def root():
        with pytest.raises(ExceptionGroup) as raised, ThreadGroup() as group:
            group.submit(manual, work)
            manual.begin_all()
            group.cancel()
            # The member is unparked by the cancellation, and has not run yet.
            manual.futures[0].set_exception(LookupError("not lost"))
        return [str(error) for error in raised.value.exceptions]

    assert ["not lost"] == virtual(root)


def test_an_interrupt_abandons_a_call_that_runs(virtual):
    manual = Manual()

    def root():
        with ThreadGroup(on_failure="continue") as group:
            future = group.submit(manual, work)
            manual.begin_all()
            future.thread.interrupt()
            with pytest.raises(Interrupted):
                future.result()
            return abandoned(), manual.futures[0].set_result(None), abandoned()

    assert ([True], None, []) == virtual(root)


def test_an_interrupt_cancels_a_call_that_has_not_begun(virtual):
    manual = Manual()

    def root():
        with ThreadGroup(on_failure="continue") as group:
            future = group.submit(manual, work)
            future.thread.interrupt()
            with pytest.raises(Interrupted):
                future.result()
        return manual.futures[0].cancelled(), abandoned()

    assert (True, []) == virtual(root)


def test_a_call_that_ends_just_after_an_interrupt_gives_its_slot_back(virtual, caplog):
    manual = Manual()
    slots = Semaphore(1)

    def root():
        with ThreadGroup(on_failure="continue", max_concurrency=slots) as group:
            future = group.submit(manual, work)
            manual.begin_all()
            future.thread.interrupt()
            # The member is unparked by the interrupt, and has not run yet.
            manual.futures[0].set_exception(LookupError("abandoned"))
            with pytest.raises(Interrupted):
                future.result()
        return slots.statistics().value, abandoned()

    caplog.set_level(logging.INFO, "vthreads")
    assert (1, []) == virtual(root)
    assert ["an abandoned call of"] == [record.getMessage()[:20] for record in caplog.records]


def test_cancel_of_the_future_cancels_one_call(virtual):
    manual = Manual()

    def root():
        with ThreadGroup() as group:
            one, other = group.submit(manual, work), group.submit(manual, work)
            one.cancel()
            vthreads.wait(one)
            manual.futures[1].set_result(2)
        return one.cancelled(), other.result(0)

    assert (True, 2) == virtual(root)


def test_a_deadline_cancels_the_calls(virtual):
    manual = Manual()

    def root():
        with pytest.raises(TimeoutError), vthreads.fail_after(5), ThreadGroup() as group:
            group.submit(manual, work)
        return vthreads.now()

    assert 5 == virtual(root)


def test_an_executor_that_cannot_cancel_is_logged(virtual, caplog):
    class Broken(concurrent.futures.Future):
        def cancel(self):
            raise OSError("connection lost")

    manual = Manual()

    def root():
        with ThreadGroup(cleanup_grace=1) as group:
            manual.submit = lambda *_: manual.futures.append(Broken()) or manual.futures[-1]
            future = group.submit(manual, work)
            group.cancel()
        return future.cancelled(), vthreads.now()

    assert (True, 1) == virtual(root)
    concurrent.futures.Future.cancel(manual.futures[0])
    # Only the failure of the executor: the late end by a cancellation is not one.
    assert ["connection lost"] == [str(record.exc_info[1]) for record in caplog.records]


def test_a_cancellation_while_the_future_is_locked_loses_no_call(virtual):
    class Locked(concurrent.futures.Future):
        def add_done_callback(self, fn):
            # The executor holds the lock of the future, so this waits.
            vthreads.checkpoint()
            super().add_done_callback(fn)

    class Begins(Manual):
        def submit(self, fn, /, *args, **kwargs):
            self.futures.append(Locked())
            self.begin_all()
            self.group.cancel()
            return self.futures[0]

    begins = Begins()

    def root():
        with ThreadGroup(cleanup_grace=0) as begins.group:
            future = begins.group.submit(begins, work)
        seen = future.cancelled(), abandoned()
        begins.futures[0].set_result(None)
        return seen, abandoned()

    assert ((True, [True]), []) == virtual(root)


def test_a_submit_that_waits_can_be_cancelled(virtual):
    class Bounded(Manual):
        def submit(self, fn, /, *args, **kwargs):
            vthreads.sleep(100)
            return super().submit(fn, *args, **kwargs)

    bounded = Bounded()

    def root():
        with ThreadGroup() as group:
            group.submit(bounded, work)
            group.cancel()
        return vthreads.now()

    assert 0 == virtual(root)
    assert [] == bounded.calls


# --- real executors


def square(number):
    return number * number


def end_process():
    os._exit(1)


def fail():
    raise ZeroDivisionError("in the pool")


def processes():
    return ProcessPoolExecutor(2, mp_context=multiprocessing.get_context("fork"))


def threads():
    return ThreadPoolExecutor(2)


real = [pytest.mark.real, pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")]
EXECUTORS = [
    pytest.param(threads, marks=real),
    pytest.param(processes, marks=real),
]


@pytest.mark.parametrize("make", EXECUTORS)
def test_results_failures_and_the_limit_in_a_real_executor(make):
    def root():
        with make() as pool:
            with ThreadGroup(max_concurrency=4) as group:
                futures = [group.submit(pool, square, number) for number in range(20)]
            assert [number * number for number in range(20)] == [future.result() for future in futures]
            with pytest.raises(ExceptionGroup) as raised, ThreadGroup() as group:
                # An original that the patch has exchanged must still reach the worker.
                group.submit(pool, ORIGINAL_SLEEP, 0).result()
                group.submit(pool, fail)
        assert [ZeroDivisionError] == [type(error) for error in raised.value.exceptions]

    vthreads.run(root)


ORIGINAL_SLEEP = time.sleep


@pytest.mark.real
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_the_child_of_a_fork_does_not_have_the_calls_of_its_parent():
    manual = Manual()

    def root():
        with ThreadGroup() as group:
            group.submit(manual, work)
            child = os.fork()
            if child == 0:
                os._exit(len(abandoned()))
            _, status = os.waitpid(child, 0)
            manual.futures[0].set_result(None)
        return os.waitstatus_to_exitcode(status)

    assert 0 == vthreads.run(root)


@pytest.mark.real
def test_a_cancellation_while_a_pool_starts_its_worker_loses_no_call():
    class Pool(ThreadPoolExecutor):
        """As if another thread cancelled the group while `submit` waits for the start of the OS thread."""

        def _adjust_thread_count(self):
            super()._adjust_thread_count()
            # Before that, the pool would drop the call.
            begun.acquire()
            groups[0].cancel()
            vthreads.checkpoint()

    groups = []
    begun, end = originals.allocate_lock(), originals.allocate_lock()
    begun.acquire()
    end.acquire()

    def call():
        begun.release()
        # Holds the OS thread of the pool.
        end.acquire()

    def root():
        with Pool(1) as pool:
            try:
                with ThreadGroup(cleanup_grace=0) as group:
                    groups.append(group)
                    future = group.submit(pool, call)
                return future.cancelled(), abandoned()
            finally:
                end.release()

    assert (True, [True]) == vthreads.run(root)


@pytest.mark.real
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_broken_pool_fails_the_group():
    def root():
        with processes() as pool, pytest.raises(ExceptionGroup) as raised, ThreadGroup() as group:
            group.submit(pool, end_process)
            group.submit(pool, square, 2)
        assert raised.value.subgroup(BrokenProcessPool) is not None

    vthreads.run(root)


@pytest.mark.real
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_the_calls_that_have_not_begun_in_a_pool_are_cancelled():
    def root():
        reader, writer = os.pipe()
        with processes() as pool:
            with ThreadGroup(cleanup_grace=0) as group:
                futures = [group.submit(pool, os.read, reader, 1) for _ in range(10)]
                group.cancel()
            assert all(future.cancelled() for future in futures)
            # At most the calls that have been sent to a worker were begun.
            begun = abandoned()
            os.write(writer, b"x" * 10)
        os.close(reader)
        os.close(writer)
        return begun

    begun = vthreads.run(root)
    assert len(begun) <= 5
    assert all(begun)
    assert [] == abandoned()


@pytest.mark.real
@pytest.mark.thorough
def test_loky(run_script):
    """In a process of its own: loky keeps pipes open until the exit."""
    printed = run_script(
        """
        import os, time, warnings
        warnings.simplefilter("ignore", DeprecationWarning)
        from loky import ProcessPoolExecutor
        import vthreads
        from vthreads import ThreadGroup

        def root():
            with ProcessPoolExecutor(2) as pool:
                with ThreadGroup(max_concurrency=3) as group:
                    futures = [group.submit(pool, lambda number=number: number * 2) for number in range(6)]
                print([future.result() for future in futures])
                try:
                    with ThreadGroup() as group:
                        group.submit(pool, os._exit, 1)
                except ExceptionGroup as raised:
                    print([error.__class__.__mro__[1].__name__ for error in raised.exceptions])
            with ProcessPoolExecutor(1) as pool:
                try:
                    with ThreadGroup() as group:
                        futures = [group.submit(pool, time.sleep, 0.3) for _ in range(20)]
                        futures[0].result()
                        vthreads.spawn(lambda: group.spawn(divmod, 1, 0))
                except ExceptionGroup as raised:
                    print([type(error).__name__ for error in raised.exceptions])
                print(sum(future.cancelled() for future in futures) >= 15, futures[0].cancelled())

        vthreads.run(root)
        """
    )
    assert "[0, 2, 4, 6, 8, 10]\n['BrokenProcessPool']\n['ZeroDivisionError']\nTrue False\n" == printed


@pytest.mark.real
@pytest.mark.thorough
def test_a_call_on_virtual_threads_that_nothing_ends_is_a_deadlock(run_script):
    printed = run_script(
        """
        from concurrent.futures import ThreadPoolExecutor
        import vthreads

        vthreads.patch(threads=True)

        def root():
            event = vthreads.Event()
            with ThreadPoolExecutor(1) as pool:
                try:
                    with vthreads.ThreadGroup() as group:
                        group.submit(pool, event.wait)
                finally:
                    event.set()

        try:
            vthreads.run(root)
        except BaseException as error:
            print(vthreads.DeadlockError in (type(error), *map(type, getattr(error, "exceptions", ()))))
        """
    )
    assert "True\n" == printed


@pytest.mark.real
@pytest.mark.thorough
def test_a_deadlock_after_a_call_is_found(run_script):
    printed = run_script(
        """
        import concurrent.futures
        import vthreads

        class AtOnce(concurrent.futures.Executor):
            def submit(self, fn, /, *args):
                future = concurrent.futures.Future()
                vthreads.spawn(lambda: future.set_result(fn(*args)))
                return future

        def root():
            with vthreads.ThreadGroup() as group:
                group.submit(AtOnce(), int)
            vthreads.Event().wait()

        try:
            vthreads.run(root)
        except vthreads.DeadlockError:
            print("found")
        """
    )
    assert "found\n" == printed
