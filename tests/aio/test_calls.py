"""`aio.run` and `aio.await_`: context, outcome, cancellation, deadlines, and the life of the shared loop."""

import asyncio
import concurrent.futures
import contextvars
import decimal
import gc
import logging
import math
import os
import signal
import sys
import threading
import traceback
import weakref

import pytest

import vthreads
from vthreads import Cancelled, CancelScope, Event, ThreadGroup, aio
from vthreads.testing import VirtualClock

variable = contextvars.ContextVar("variable", default="unset")


@pytest.fixture(autouse=True)
def each_kind(kind):
    """Each test runs on both kinds of loop."""


class Sleeper:
    """A coroutine that waits until it is cancelled; `begun` is set when it waits, on the waiter's carrier."""

    def __init__(self, at_end=None):
        self.begun = Event()
        self.ended = []
        self._at_end = at_end

    async def wait(self):
        self.begun.set()
        try:
            await asyncio.get_running_loop().create_future()
        finally:
            if self._at_end is not None:
                await self._at_end()
            self.ended.append(True)


async def loop_in_use():
    return asyncio.get_running_loop()


async def pause():
    await asyncio.sleep(0)


# --- outcomes


def test_a_coroutine_returns_its_value_and_raises_its_exception():
    async def succeeds(value):
        await asyncio.sleep(0)
        return value

    async def fails():
        raise LookupError("nothing there")

    def root():
        with pytest.raises(LookupError, match="nothing there") as caught:
            aio.run(fails())
        frames = [frame.name for frame in traceback.extract_tb(caught.value.__traceback__)]
        assert "root" == frames[0]
        assert "fails" == frames[-1]
        assert "_await" not in frames
        return aio.run(succeeds(3))

    assert 3 == vthreads.run(root)


def test_await_takes_what_await_takes():
    class Awaitable:
        def __await__(self):
            yield from asyncio.sleep(0).__await__()
            return "custom"

    async def make_task():
        return asyncio.create_task(loop_in_use())

    def root():
        task = aio.run(make_task())
        assert aio.run(loop_in_use()) is aio.await_(task)
        assert "custom" == aio.await_(Awaitable())
        for wrong in (3, loop_in_use):
            with pytest.raises(TypeError, match="cannot be awaited"):
                aio.await_(wrong)
        with pytest.raises(TypeError, match="call the async function"):
            aio.run(loop_in_use)

    vthreads.run(root)


def test_only_the_thread_that_waits_is_parked():
    def root():
        other = []
        with ThreadGroup() as group:
            sleeper = Sleeper()
            waits = group.spawn(aio.run, sleeper.wait())
            sleeper.begun.wait()
            group.spawn(other.append, 1)
            assert [1] == other
            assert not waits.done()
            waits.cancel()

    vthreads.run(root)


@pytest.mark.parametrize("error", [SystemExit(3), KeyboardInterrupt()])
def test_exits_reach_the_caller_and_do_not_end_the_loop_of_the_others(error):
    async def leaves():
        raise error

    def root():
        sleeper = Sleeper()
        with ThreadGroup() as group:
            other = group.spawn(aio.run, sleeper.wait())
            sleeper.begun.wait()
            before = aio.run(loop_in_use())
            with pytest.raises(type(error)):
                aio.run(leaves())
            assert before is aio.run(loop_in_use())
            assert not other.done()
            other.cancel()

    vthreads.run(root)


def test_an_exception_is_freed_with_its_last_reference():
    class Failure(Exception):
        pass

    async def fails():
        await asyncio.sleep(0)
        raise Failure

    def root():
        try:
            aio.run(fails())
        except Failure as failure:
            reference = weakref.ref(failure)
        # After this the OS thread of the loop has left the task, too.
        aio.run(pause())
        assert reference() is None

    gc.disable()
    try:
        vthreads.run(root)
    finally:
        gc.enable()


# --- context


def test_the_context_is_copied():
    async def changes():
        seen = variable.get()
        variable.set("changed inside")
        await asyncio.sleep(0)
        return seen, variable.get()

    def root():
        variable.set("set outside")
        assert ("set outside", "changed inside") == aio.run(changes())
        assert "set outside" == variable.get()

    vthreads.run(root)


@pytest.mark.parametrize("call", ["run", "iterate", "enter"])
def test_the_context_of_decimal_is_copied(call):
    async def sets():
        decimal.getcontext().prec = 5
        yield

    async def sets_once():
        await anext(sets())

    class Sets:
        async def __aenter__(self):
            await sets_once()

        async def __aexit__(self, *error):
            pass

    calls = {
        "run": lambda: aio.run(sets_once()),
        "iterate": lambda: list(aio.iterate(sets())),
        "enter": lambda: aio.enter(Sets()).__enter__(),
    }

    def root():
        decimal.getcontext().prec = 10
        calls[call]()
        return decimal.getcontext().prec

    assert 10 == vthreads.run(root)


# --- cancellation


def test_a_call_that_is_cancelled_before_it_begins_never_runs():
    ran = []

    async def runs():
        ran.append(True)

    def root():
        with CancelScope() as scope:
            scope.cancel()
            aio.run(runs())
        assert scope.cancelled_caught
        # The posted start and the cancellation reach the loop one after the other.
        with ThreadGroup() as group:
            group.spawn(aio.run, runs()).cancel()
        return aio.run(loop_in_use())

    vthreads.run(root)
    assert len(ran) <= 1


def test_a_cancelled_wait_is_back_after_the_cleanup():
    sleeper = Sleeper(pause)

    def root():
        with ThreadGroup() as group:
            future = group.spawn(aio.run, sleeper.wait())
            sleeper.begun.wait()
            future.cancel()
        assert [True] == sleeper.ended
        assert future.cancelled()

    vthreads.run(root)


def test_the_cleanup_after_a_cancelled_call_has_its_full_grace():
    class Clock(VirtualClock):
        passed = 0

        def now(self):
            return super().now() + self.passed

    async def goes_on():
        try:
            await sleeper.wait()
        except asyncio.CancelledError:
            # While the thread waits for this cleanup, more than its own grace passes.
            clock.passed += 100
            raise

    def waits():
        try:
            aio.run(goes_on())
        finally:
            vthreads.sleep(1)
            ended.append(True)

    def root():
        with ThreadGroup(cleanup_grace=2) as group:
            future = group.spawn(waits)
            sleeper.begun.wait()
            future.cancel()
        assert future.cancelled()

    clock, sleeper, ended = Clock(), Sleeper(), []
    vthreads.run(root, clock=clock)
    assert [True] == ended


def test_a_call_in_a_cleanup_does_not_renew_its_grace():
    sleeper = Sleeper()

    def works():
        try:
            Event().wait()
        finally:
            try:
                aio.run(sleeper.wait())
            finally:
                try:
                    vthreads.sleep(1)
                finally:
                    ended.append(vthreads.now())

    def root():
        with ThreadGroup(cleanup_grace=2) as group:
            group.spawn(works)
            group.cancel()

    ended = []
    vthreads.run(root, clock=VirtualClock(outside_patience=0))
    assert [True] == sleeper.ended
    assert [2] == ended


def test_a_deadline_cancels_the_coroutine():
    sleeper = Sleeper(pause)

    async def waits(scope):
        scope.deadline = vthreads.now()
        await sleeper.wait()

    def root():
        with pytest.raises(TimeoutError), vthreads.fail_after(1000) as scope:
            aio.run(waits(scope))
        assert [True] == sleeper.ended

    vthreads.run(root)


def test_a_coroutine_sees_the_deadline_of_the_thread_that_waits():
    async def remaining():
        await asyncio.sleep(0)
        return vthreads.remaining(), await aio.to_vthread(vthreads.remaining)

    def root():
        assert (math.inf, math.inf) == aio.run(remaining())
        with vthreads.fail_after(1000):
            seconds, of_thread = aio.run(remaining())
        assert 0 < seconds <= 1000
        assert math.inf == of_thread

    vthreads.run(root)


def test_a_task_that_outlives_the_call_does_not_see_its_deadline():
    async def leaves():
        go_on = asyncio.Event()
        left.extend([go_on, asyncio.create_task(looks(go_on))])

    async def looks(go_on):
        await go_on.wait()
        return vthreads.remaining()

    async def ends():
        go_on, task = left
        go_on.set()
        return await task

    def root():
        with vthreads.fail_after(3600):
            aio.run(leaves())
            return aio.run(ends())

    left = []
    assert math.inf == vthreads.run(root)


def test_a_swallowed_cancellation_returns_the_value_and_comes_at_the_next_checkpoint():
    async def swallows(scope):
        try:
            scope.cancel()
            await asyncio.get_running_loop().create_future()
        except asyncio.CancelledError:
            return "swallowed"

    def root():
        with CancelScope() as scope:
            value = aio.run(swallows(scope))
            with pytest.raises(Cancelled):
                vthreads.checkpoint()
        assert "swallowed" == value
        assert not scope.cancelled_caught

    vthreads.run(root)


def test_an_exception_out_of_the_cleanup_has_cancelled_as_its_context():
    async def fails(scope):
        try:
            scope.cancel()
            await asyncio.get_running_loop().create_future()
        finally:
            raise LookupError("in the cleanup")

    def root():
        with pytest.raises(LookupError) as caught, CancelScope() as scope:
            aio.run(fails(scope))
        assert Cancelled is type(caught.value.__context__)
        assert asyncio.CancelledError is type(caught.value.__context__.__context__)

    vthreads.run(root)


def test_a_task_that_others_cancel_is_not_the_cancellation_of_the_waiter():
    async def cancels_itself():
        asyncio.current_task().cancel()
        await asyncio.sleep(0)

    def root():
        with CancelScope() as scope, pytest.raises(concurrent.futures.CancelledError, match="not by its waiter"):
            aio.run(cancels_itself())
        assert not scope.cancel_called

    vthreads.run(root)


def test_an_interrupt_is_raised_after_the_cleanup():
    sleeper = Sleeper(pause)

    def root():
        with ThreadGroup(on_failure="continue") as group:
            future = group.spawn(aio.run, sleeper.wait())
            sleeper.begun.wait()
            future.thread.interrupt(ZeroDivisionError)
            with pytest.raises(ZeroDivisionError):
                future.result()
        assert [True] == sleeper.ended

    vthreads.run(root)


@pytest.mark.parametrize("error", [LookupError("late"), asyncio.CancelledError()])
def test_a_failure_after_the_waiter_has_left_is_reported_to_the_loop(error):
    begun, cleans_up, gates, reported = Event(), Event(), [], []

    async def ends_late():
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda _, context: reported.append(context))
        begun.set()
        try:
            await loop.create_future()
        finally:
            gates.append(loop.create_future())
            cleans_up.set()
            await gates[0]
            raise error

    async def go_on():
        gates[0].set_result(None)
        for _ in range(3):
            await asyncio.sleep(0)

    def root():
        with ThreadGroup(on_failure="continue") as group:
            future = group.spawn(aio.run, ends_late())
            begun.wait()
            future.thread.interrupt(ZeroDivisionError)
            cleans_up.wait()
            # Ends the wait at once, and the coroutine goes on without a waiter.
            future.thread.interrupt(KeyError)
            with pytest.raises(KeyError):
                future.result()
            aio.run(go_on())

    vthreads.run(root)
    assert ([error] if isinstance(error, LookupError) else []) == [context["exception"] for context in reported]
    assert all("failed after its waiter had left" in context["message"] for context in reported)


def test_a_coroutine_whose_waiter_has_left_is_cancelled_at_the_end_without_a_report():
    begun, cleans_up, reported = Event(), Event(), []

    async def goes_on():
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda _, context: reported.append(context))
        begun.set()
        for event in (cleans_up, begun):
            with pytest.raises(asyncio.CancelledError):
                await loop.create_future()
            event.set()

    def root():
        with ThreadGroup(on_failure="continue") as group:
            future = group.spawn(aio.run, goes_on())
            begun.wait()
            begun.clear()
            future.thread.interrupt(ZeroDivisionError)
            cleans_up.wait()
            future.thread.interrupt(KeyError)
            with pytest.raises(KeyError):
                future.result()
        assert not begun.is_set()

    vthreads.run(root)
    assert begun.is_set()
    assert [] == reported


@pytest.mark.real
def test_ctrl_c_gives_up_a_call_whose_coroutine_ignores_its_cancellation(run_script):
    script = """
    import asyncio, os, signal, sys
    import vthreads
    from vthreads import CancelScope, aio

    async def ignores_cancellation():
        try:
            scope.cancel()
            await asyncio.get_running_loop().create_future()
        except asyncio.CancelledError:
            os.kill(os.getpid(), signal.SIGINT)
            await release.wait()
            print("ended")

    def root():
        global release
        release = asyncio.Event()
        try:
            with scope:
                aio.run(ignores_cancellation())
        except KeyboardInterrupt:
            print("interrupted")
        release.set()
        aio.run(asyncio.sleep(0))

    scope = CancelScope()
    vthreads.run(root)
    """
    assert "interrupted\nended\n" == run_script(script)


@pytest.mark.parametrize("how", ["cancel", "interrupt"])
def test_a_coroutine_that_goes_on_after_the_grace_is_reported_once(how):
    reported = threading.Event()

    class Err:
        def write(self, text):
            lines.append(text)
            reported.set()

        def flush(self):
            pass

    lines = []

    async def goes_on():
        while not reported.is_set():
            await asyncio.sleep(0)

    def root():
        sys.stderr = Err()
        try:
            with ThreadGroup(cleanup_grace=0.01, on_failure="continue") as group:
                sleeper = Sleeper(goes_on)
                future = group.spawn(aio.run, sleeper.wait())
                sleeper.begun.wait()
                getattr(future.thread, how)()
                with pytest.raises((vthreads.Interrupted, concurrent.futures.CancelledError)):
                    future.result()
        finally:
            sys.stderr = sys.__stderr__
        assert [True] == sleeper.ended

    vthreads.run(root)
    assert 1 == sum("still waits for the coroutine Sleeper.wait" in line for line in lines)


# --- refusals


@pytest.mark.parametrize("call", ["run", "await_", "iterate", "enter"])
def test_a_coroutine_is_told_to_use_await(call):
    async def calls():
        getattr(aio, call)(pause())

    async def main():
        coroutine = pause()
        try:
            with pytest.raises(RuntimeError, match=f"{call}.*await"):
                getattr(aio, call)(coroutine)
        finally:
            coroutine.close()

    asyncio.run(main())
    vthreads.run(aio.run, main())


# --- the loop


def test_all_calls_of_a_runtime_share_one_loop_and_it_ends_with_the_last_runtime():
    def root():
        with ThreadGroup() as group:
            loops = {future.result() for future in [group.spawn(aio.run, loop_in_use()) for _ in range(5)]}
        assert 1 == len(loops)
        return loops.pop()

    loop = vthreads.run(root)
    assert loop.is_closed()
    assert loop is not vthreads.run(root)


def test_a_runtime_that_ends_leaves_the_loop_to_the_others():
    sleeper = Sleeper()

    def root():
        with ThreadGroup() as group:
            waits = group.spawn(aio.run, sleeper.wait())
            sleeper.begun.wait()
            loop = aio.run(loop_in_use())
            assert loop is vthreads.offload(vthreads.run, aio.run, loop_in_use())
            assert loop is aio.run(loop_in_use())
            assert not waits.done()
            waits.cancel()

    vthreads.run(root)


def test_programs_do_not_see_the_os_thread_of_the_loop():
    before = threading.enumerate()
    seen = []

    def look():
        seen.append((threading.enumerate(), threading.active_count() - len(before)))

    async def looks():
        thread = threading.current_thread()
        assert thread is threading.current_thread()
        assert thread.ident == threading.get_ident()
        # A log record contains the name of the thread.
        logging.getLogger("test").warning("a message")
        look()
        await aio.to_vthread(look)

    def root():
        aio.run(looks())
        look()
        assert "carrier 'vthreads-asyncio'" in vthreads.dump()

    vthreads.run(root)
    assert [(before, 0)] * 3 == seen


def test_a_coroutine_has_the_signal_mask_the_trace_functions_and_a_name():
    seen = []

    async def looks():
        seen.append(threading.current_thread().name)
        seen.append(signal.pthread_sigmask(signal.SIG_BLOCK, []))
        seen.append((sys.gettrace(), sys.getprofile()))

    def trace(frame, event, argument):
        return None

    before = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR2])
    traced = threading.gettrace(), threading.getprofile()
    threading.settrace(trace)
    threading.setprofile(trace)
    try:
        vthreads.run(aio.run, looks())
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        threading.settrace(traced[0])
        threading.setprofile(traced[1])
    assert ["vthreads-asyncio", {*before, signal.SIGUSR2}, (trace, trace)] == seen


@pytest.mark.real
def test_the_end_of_the_runtime_waits_for_a_task_that_goes_on_and_reports_it_once(monkeypatch):
    lines, left, reported = [], [], threading.Event()

    class Err:
        def write(self, text):
            lines.append(text)
            reported.set()

    async def goes_on():
        try:
            await asyncio.get_running_loop().create_future()
        finally:
            while not reported.is_set():
                await asyncio.sleep(0.01)
            left.append("ended")

    async def leaves():
        left.append(asyncio.create_task(goes_on()))
        await asyncio.sleep(0)

    monkeypatch.setattr("sys.stderr", Err())
    vthreads.run(aio.run, leaves())
    assert "ended" == left[1]
    [line] = lines
    assert "waits for cancelled tasks; Ctrl-C abandons them: <Task" in line


def test_tasks_that_are_left_are_cancelled_and_awaited_at_the_end():
    sleeper = Sleeper(pause)
    tasks = []

    async def leaves():
        tasks.append(asyncio.create_task(sleeper.wait()))
        await asyncio.sleep(0)

    vthreads.run(aio.run, leaves())
    assert [True] == sleeper.ended
    assert tasks[0].cancelled()


def test_a_stopped_loop_is_an_error_of_those_that_wait_and_is_made_anew():
    ended = threading.Event()

    async def stops():
        asyncio.get_running_loop().stop()
        try:
            await asyncio.get_running_loop().create_future()
        finally:
            ended.set()

    def root():
        before = aio.run(loop_in_use())
        with pytest.raises(RuntimeError, match="a coroutine has stopped"):
            aio.run(stops())
        assert before is not aio.run(loop_in_use())

    vthreads.run(root)
    # On the OS thread of the stopped loop.
    assert ended.wait(30)


def test_a_call_that_the_stopped_loop_has_not_read_never_begins(kind):
    begun, ran = threading.Event(), []

    async def stops():
        asyncio.get_running_loop().stop()
        begun.set()
        called.wait()
        await asyncio.get_running_loop().create_future()

    async def runs():
        ran.append(True)

    called = threading.Event()

    def other():
        with pytest.raises(RuntimeError, match="stopped"):
            aio.run(runs())

    def root():
        with ThreadGroup() as group:
            stopped = group.spawn(pytest.raises, RuntimeError, aio.run, stops())
            begun.wait()
            group.spawn(other)
            called.set()
            stopped.result()
        assert [] == ran

    vthreads.run(root)


@pytest.mark.real
def test_a_wait_for_a_coroutine_is_no_deadlock_and_a_wait_for_nothing_still_is(run_script):
    # Not here, where pytest-timeout has a signal handler, which could unpark a thread.
    script = """
    import asyncio
    import vthreads
    from vthreads import DeadlockError, Event, aio

    def root():
        aio.run(asyncio.sleep(0.05))
        try:
            Event().wait()
        except DeadlockError:
            print("a deadlock")

    vthreads.run(root)
    """
    assert "a deadlock\n" == run_script(script)


@pytest.mark.real
def test_a_call_that_a_busy_loop_has_not_read_is_no_deadlock(run_script):
    script = """
    import asyncio, time
    import vthreads
    from vthreads import aio

    async def leaves_a_callback():
        # It blocks the loop, which has no task then.
        asyncio.get_running_loop().call_soon(time.sleep, 0.2)

    def root():
        aio.run(leaves_a_callback())
        return aio.run(asyncio.sleep(0, "no deadlock"))

    print(vthreads.run(root))
    """
    assert "no deadlock\n" == run_script(script)


def test_a_fork_makes_the_loop_anew():
    def root():
        before = aio.run(loop_in_use())
        pid = os.fork()
        if not pid:
            os._exit(int(before is aio.run(loop_in_use())))
        assert before is aio.run(loop_in_use())
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])

    assert 0 == vthreads.run(root)


@pytest.mark.real
def test_a_program_without_run_ends_with_its_tasks_awaited(run_script):
    script = """
    import asyncio
    from vthreads import aio

    async def left():
        try:
            await asyncio.get_running_loop().create_future()
        finally:
            await asyncio.sleep(0)
            print("awaited")

    async def leaves():
        global task
        task = asyncio.create_task(left())
        await asyncio.sleep(0)

    aio.run(leaves())
    """
    assert "awaited\n" == run_script(script)
