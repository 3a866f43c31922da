"""A coroutine that virtual threads await on their own OS thread makes its first step without a turn of the loop."""

import asyncio
import contextvars
import gc
import operator
import threading
import weakref
from concurrent.futures import CancelledError

import anyio
import pytest

import vthreads
from vthreads import Cancelled, CancelScope, Event, ThreadGroup, aio
from vthreads._core.deadlock import describe_wait

variable = contextvars.ContextVar("variable", default="of the thread")


def where():
    loop, task = asyncio.get_running_loop(), asyncio.current_task()
    return loop, task, task in asyncio.all_tasks(), threading.get_ident(), variable.get()


def test_the_first_step_runs_where_the_later_ones_do(kind):
    async def steps():
        first = where()
        await asyncio.sleep(0)
        return first, where()

    def root():
        token = variable.set("of the caller")
        first, second = aio.await_(steps())
        assert first == second
        assert "of the caller" == first[-1]
        assert first[2]
        assert asyncio._get_running_loop() is None
        variable.reset(token)

    vthreads.run(root, poller=kind)


def test_the_context_of_a_first_step_is_a_copy(kind):
    async def sets():
        variable.set("of the coroutine")

    def root():
        aio.await_(sets())
        return variable.get()

    assert "of the thread" == vthreads.run(root, poller=kind)


def test_a_first_step_needs_no_turn_of_the_loop(kind):
    async def loop_and_calls():
        loop = asyncio.get_running_loop()
        loop.call_soon(turns.append, 1)
        return loop

    async def done():
        return list(turns)

    def root():
        aio.await_(loop_and_calls())
        return aio.await_(done())

    def root_until_the_turn_was_long_enough():
        # On a busy machine the time limit of a turn may end it between the two calls.
        while root():
            turns.clear()

    turns = []
    vthreads.run(root_until_the_turn_was_long_enough, poller=kind)


def test_threads_that_await_what_is_done_leave_the_loop_its_turns(kind):
    async def starts():
        asyncio.get_running_loop().call_soon(turns.append, 1)

    async def done():
        pass

    def root():
        aio.await_(starts())
        while not turns:
            aio.await_(done())

    turns = []
    vthreads.run(root, poller=kind)


def test_threads_that_await_what_is_done_leave_the_others_their_turns(kind):
    async def done():
        pass

    def ends():
        vthreads.checkpoint()
        ended.append(True)

    def awaits():
        while not ended:
            aio.await_(done())

    def root():
        with ThreadGroup() as group:
            group.spawn(ends)
            group.spawn(awaits)

    ended = []
    vthreads.run(root, poller=kind)
    assert ended


def test_a_first_step_that_blocks_blocks_the_loop_and_no_other_thread(kind):
    async def blocks():
        begun.set()
        go_on.wait()
        order.append("blocked")

    async def other():
        order.append("other")

    def root():
        with ThreadGroup() as group:
            group.spawn(aio.await_, blocks())
            begun.wait()
            group.spawn(aio.await_, other())
            for _ in range(200):
                vthreads.checkpoint()
            go_on.set()

    begun, go_on, order = Event(), Event(), []
    vthreads.run(root, poller=kind)
    assert ["blocked", "other"] == order


def test_a_callback_that_blocks_the_loop_delays_first_steps(kind):
    def blocks():
        begun.set()
        go_on.wait()
        order.append("callback")

    async def starts():
        asyncio.get_running_loop().call_soon(blocks)

    async def other():
        order.append("first step")
        return where()[2]

    def root():
        aio.await_(starts())
        begun.wait()
        with ThreadGroup() as group:
            is_of_the_loop = group.spawn(aio.await_, other())
            for _ in range(200):
                vthreads.checkpoint()
            go_on.set()
        return is_of_the_loop.result()

    begun, go_on, order = Event(), Event(), []
    assert vthreads.run(root, poller=kind)
    assert ["callback", "first step"] == order


def test_a_task_that_cancels_itself_in_its_first_step_ends_at_its_first_wait(kind):
    async def cancels_itself():
        asyncio.current_task().cancel()
        await asyncio.sleep(0)

    def root():
        with pytest.raises(CancelledError):
            aio.await_(cancels_itself())

    vthreads.run(root, poller=kind)


def test_a_cancellation_in_the_first_step_comes_at_the_first_wait(kind):
    async def cancels_the_caller():
        scope.cancel()
        try:
            await asyncio.get_running_loop().create_future()
        except asyncio.CancelledError:
            ended.append(True)
            raise

    def root():
        with scope:
            with pytest.raises(Cancelled):
                aio.await_(cancels_the_caller())
        assert scope.cancelled_caught is False

    scope, ended = CancelScope(), []
    vthreads.run(root, poller=kind)
    assert [True] == ended


def test_a_thread_that_waits_for_the_later_steps_is_described_by_the_call_of_the_program(kind):
    async def waits():
        await asyncio.get_running_loop().create_future()

    def calls():
        aio.await_(waits())

    def root():
        with ThreadGroup() as group:
            described.append(describe_wait(group.spawn(calls).thread))
            group.cancel()

    described = []
    vthreads.run(root, poller=kind)
    assert described[0].startswith(f"await_(), called at {__file__}:")


def test_a_first_step_that_ends_returns_its_value_though_it_has_cancelled_the_caller(kind):
    async def cancels_the_caller():
        scope.cancel()
        return 1

    def root():
        with scope:
            returned.append(aio.await_(cancels_the_caller()))
            vthreads.checkpoint()
            returned.append(2)
        assert scope.cancelled_caught

    scope, returned = CancelScope(), []
    vthreads.run(root, poller=kind)
    assert [1] == returned


def test_a_cancelled_caller_makes_no_first_step(kind):
    async def runs():
        ran.append(True)

    def root():
        with CancelScope() as scope:
            scope.cancel()
            aio.await_(runs())

    ran = []
    vthreads.run(root, poller=kind)
    assert [] == ran


@pytest.mark.parametrize("failure", [ValueError, SystemExit, KeyboardInterrupt])
def test_the_failure_of_a_first_step_reaches_the_caller_and_the_loop_goes_on(kind, failure):
    async def fails():
        raise failure

    async def done():
        return 1

    def root():
        with pytest.raises(failure):
            aio.await_(fails())
        return aio.await_(done())

    assert 1 == vthreads.run(root, poller=kind)


def test_the_task_factory_of_the_loop_makes_the_tasks(kind):
    async def sets_factory():
        def factory(loop, coroutine, **options):
            made.append(coroutine)
            return asyncio.Task(coroutine, loop=loop, **options)

        asyncio.get_running_loop().set_task_factory(factory)

    async def done():
        return 1

    def root():
        aio.await_(sets_factory())
        aio.await_(done())
        return len(made)

    made = []
    assert 1 == vthreads.run(root, poller=kind)


def test_callbacks_of_the_task_run_though_it_ends_in_its_first_step(kind):
    async def adds():
        asyncio.current_task().add_done_callback(called.append)
        return asyncio.current_task()

    def root():
        task = aio.await_(adds())
        while not called:
            aio.await_(asyncio.sleep(0))
        return task

    called = []
    assert called == [vthreads.run(root, poller=kind)]


# --- nothing of one call is seen by the next one, whether the calls end in their first step or wait


@pytest.fixture(params=["ends", "waits"])
def step(request):
    """The rest of a first step: the coroutine ends in it, or waits."""

    async def waits():
        await asyncio.sleep(0)

    async def ends():
        pass

    return {"ends": ends, "waits": waits}[request.param]


def traces_of_two_calls(kind, step, leave, find):
    """Return what `find(task)` returns in a call after one in which `leave(task)` was called."""

    async def leaves():
        await step()
        leave(asyncio.current_task())

    async def finds():
        task = asyncio.current_task()
        found = [find(task)]
        await step()
        return [*found, find(task)]

    def root():
        aio.await_(step())
        try:
            aio.await_(leaves())
        except CancelledError:
            pass
        return aio.await_(finds())

    return vthreads.run(root, poller=kind)


def test_the_attributes_of_a_task_are_of_one_call(kind, step):
    leave = operator.methodcaller("__setattr__", "of_the_call", True)
    assert [False, False] == traces_of_two_calls(kind, step, leave, lambda task: hasattr(task, "of_the_call"))


def test_the_name_of_a_task_is_of_one_call(kind, step):
    found = traces_of_two_calls(kind, step, lambda task: task.set_name("of the call"), asyncio.Task.get_name)
    assert "of the call" not in found


def test_what_refers_weakly_to_a_task_does_not_find_the_next_call(kind, step):
    known = weakref.WeakKeyDictionary()
    assert [False, False] == traces_of_two_calls(
        kind, step, lambda task: known.setdefault(task, True), lambda task: task in known
    )


def test_a_cancellation_of_its_own_task_ends_with_the_call(kind, step):
    assert [0, 0] == traces_of_two_calls(kind, step, asyncio.Task.cancel, asyncio.Task.cancelling)


def test_a_cancellation_that_was_withdrawn_ends_with_the_call(kind, step):
    def leave(task):
        task.cancel()
        task.uncancel()

    assert [0, 0] == traces_of_two_calls(kind, step, leave, asyncio.Task.cancelling)


def test_a_callback_is_called_once_with_the_task_that_it_was_added_to(kind, step):
    called = []
    ended = traces_of_two_calls(
        kind, step, lambda task: task.add_done_callback(called.append), lambda task: task in called and not task.done()
    )
    assert [False, False] == ended
    assert [True] == [task.done() for task in called]


def test_context_variables_are_of_one_call(kind, step):
    found = traces_of_two_calls(kind, step, lambda _: variable.set("of a coroutine"), lambda _: variable.get())
    assert ["of the thread"] * 2 == found


def test_a_task_that_something_refers_to_ends_with_its_call(kind, step):
    async def gives():
        await step()
        return asyncio.current_task()

    def root():
        tasks = [aio.await_(gives()) for _ in range(3)]
        aio.await_(asyncio.sleep(0))
        return tasks

    tasks = vthreads.run(root, poller=kind)
    assert 3 == len(set(tasks))
    assert all(task.done() and not task.cancelled() for task in tasks)


def test_between_two_calls_no_task_is_shown(kind, step):
    async def loop():
        await step()
        return asyncio.get_running_loop(), len(asyncio.all_tasks())

    def root():
        return [(shown, len(asyncio.all_tasks(of))) for of, shown in [aio.await_(loop()) for _ in range(3)]]

    assert [(1, 0)] * 3 == vthreads.run(root, poller=kind)


def test_calls_at_the_same_time_have_a_task_each(kind):
    async def waits():
        tasks.append(asyncio.current_task().get_name())
        await go_on.wait()
        return asyncio.current_task().get_name()

    async def sets():
        go_on.set()

    def root():
        with ThreadGroup() as group:
            names = [group.spawn(aio.await_, waits()) for _ in range(3)]
            aio.await_(sets())
        return [name.result() for name in names]

    go_on, tasks = asyncio.Event(), []
    names = vthreads.run(root, poller=kind)
    assert tasks == names
    assert 3 == len(set(names))


def test_a_first_step_that_cancels_its_task_cancels_what_it_waits_for(kind):
    async def cancels_itself():
        task = asyncio.current_task()
        inner = asyncio.get_running_loop().create_future()
        task.cancel("why")
        try:
            await inner
        except asyncio.CancelledError as error:
            return inner.cancelled(), error.args, task.cancelling()

    def root():
        return [aio.await_(cancels_itself()) for _ in range(2)]

    assert [(True, ("why",), 1)] * 2 == vthreads.run(root, poller=kind)


def test_the_stack_of_a_waiting_task_is_that_of_its_coroutine(kind):
    async def waits():
        task = asyncio.current_task()
        asyncio.get_running_loop().call_soon(lambda: shown.append((repr(task), len(task.get_stack()))))
        await asyncio.sleep(0)

    shown = []
    vthreads.run(aio.await_, waits(), poller=kind)
    [(text, depth)] = shown
    assert "running at" in text
    assert 1 == depth


def test_scopes_of_asyncio_and_anyio_work_in_each_call(kind, step):
    async def scopes():
        async with asyncio.timeout(3600), asyncio.TaskGroup() as group:
            with anyio.move_on_after(3600):
                await step()
            group.create_task(step())
        with anyio.CancelScope() as scope:
            scope.cancel()
            await asyncio.get_running_loop().create_future()
        return scope.cancelled_caught

    def root():
        return [aio.await_(scopes()) for _ in range(3)]

    assert [True] * 3 == vthreads.run(root, poller=kind)


def test_debug_mode_can_change_between_calls(kind, step):
    async def sets(debug):
        asyncio.get_running_loop().set_debug(debug)
        await step()
        return asyncio.get_running_loop().get_debug()

    def root():
        return [aio.await_(sets(debug)) for debug in (False, True, True, False, False)]

    assert [False, True, True, False, False] == vthreads.run(root, poller=kind)


def test_no_task_is_left_when_the_loop_has_ended(kind, step, caplog):
    def root():
        for _ in range(3):
            aio.await_(step())

    vthreads.run(root, poller=kind)
    gc.collect()
    assert [] == [thing for thing in gc.get_objects() if isinstance(thing, asyncio.Task)]
    assert [] == caplog.records
