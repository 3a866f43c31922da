"""`Future`: the result of a virtual thread, for virtual threads, OS threads and the standard library."""

import asyncio
import concurrent.futures
import logging
import threading

import pytest

import vthreads
from vthreads import Future, ThreadGroup, move_on_after, sleep

pytestmark = pytest.mark.unpatched


def failing(error=None, after=0):
    sleep(after)
    raise error or KeyError("broken")


def test_a_future_is_one_of_the_standard_library(virtual):
    def root():
        with ThreadGroup() as g:
            return g.spawn(lambda: None)

    future = virtual(root)
    assert isinstance(future, Future)
    assert isinstance(future, concurrent.futures.Future)


def test_result_waits_for_what_the_function_returns(virtual):
    def root():
        with ThreadGroup() as g:
            future = g.spawn(lambda: (sleep(5), "value")[1])
            before = future.done(), future.running()
            return before, future.result(), vthreads.now(), future.done(), future.running()

    assert ((False, True), "value", 5.0, True, False) == virtual(root)


def test_result_raises_what_the_function_raised(virtual):
    error = KeyError("broken")

    def root():
        with ThreadGroup(on_failure="continue") as g:
            future = g.spawn(failing, error, 1)
            with pytest.raises(KeyError) as caught:
                future.result()
            return caught.value, future.exception()

    assert (error, error) == virtual(root)


def test_exception_is_none_for_a_result(virtual):
    def root():
        with ThreadGroup() as g:
            return g.spawn(sleep, 1).exception()

    assert virtual(root) is None


@pytest.mark.parametrize("ask", [Future.result, Future.exception])
def test_a_timeout_is_the_builtin_one_and_leaves_the_thread_alone(virtual, ask):
    def root():
        with ThreadGroup() as g:
            future = g.spawn(sleep, 5)
            with pytest.raises(TimeoutError):
                ask(future, timeout=2)
            late = vthreads.now()
        return late, future.cancelled(), vthreads.now()

    assert (2.0, False, 5.0) == virtual(root)


def test_cancelling_who_waits_does_not_cancel_what_it_waits_for(virtual):
    def root():
        with ThreadGroup() as g:
            future = g.spawn(sleep, 5)
            with move_on_after(1) as scope:
                future.result()
        return scope.cancelled_caught, future.cancelled(), vthreads.now()

    assert (True, False, 5.0) == virtual(root)


def test_asking_an_ended_thread_is_a_checkpoint_all_the_same(virtual):
    def root():
        with ThreadGroup() as g:
            future = g.spawn(lambda: "value")
        with vthreads.CancelScope() as scope:
            scope.cancel()
            future.result()
        return scope.cancelled_caught

    assert virtual(root) is True


@pytest.mark.parametrize("ask", [Future.result, Future.exception])
def test_the_result_of_a_cancelled_thread_is_an_ordinary_exception(virtual, ask):
    def root():
        with ThreadGroup() as g:
            future = g.spawn(sleep, 5)
            future.cancel()
            with pytest.raises(concurrent.futures.CancelledError) as caught:
                ask(future)
        return isinstance(caught.value, Exception), future.cancelled()

    assert (True, True) == virtual(root)


def test_cancel_requests_and_does_not_wait(virtual):
    def root():
        with ThreadGroup() as g:
            future = g.spawn(sleep, 5)
            answers = [future.cancel(), future.cancelled(), future.done(), future.cancel()]
        return answers, future.cancelled(), future.cancel()

    assert ([True, False, False, True], True, False) == virtual(root)


def test_cancelling_an_ended_thread_is_refused(virtual):
    def root():
        with ThreadGroup() as g:
            future = g.spawn(lambda: "value")
            return future.cancel(), future.cancelled(), future.result()

    assert (False, False, "value") == virtual(root)


# --- callbacks


def test_callbacks_run_in_the_ending_thread_in_their_order(virtual):
    def root():
        log = []
        with ThreadGroup() as g:
            future = g.spawn(sleep, 1)
            future.add_done_callback(lambda f: log.append((1, f is future, vthreads.current_thread() is f.thread)))
            future.add_done_callback(lambda f: log.append((2, f.done(), f.result())))
        return log

    assert [(1, True, True), (2, True, None)] == virtual(root)


def test_a_callback_added_after_the_end_runs_at_once(virtual):
    def root():
        log = []
        with ThreadGroup() as g:
            g.spawn(lambda: None).add_done_callback(log.append)
            return len(log)

    assert 1 == virtual(root)


def test_a_removed_callback_does_not_run(virtual):
    def root():
        log = []
        with ThreadGroup() as g:
            future = g.spawn(sleep, 1)
            future.add_done_callback(log.append)
            future.remove_done_callback(log.append)
            future.remove_done_callback(log.append)
        return log

    assert [] == virtual(root)


@pytest.mark.parametrize("error", [KeyError("callback"), SystemExit("callback"), vthreads.errors.Cancelled("callback")])
def test_what_a_callback_raises_is_logged_and_the_others_run(virtual, caplog, error):
    def root():
        log = []

        def bad(_):
            raise error

        with ThreadGroup() as g:
            future = g.spawn(sleep, 1)
            future.add_done_callback(bad)
            future.add_done_callback(log.append)
        return len(log), future.result()

    with caplog.at_level(logging.ERROR, "vthreads"):
        assert (1, None) == virtual(root)
    (record,) = caplog.records
    assert error is record.exc_info[1]


def test_a_callback_that_spawns_into_a_cancelled_group_is_refused_and_logged(virtual, caplog):
    def root():
        with ThreadGroup() as g:
            future = g.spawn(sleep, 5)
            future.add_done_callback(lambda _: g.spawn(sleep, 5))
            g.cancel()
        return vthreads.now()

    assert 0.0 == virtual(root)
    assert 1 == len(caplog.records)


def test_a_callback_may_block(virtual):
    def root():
        log = []
        with ThreadGroup() as g:
            future = g.spawn(sleep, 5)
            future.add_done_callback(lambda _: (sleep(1), log.append(vthreads.now())))
            future.cancel()
        return log

    assert [1.0] == virtual(root)


# --- the standard library


def from_an_os_thread(fn):
    """The result of `fn()` on an OS thread; this virtual thread waits meanwhile."""
    me, box = vthreads.current_thread(), concurrent.futures.Future()

    def outside():
        try:
            box.set_result(fn())
        except BaseException as error:
            box.set_exception(error)
        me._unpark()

    os_thread = threading.Thread(target=outside)
    os_thread.start()
    me._park()
    os_thread.join()
    return box.result()


def unparked_soon():
    """A thread that ends when an OS thread says so."""
    return vthreads.current_thread()._park()


def test_an_os_thread_waits_for_a_result(virtual):
    def root():
        with ThreadGroup() as g:
            future = g.spawn(unparked_soon)

            def outside():
                with pytest.raises(TimeoutError):
                    future.result(timeout=0.001)
                future.thread._unpark("value")
                return future.result()

            return from_an_os_thread(outside)

    assert "value" == virtual(root)


@pytest.mark.parametrize("return_when", ["ALL_COMPLETED", "FIRST_COMPLETED", "FIRST_EXCEPTION"])
def test_concurrent_futures_wait_takes_it(virtual, return_when):
    def root():
        with ThreadGroup(on_failure="continue") as g:
            futures = [g.spawn(unparked_soon) for _ in range(2)]
            ended = g.spawn(lambda: None)

            def outside():
                for future in futures:
                    future.thread._unpark()
                return concurrent.futures.wait([*futures, ended], timeout=5, return_when=return_when)

            return len(from_an_os_thread(outside).done)

    assert virtual(root) in ((3,) if return_when != "FIRST_COMPLETED" else (1, 2, 3))


def test_concurrent_futures_as_completed_takes_it(virtual):
    def root():
        with ThreadGroup(on_failure="continue") as g:
            futures = [g.spawn(unparked_soon) for _ in range(3)]
            futures[1].cancel()

            def outside():
                done = []
                for future in concurrent.futures.as_completed(futures, timeout=5):
                    done.append(futures.index(future))
                    if len(done) < 3:
                        futures[2 if len(done) == 1 else 0].thread._unpark()
                return done

            return from_an_os_thread(outside)

    assert [1, 2, 0] == virtual(root)


def test_a_standard_waiter_hears_of_failures_too(virtual):
    def root():
        with ThreadGroup(on_failure="continue") as g:
            future = g.spawn(lambda: (unparked_soon(), failing()))

            def outside():
                waiting = threading.Timer(0.01, future.thread._unpark)
                waiting.start()
                done, _ = concurrent.futures.wait([future], timeout=5, return_when="FIRST_EXCEPTION")
                waiting.join()
                return [type(f.exception()) for f in done]

            return from_an_os_thread(outside)

    assert [KeyError] == virtual(root)


def test_asyncio_awaits_it(virtual):
    def root():
        with ThreadGroup(on_failure="continue") as g:
            value, error, cancelled = (g.spawn(unparked_soon) for _ in range(3))

            async def outside():
                value.thread._unpark("value")
                error.thread.interrupt(KeyError)
                cancelled.cancel()
                wrapped = [asyncio.wrap_future(future) for future in (value, error, cancelled)]
                return await asyncio.gather(*wrapped, return_exceptions=True)

            return from_an_os_thread(lambda: asyncio.run(outside()))

    value, error, cancelled = virtual(root)
    assert ("value", KeyError, asyncio.CancelledError) == (value, type(error), type(cancelled))


def test_cancelling_an_asyncio_wrapper_cancels_the_thread(virtual):
    def root():
        with ThreadGroup() as g:
            future = g.spawn(unparked_soon)

            async def outside():
                asyncio.wrap_future(future).cancel()
                await asyncio.sleep(0)

            from_an_os_thread(lambda: asyncio.run(outside()))
        return future.cancelled()

    assert virtual(root) is True


def test_a_future_refuses_to_be_set_by_hand(virtual):
    def root():
        with ThreadGroup() as g:
            future = g.spawn(sleep, 1)
            with pytest.raises(concurrent.futures.InvalidStateError, match="its thread"):
                future.set_result(1)
            with pytest.raises(concurrent.futures.InvalidStateError, match="its thread"):
                future.set_exception(KeyError())
            with pytest.raises(concurrent.futures.InvalidStateError, match="its thread"):
                future.set_running_or_notify_cancel()
        return future.result()

    assert virtual(root) is None


def test_futures_are_generic():
    assert Future[int] is not None
