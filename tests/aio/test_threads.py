"""`aio.to_vthread` and `aio.wrap_future`: virtual threads that coroutines wait for."""

import asyncio
import concurrent.futures
import contextvars
import gc
import math
import selectors
import threading
import traceback
import weakref
from concurrent.futures import CancelledError

import anyio
import pytest
import uvloop

import vthreads
from vthreads import Cancelled, CancelScope, Event, ThreadGroup, aio
from vthreads._core import originals
from vthreads.testing import VirtualClock

variable = contextvars.ContextVar("variable", default="unset")


@pytest.fixture(params=["uvloop", "asyncio", "uvloop poller", "asyncio poller", "shared loop"])
def run(request):
    """Run a coroutine function in each kind of loop: beside a lazy runtime, and where the runtime has made the loop."""
    kind, _, how = request.param.partition(" ")
    if how == "loop":
        return lambda main: vthreads.run(lambda: aio.run(main()))
    if how:
        return lambda main: vthreads.run(lambda: aio.run(main()), poller=kind)

    def run_on_os_thread(main):
        # A runtime that starts in the loop ends with its OS thread.
        outcome = concurrent.futures.Future()

        def call():
            try:
                outcome.set_result((uvloop if kind == "uvloop" else asyncio).run(main()))
            except BaseException as error:
                outcome.set_exception(error)

        os_thread = threading.Thread(target=call)
        os_thread.start()
        os_thread.join()
        return outcome.result()

    return run_on_os_thread


class Sleeper:
    """A function that waits until it is cancelled."""

    def __init__(self, at_end=None):
        self.begun = False
        self.ended = False
        self.thread = None
        self._at_end = at_end

    def wait(self):
        self.thread = vthreads.current_thread()
        self.begun = True
        try:
            Event().wait()
        finally:
            try:
                if self._at_end is not None:
                    vthreads.sleep(0.001)
                    self._at_end()
            finally:
                self.ended = True


def fail():
    raise LookupError("in the cleanup")


async def until(condition):
    while not condition():
        await asyncio.sleep(0)


def test_the_value_and_the_exception_reach_the_task_and_nobody_else(run, monkeypatch):
    reported = []
    monkeypatch.setattr(threading, "excepthook", reported.append)

    async def main():
        with pytest.raises(LookupError, match="in the cleanup"):
            await aio.to_vthread(fail)
        assert 3 == await aio.to_vthread(int, "3")

        def parks():
            vthreads.sleep(0.001)
            return threading.get_native_id()

        assert threading.get_native_id() == await aio.to_vthread(parks)

    run(main)
    assert [] == reported


def test_a_function_whose_call_has_no_effect_is_refused(run):
    async def main():
        for wrong in (main, 3):
            with pytest.raises(TypeError, match=r"to_vthread\(\) got"):
                await aio.to_vthread(wrong)

    run(main)


def test_an_exception_has_its_own_context_and_no_frame_of_the_thread(run):
    async def main():
        try:
            raise KeyError
        except KeyError:
            with pytest.raises(LookupError) as caught:
                await aio.to_vthread(fail)
        assert caught.value.__context__ is None
        names = [frame.name for frame in traceback.extract_tb(caught.value.__traceback__)]
        assert ("main", "fail") == (names[0], names[-1])
        assert "run" not in names

    run(main)


def test_an_exception_is_freed_with_its_last_reference(run):
    class Failure(Exception):
        pass

    def fails():
        raise Failure

    async def main():
        try:
            await aio.to_vthread(fails)
        except Failure as failure:
            reference = weakref.ref(failure)
        assert reference() is None

    gc.disable()
    try:
        run(main)
    finally:
        gc.enable()


def test_the_context_is_copied(run):
    def changes():
        seen = variable.get()
        variable.set("inside")
        return seen

    async def main():
        variable.set("outside")
        assert "outside" == await aio.to_vthread(changes)
        assert "outside" == variable.get()

    run(main)


def test_an_original_stands_for_its_replacement(run):
    async def main():
        return await aio.to_vthread(originals.get_ident), threading.get_ident()

    # The original does not know virtual threads: it returns the ident of the OS thread.
    of_thread, of_loop = run(main)
    assert of_thread != of_loop


def test_the_thread_belongs_to_no_group(run):
    def looks():
        return vthreads.ThreadGroup.current is vthreads.current_thread()._scheduler.background

    async def main():
        assert await aio.to_vthread(looks)

    run(main)


def test_a_cancelled_task_waits_for_the_cleanup_of_its_thread_however_often_it_is_cancelled(run):
    async def main():
        sleeper = Sleeper(int)
        task = asyncio.create_task(aio.to_vthread(sleeper.wait))
        await until(lambda: sleeper.begun)
        task.cancel()
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert sleeper.ended

    run(main)


def test_a_thread_that_swallows_its_cancellation_returns_its_value(run):
    def swallows():
        begun.append(True)
        try:
            Event().wait()
        except Cancelled:
            return "value"

    async def main():
        task = asyncio.create_task(aio.to_vthread(swallows))
        await until(lambda: begun)
        task.cancel()
        return await task

    begun = []
    assert "value" == run(main)


def test_a_cancellation_between_the_end_of_the_thread_and_that_of_the_task_changes_nothing(run):
    async def main():
        loop = asyncio.get_running_loop()
        failures, event = [], Event()
        loop.set_exception_handler(lambda _, context: failures.append(context))
        task = asyncio.create_task(aio.to_vthread(event.wait))
        for _ in range(5):
            await asyncio.sleep(0)
        event.set()
        # The thread ends in the next turn of the loop, before this call, and the task would go on in the turn after it.
        loop.call_soon(task.cancel)
        assert await task
        assert [] == failures

    run(main)


def test_a_thread_that_goes_on_after_the_grace_is_reported_once(run, monkeypatch):
    class Reports(list):
        def write(self, text):
            self.append(text)
            go_on.set()

    def goes_on():
        begun.append(True)
        with CancelScope(shield=True, cleanup_grace=0):
            go_on.wait()

    async def main():
        task = asyncio.create_task(aio.to_vthread(goes_on))
        await until(lambda: begun)
        task.cancel()
        await asyncio.wait([task])

    begun, go_on, reports = [], Event(), Reports()
    monkeypatch.setattr("sys.stderr", reports)
    run(main)
    [report] = reports
    assert "a cancelled task still waits for <VirtualThread" in report


class TimedLoop(asyncio.SelectorEventLoop):
    """A loop that records its timers of an hour."""

    def __init__(self):
        super().__init__()
        self.timers = []

    def call_later(self, delay, callback, *args, **options):
        handle = super().call_later(delay, callback, *args, **options)
        if delay == 3600:
            self.timers.append(handle)
        return handle


def run_timed(main):
    with asyncio.Runner(loop_factory=TimedLoop) as runner:
        return vthreads.run(lambda: runner.run(main()))


def has_a_grace_of_an_hour(begun, ended):
    with CancelScope(cleanup_grace=3600):
        begun.append(True)
        try:
            Event().wait()
        finally:
            vthreads.sleep(0.001)
            ended.append(True)


def test_a_task_that_is_cancelled_twice_has_one_timer_which_ends_with_the_thread():
    async def main():
        begun, ended = [], []
        task = asyncio.create_task(aio.to_vthread(has_a_grace_of_an_hour, begun, ended))
        await until(lambda: begun)
        task.cancel("first")
        await asyncio.sleep(0)
        task.cancel("second")
        await asyncio.sleep(0)
        [timer] = asyncio.get_running_loop().timers
        assert not timer.cancelled()
        with pytest.raises(asyncio.CancelledError, match="first"):
            await task
        assert ended
        assert timer.cancelled()

    run_timed(main)


def test_the_timer_of_a_coroutine_ends_when_that_is_closed():
    async def main():
        begun, ended = [], []
        coroutine = aio.to_vthread(has_a_grace_of_an_hour, begun, ended)
        coroutine.send(None)
        coroutine.throw(asyncio.CancelledError())
        [timer] = asyncio.get_running_loop().timers
        assert not timer.cancelled()
        coroutine.close()
        assert timer.cancelled()
        await until(lambda: ended)

    run_timed(main)


def test_a_timeout_of_asyncio_ends_a_virtual_thread(run):
    async def main():
        sleeper = Sleeper()
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.01):
                await aio.to_vthread(sleeper.wait)
        assert sleeper.ended

    run(main)


def test_a_scope_of_anyio_ends_a_virtual_thread(run):
    async def main():
        sleeper = Sleeper(int)
        with anyio.move_on_after(0.01) as scope:
            await aio.to_vthread(sleeper.wait)
        assert scope.cancelled_caught
        assert sleeper.ended
        assert 0 == asyncio.current_task().cancelling()

    run(main)


def test_a_thread_does_not_know_of_a_timeout_of_asyncio(run):
    async def main():
        async with asyncio.timeout(1000):
            return await aio.to_vthread(vthreads.remaining)

    assert math.inf == run(main)


def test_a_task_that_is_cancelled_before_it_starts_runs_nothing(run):
    async def main():
        sleeper = Sleeper()
        task = asyncio.create_task(aio.to_vthread(sleeper.wait))
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert not sleeper.begun

    run(main)


def test_a_failure_of_the_cleanup_has_the_cancellation_as_its_context(run):
    async def main():
        sleeper = Sleeper(fail)
        task = asyncio.create_task(aio.to_vthread(sleeper.wait))
        await until(lambda: sleeper.begun)
        task.cancel()
        with pytest.raises(LookupError) as caught:
            await task
        assert asyncio.CancelledError is type(caught.value.__context__)

    run(main)


def test_a_thread_that_others_cancel_is_not_the_cancellation_of_the_task(run):
    async def main():
        sleeper = Sleeper()
        task = asyncio.create_task(aio.to_vthread(sleeper.wait))
        await until(lambda: sleeper.begun)
        sleeper.thread.cancel()
        with pytest.raises(CancelledError, match="not by its task"):
            await task

    run(main)


def test_a_future_is_awaited_with_its_outcome(run):
    async def main():
        assert 3 == await aio.wrap_future(vthreads.spawn(int, "3"))
        event = Event()
        wrapped = aio.wrap_future(vthreads.spawn(event.wait))
        await asyncio.sleep(0)
        event.set()
        assert await wrapped
        with concurrent.futures.ThreadPoolExecutor(1) as pool:
            with pytest.raises(LookupError):
                await aio.wrap_future(pool.submit(fail))

    run(main)


def test_a_wrapped_future_that_others_cancel_raises_an_ordinary_exception(run):
    async def main():
        future = vthreads.spawn(Event().wait)
        wrapped = aio.wrap_future(future)
        future.cancel()
        with pytest.raises(CancelledError):
            await wrapped

    run(main)


def test_cancelling_the_wrapper_cancels_the_thread(run):
    async def main():
        sleeper = Sleeper()
        future = vthreads.spawn(sleeper.wait)
        wrapped = aio.wrap_future(future)
        wrapped.cancel()
        await until(lambda: sleeper.ended)
        assert wrapped.cancelled()

    run(main)


def test_a_cancelled_wrapper_ignores_the_outcome(run):
    async def main():
        failures = []
        asyncio.get_running_loop().set_exception_handler(lambda _, context: failures.append(context))
        future = concurrent.futures.Future()
        # It runs, so the wrapper cannot cancel it.
        future.set_running_or_notify_cancel()
        wrapped = aio.wrap_future(future)
        wrapped.cancel()
        future.set_result(None)
        for _ in range(5):
            await asyncio.sleep(0)
        assert wrapped.cancelled()
        assert [] == failures

    run(main)


@pytest.mark.parametrize("error", [StopIteration, asyncio.CancelledError])
def test_what_a_future_of_asyncio_cannot_raise_is_a_runtime_error(run, error):
    async def main():
        future = concurrent.futures.Future()
        future.set_exception(error())
        async with asyncio.timeout(30):
            with pytest.raises(RuntimeError, match=rf"ended with {error.__name__}$"):
                await aio.wrap_future(future)

    run(main)


@pytest.mark.parametrize("kind", ["uvloop", "asyncio"])
def test_what_ends_after_its_loop_was_closed_is_no_failure(kind, caplog):
    async def main():
        return aio.wrap_future(future)

    future = concurrent.futures.Future()
    future.set_running_or_notify_cancel()
    wrapped = (uvloop if kind == "uvloop" else asyncio).run(main())
    # `concurrent.futures` logs what a callback raises.
    future.set_result(None)
    assert [] == caplog.messages
    assert not wrapped.done()


def test_calls_nest(run):
    async def inner(depth):
        await asyncio.sleep(0)
        return 0 if not depth else 1 + await aio.to_vthread(lambda: aio.run(inner(depth - 1)))

    async def main():
        assert 5 == await inner(5)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.02):
                await aio.to_vthread(lambda: aio.run(aio.to_vthread(Sleeper(int).wait)))

    run(main)


def test_a_virtual_thread_awaits_on_the_loop_that_drives_it(run):
    async def same(loop):
        return loop is asyncio.get_running_loop()

    async def main():
        loop = asyncio.get_running_loop()
        assert await aio.to_vthread(lambda: aio.run(same(loop)))

    run(main)


def test_a_group_of_threads_beside_a_loop(run):
    async def work(number):
        await asyncio.sleep(0.001)
        return number

    def crowd():
        with ThreadGroup() as group:
            futures = [group.spawn(aio.run, work(number)) for number in range(50)]
        return [future.result() for future in futures]

    async def main():
        assert list(range(50)) == await aio.to_vthread(crowd)

    run(main)


def test_a_loop_that_a_thread_runs_is_woken_by_the_ends_of_others(run):
    async def inner():
        event = Event()
        vthreads.spawn(lambda: (vthreads.sleep(0.01), event.set()))
        # The loop of this coroutine is idle, and another one may drive the threads.
        await aio.wrap_future(vthreads.spawn(event.wait))
        await aio.to_vthread(vthreads.sleep, 0.01)
        return "woken"

    async def main():
        async with asyncio.timeout(30):
            assert "woken" == await aio.to_vthread(lambda: asyncio.run(inner()))

    run(main)


# --- loops that do not drive the virtual threads


async def is_refused():
    future = vthreads.spawn(Event().wait)
    with pytest.raises(RuntimeError, match="blocks its OS thread"):
        await aio.to_vthread(int)
    with pytest.raises(RuntimeError, match="blocks its OS thread"):
        aio.wrap_future(future)
    future.cancel()
    return await aio.wrap_future(vthreads.spawn(int))


@pytest.mark.parametrize("options", [{"clock": VirtualClock()}, {"poller": "poll"}])
def test_a_loop_of_uvloop_that_would_block_its_threads_is_refused(options):
    assert 0 == vthreads.run(lambda: uvloop.run(is_refused()), **options)


def test_a_loop_of_uvloop_inside_another_loop_is_refused(run):
    async def main():
        return await aio.to_vthread(lambda: uvloop.run(is_refused()))

    assert 0 == run(main)


def test_a_thread_of_another_os_thread_can_be_awaited_in_any_loop():
    async def main(future):
        return await aio.wrap_future(future)

    def root():
        event = Event()
        future = vthreads.spawn(event.wait)
        vthreads.spawn(lambda: (vthreads.sleep(0.01), event.set()))
        return vthreads.offload(lambda: uvloop.run(main(future)))

    assert vthreads.run(root)


@pytest.mark.parametrize("kind", ["SelectSelector", "PollSelector", "EpollSelector"])
@pytest.mark.parametrize("options", [{"clock": VirtualClock()}, {"poller": "poll"}])
def test_a_loop_of_asyncio_beside_its_threads_needs_not_drive_them(kind, options):
    async def main():
        await aio.to_vthread(vthreads.sleep, 0.01)
        await aio.wrap_future(vthreads.spawn(vthreads.sleep, 0.01))
        return "woken"

    def root():
        with asyncio.Runner(loop_factory=lambda: asyncio.SelectorEventLoop(getattr(selectors, kind)())) as runner:
            return runner.run(main())

    assert "woken" == vthreads.run(root, **options)


@pytest.mark.parametrize("kind", ["SelectSelector", "PollSelector", "EpollSelector"])
def test_a_loop_without_the_patch_is_refused_unless_it_drives_the_threads(run_script, kind):
    text = f"""
    import asyncio, selectors
    import vthreads
    from vthreads import aio

    async def main():
        try:
            return await aio.to_vthread(vthreads.sleep, 0.01)
        except RuntimeError as error:
            return str(error).partition(" blocks ")[2]

    def run():
        with asyncio.Runner(loop_factory=lambda: asyncio.SelectorEventLoop(selectors.{kind}())) as runner:
            return runner.run(main())

    print(vthreads.run(run, patch=False))
    vthreads.unpatch()
    print(run())
    """
    refused, driven = run_script(text).splitlines()
    assert refused.startswith("its OS thread")
    assert "None" == driven


# --- a coroutine that is closed


def test_closing_the_coroutine_cancels_the_thread(run):
    sleeper = Sleeper()

    async def main():
        coroutine = aio.to_vthread(sleeper.wait)
        coroutine.send(None)
        assert sleeper.begun
        coroutine.close()
        await until(lambda: sleeper.ended)

    run(main)


@pytest.mark.parametrize("before", [False, True])
def test_a_failure_after_the_coroutine_was_closed_is_reported_once(run, monkeypatch, before):
    reported = []
    monkeypatch.setattr(threading, "excepthook", lambda failure: reported.append(failure.exc_type))
    gate = Event()

    def wait():
        try:
            gate.wait()
        finally:
            fail()

    async def main():
        coroutine = aio.to_vthread(wait)
        coroutine.send(None)
        if before:
            gate.set()
            # The thread ends in this turn, and the coroutine is not resumed: no task runs it.
            for _ in range(5):
                await asyncio.sleep(0)
        coroutine.close()
        await until(lambda: reported)

    run(main)
    assert [LookupError] == reported


# --- a virtual clock


def test_a_loop_on_a_virtual_clock_shares_it_with_its_threads():
    async def main():
        await asyncio.sleep(1800)
        await aio.to_vthread(vthreads.sleep, 1800)
        return vthreads.now()

    assert 3600 == vthreads.run(lambda: asyncio.run(main()), clock=VirtualClock(patch_time=True))


def test_the_shared_loop_and_its_threads_live_in_real_time():
    async def main():
        begun = vthreads.now()
        await aio.to_vthread(vthreads.sleep, 0.001)
        return begun, await aio.to_vthread(vthreads.now)

    def root():
        vthreads.sleep(10**9)
        return aio.run(main())

    begun, ended = vthreads.run(root, clock=VirtualClock())
    assert begun + 0.001 <= ended < 10**9
