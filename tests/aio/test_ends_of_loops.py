"""The end of a loop of the runtime: what is left on it ends before, on the shared loop and under a loop poller."""

import asyncio
import gc
import threading
import weakref

import pytest

import vthreads
from vthreads import aio


@pytest.fixture(params=[False, True], ids=["shared", "poller"])
def run(request, kind):
    """Call `fn` in a runtime whose loop is of each kind, and ends with it."""
    return lambda fn: vthreads.run(fn, poller=kind if request.param else None)


# asyncio refers weakly to its tasks and generators: without this list a collection could end them before.
@pytest.fixture
def left():
    return []


async def waits_forever():
    await asyncio.get_running_loop().create_future()


async def collect_reports(reports):
    asyncio.get_running_loop().set_exception_handler(lambda _, context: reports.append(context))


async def leave(left, *coroutines):
    left += map(asyncio.create_task, coroutines)
    await asyncio.sleep(0)


def test_a_task_that_fails_at_the_end_is_reported_to_the_handler_of_the_loop(run, left):
    reports = []

    async def fails():
        try:
            await waits_forever()
        finally:
            raise LookupError("in the cleanup")

    def root():
        aio.run(collect_reports(reports))
        aio.run(leave(left, waits_forever(), fails()))

    run(root)
    [report] = reports
    assert "a task failed at the end of the runtime" == report["message"]
    assert "in the cleanup" == str(report["exception"])
    assert left[1] is report["task"]


def test_a_task_that_the_cleanup_of_another_one_starts_is_cancelled_and_awaited(run, left):
    ended = []

    async def waits():
        try:
            await waits_forever()
        finally:
            await asyncio.sleep(0)
            ended.append("late")

    async def starts_another():
        try:
            await waits_forever()
        finally:
            await leave(left, waits())
            ended.append("early")

    run(lambda: aio.run(leave(left, starts_another())))
    assert ["early", "late"] == ended


def test_a_cleanup_that_stops_the_loop_does_not_end_that_of_others(run, left):
    ended = []

    async def stops():
        try:
            await waits_forever()
        finally:
            asyncio.get_running_loop().stop()
            await asyncio.sleep(0)
            ended.append("stops")

    async def takes_longer():
        try:
            await waits_forever()
        finally:
            for _ in range(5):
                await asyncio.sleep(0)
            ended.append("takes longer")

    run(lambda: aio.run(leave(left, stops(), takes_longer())))
    assert ["stops", "takes longer"] == ended


def test_an_asynchronous_generator_that_is_left_is_closed_in_the_loop(run, left):
    seen = []

    async def items():
        try:
            yield 1
            yield 2
        finally:
            await asyncio.sleep(0)
            seen.append(asyncio.get_running_loop())

    async def begins():
        left.append(items())
        seen.append(await anext(left[0]))
        return asyncio.get_running_loop()

    loop = []
    run(lambda: loop.append(aio.run(begins())))
    assert [1, *loop] == seen


def test_the_threads_of_the_executor_of_the_loop_have_ended(run):
    threads = []

    async def calls():
        threads.append(await asyncio.get_running_loop().run_in_executor(None, threading.current_thread))

    run(lambda: aio.run(calls()))
    [thread] = threads
    assert not isinstance(thread, vthreads.VirtualThread)
    assert not thread.is_alive()


def test_a_loop_that_has_ended_is_freed(run):
    loops = []

    async def remember():
        loops.append(weakref.ref(asyncio.get_running_loop()))

    run(lambda: aio.run(remember()))
    gc.collect()
    assert loops[0]() is None


@pytest.mark.parametrize("leaves", [SystemExit, KeyboardInterrupt])
def test_an_exit_out_of_a_cleanup_does_not_end_that_of_others(run, left, leaves):
    ended = []

    async def exits():
        try:
            await waits_forever()
        finally:
            raise leaves

    async def takes_longer():
        try:
            await waits_forever()
        finally:
            for _ in range(5):
                await asyncio.sleep(0)
            ended.append(True)

    reports = []

    def root():
        aio.run(collect_reports(reports))
        aio.run(leave(left, exits(), takes_longer()))

    run(root)
    assert [True] == ended
    assert [leaves] == [type(report["exception"]) for report in reports]


@pytest.mark.real
@pytest.mark.parametrize("poller", [None, "uvloop", "asyncio"])
def test_ctrl_c_gives_up_a_generator_that_is_left_and_whose_cleanup_goes_on(poller, run_script):
    script = """
    import asyncio, os, signal, sys
    import vthreads
    from vthreads import aio

    left = []

    async def items():
        try:
            yield 1
        finally:
            os.kill(os.getpid(), signal.SIGINT)
            await asyncio.get_running_loop().create_future()

    async def begins():
        left.append(items())
        return await anext(left[0])

    try:
        print(vthreads.run(aio.run, begins(), poller=sys.argv[1] or None))
    except KeyboardInterrupt:
        print("interrupted")
    print(vthreads.run(int), flush=True)
    # The executor of the loop is not ended any more, so there is nothing that was never awaited.
    os._exit(0)
    """
    assert "interrupted\n0\n" == run_script(script, poller or "")
