"""`aio.iterate` and `aio.enter`: all steps in one task and one context."""

import asyncio
import concurrent.futures
import contextvars
import gc
import threading
import traceback
import weakref
from contextlib import asynccontextmanager

import anyio
import pytest

import vthreads
from vthreads import Cancelled, CancelScope, Event, ThreadGroup, aio
from vthreads.testing import wait_all_parked

variable = contextvars.ContextVar("variable", default="unset")


@pytest.fixture(autouse=True)
def each_kind(kind):
    """Each test runs on both kinds of loop."""


class Items:
    """An asynchronous generator that records its tasks, and its end."""

    def __init__(self):
        self.tasks = set()
        self.seen = []
        self.closed = []

    async def __aiter__(self):
        self.seen.append(variable.get())
        try:
            for item in range(3):
                self.tasks.add(asyncio.current_task())
                await asyncio.sleep(0)
                variable.set(item)
                yield item, variable.get()
        finally:
            self.tasks.add(asyncio.current_task())
            await asyncio.sleep(0)
            self.closed.append(True)


class Manager:
    def __init__(self, swallows=False):
        self.tasks = []
        self.told = []
        self.messages = []
        self.tracebacks = []
        self.seen = []
        self._swallows = swallows

    async def __aenter__(self):
        self.seen.append(variable.get())
        variable.set("inside")
        await asyncio.sleep(0)
        self.tasks.append(asyncio.current_task())
        return self

    async def __aexit__(self, kind, error, traceback):
        self.seen.append(variable.get())
        await asyncio.sleep(0)
        self.tasks.append(asyncio.current_task())
        self.told.append(kind)
        self.messages.append(getattr(error, "args", None))
        self.tracebacks.append(traceback)
        return self._swallows


# --- iterate


def test_all_items_come_in_one_task_and_one_context():
    items = Items()

    def root():
        variable.set("outside")
        assert [(0, 0), (1, 1), (2, 2)] == list(aio.iterate(items))
        assert "outside" == variable.get()
        assert ["outside"] == items.seen
        assert 1 == len(items.tasks)
        assert [True] == items.closed

    vthreads.run(root)


def test_close_closes_the_generator_and_waits_for_its_cleanup():
    items = Items()

    def root():
        steps = aio.iterate(items)
        next(steps)
        assert [] == items.closed
        steps.close()
        assert [True] == items.closed
        assert 1 == len(items.tasks)

    vthreads.run(root)


def test_an_exception_of_the_generator_is_raised_by_the_step():
    async def fails():
        yield 1
        raise LookupError("no more")

    def root():
        steps = aio.iterate(fails())
        assert 1 == next(steps)
        with pytest.raises(LookupError, match="no more") as caught:
            next(steps)
        assert "_run_steps" not in [frame.name for frame in traceback.extract_tb(caught.value.__traceback__)]
        with pytest.raises(StopIteration):
            next(steps)

    vthreads.run(root)


def test_a_cancelled_thread_begins_nothing():
    items, manager = Items(), Manager()

    def root():
        with CancelScope() as scope:
            scope.cancel()
            with pytest.raises(Cancelled):
                next(aio.iterate(items))
            aio.enter(manager).__enter__()
        assert scope.cancelled_caught

    vthreads.run(root)
    assert [] == items.seen == manager.seen


@pytest.mark.parametrize("is_loop_poller", [False, True])
def test_a_cancelled_thread_begins_no_later_step_either(kind, is_loop_poller):
    begun = []

    async def items():
        while True:
            begun.append(True)
            yield

    def root():
        steps = aio.iterate(items())
        next(steps)
        with CancelScope() as scope:
            scope.cancel()
            next(steps)
        assert scope.cancelled_caught
        assert 1 == len(begun)

    vthreads.run(root, poller=kind if is_loop_poller else None)


@pytest.mark.parametrize("is_loop_poller", [False, True])
def test_the_context_is_that_of_the_call(kind, is_loop_poller):
    items, manager = Items(), Manager()

    def root():
        variable.set("before")
        steps, block = aio.iterate(items), aio.enter(manager)
        variable.set("after")
        next(steps)
        with block:
            pass

    vthreads.run(root, poller=kind if is_loop_poller else None)
    assert ["before"] == items.seen
    assert ["before", "inside"] == manager.seen


@pytest.mark.parametrize("number", [1, 2])
def test_a_step_that_is_cancelled_before_its_loop_knows_of_it_does_not_begin(number):
    begun, go_on, steps = threading.Event(), threading.Event(), []

    async def items():
        while True:
            steps.append(True)
            yield len(steps)

    async def blocks():
        begun.set()
        go_on.wait()

    def root():
        items_of_thread = aio.iterate(items())
        if number == 2:
            next(items_of_thread)
        with ThreadGroup() as group:
            group.spawn(aio.run, blocks())
            begun.wait()
            step = group.spawn(next, items_of_thread)
            # It has asked the loop for its step.
            wait_all_parked()
            step.cancel()
            wait_all_parked()
            go_on.set()
        assert number - 1 == len(steps)

    vthreads.run(root)


def test_a_cancelled_step_ends_the_generator():
    begun = Event()
    closed = []

    async def waits():
        try:
            begun.set()
            yield await asyncio.get_running_loop().create_future()
        finally:
            await asyncio.sleep(0)
            closed.append(True)

    def root():
        with ThreadGroup() as group:
            future = group.spawn(list, aio.iterate(waits()))
            begun.wait()
            future.cancel()
        assert future.cancelled()
        assert [True] == closed

    vthreads.run(root)


def test_a_cancellation_is_over_with_its_step():
    begun = Event()
    counts = []

    async def goes_on():
        try:
            begun.set()
            await asyncio.get_running_loop().create_future()
        except asyncio.CancelledError:
            yield "swallowed"
        counts.append(asyncio.current_task().cancelling())
        with pytest.raises(ExceptionGroup):
            async with asyncio.TaskGroup() as group:
                group.create_task(fails())
        yield "next"

    async def fails():
        raise LookupError("in a task")

    def asks(steps):
        with CancelScope() as scope:
            scopes.append(scope)
            assert "swallowed" == next(steps)
        assert scope.cancel_called
        assert "next" == next(steps)

    def root():
        with ThreadGroup() as group:
            group.spawn(asks, aio.iterate(goes_on()))
            begun.wait()
            scopes[0].cancel()

    scopes = []
    vthreads.run(root)
    assert [0] == counts


def test_a_cancellation_of_the_task_by_others_is_counted_as_long_as_the_task_lives():
    async def items():
        task = asyncio.current_task()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asyncio.sleep(0)
        yield task.cancelling()
        yield task.cancelling()

    def root():
        assert [1, 1] == list(aio.iterate(items()))

    vthreads.run(root)


def test_a_cancellation_of_the_task_after_the_call_of_a_step_comes_in_the_step_once():
    tasks, begun, asked = [], threading.Event(), threading.Event()

    async def items():
        tasks.append(asyncio.current_task())
        yield
        with pytest.raises(asyncio.CancelledError, match="a message"):
            await asyncio.sleep(0)
        yield tasks[0].cancelling()

    async def cancels():
        begun.set()
        asked.wait()
        # The loop calls this after it has passed the step to the task, and before the task goes on.
        asyncio.get_running_loop().call_soon(tasks[0].cancel, "a message")

    def root():
        steps = aio.iterate(items())
        next(steps)
        with ThreadGroup() as group:
            group.spawn(aio.run, cancels())
            begun.wait()
            step = group.spawn(next, steps)
            wait_all_parked()
            asked.set()
        return step.result()

    assert 1 == vthreads.run(root)


class Countdown:
    """An asynchronous iterator that is not a generator."""

    def __init__(self, count):
        self.count = count

    def __aiter__(self):
        return self

    async def __anext__(self):
        if not self.count:
            raise StopAsyncIteration
        self.count -= 1
        return self.count


class ClosableCountdown(Countdown):
    closed = 0

    async def aclose(self):
        self.closed += 1


def test_an_iterator_is_closed_unless_it_is_exhausted_or_cannot_be():
    def root():
        exhausted, left = ClosableCountdown(2), ClosableCountdown(2)
        assert [1, 0] == list(aio.iterate(exhausted))
        steps = aio.iterate(left)
        assert 1 == next(steps)
        steps.close()
        assert (0, 1) == (exhausted.closed, left.closed)
        steps = aio.iterate(Countdown(3))
        assert 2 == next(steps)
        steps.close()

    vthreads.run(root)


def test_a_generator_that_is_dropped_outside_the_runtime_is_closed():
    items, steps = Items(), []

    def root():
        steps.append(aio.iterate(items))
        next(steps[0])
        vthreads.offload(steps.clear)
        while not items.closed:
            aio.run(asyncio.sleep(0))

    vthreads.run(root)
    assert 1 == len(items.tasks)


def test_an_iteration_and_a_block_are_freed_with_their_last_reference():
    def root():
        items, manager = Items(), Manager()
        references = weakref.ref(items), weakref.ref(manager)
        list(aio.iterate(items))
        with aio.enter(manager):
            pass
        # The task of the last step ends after the step.
        aio.run(asyncio.sleep(0))
        items.tasks.clear()
        manager.tasks.clear()
        del items, manager
        assert (None, None) == tuple(reference() for reference in references)

    gc.disable()
    try:
        vthreads.run(root)
    finally:
        gc.enable()


@pytest.mark.parametrize("swallows", [False, True])
def test_a_close_in_a_cancelled_thread_waits_for_the_cleanup_and_is_no_failure(swallows):
    closed = []

    async def items():
        try:
            yield 1
        finally:
            try:
                await asyncio.get_running_loop().create_future()
            except asyncio.CancelledError:
                await asyncio.sleep(0)
                closed.append(True)
                if not swallows:
                    raise

    def closes():
        steps = aio.iterate(items())
        next(steps)
        vthreads.current_thread().cancel()
        steps.close()
        closed.append("closed")
        vthreads.checkpoint()

    def root():
        with ThreadGroup() as group:
            future = group.spawn(closes)
        assert future.cancelled()
        assert [True, "closed"][: 1 + swallows] == closed

    vthreads.run(root)


def test_a_task_that_is_cancelled_between_two_items_raises_at_the_next():
    tasks = []

    async def items():
        tasks.append(asyncio.current_task())
        while True:
            yield 1

    async def cancel():
        tasks[0].cancel()
        await asyncio.sleep(0)

    def root():
        steps = aio.iterate(items())
        next(steps)
        aio.run(cancel())
        with pytest.raises(concurrent.futures.CancelledError):
            next(steps)

    vthreads.run(root)


def test_a_task_that_is_cancelled_between_two_items_closes_the_generator_at_once():
    items = Items()

    async def cancel():
        items.tasks.copy().pop().cancel()
        await asyncio.sleep(0.01)

    def root():
        steps = aio.iterate(items)
        next(steps)
        aio.run(cancel())
        assert [True] == items.closed
        steps.close()
        assert [True] == items.closed

    vthreads.run(root)


@pytest.mark.parametrize("step", ["close", "next"])
def test_a_step_waits_for_the_cleanup_of_a_task_that_others_have_cancelled(step):
    closing, may_go_on, closed, tasks = Event(), Event(), [], []

    async def items():
        tasks.append(asyncio.current_task())
        try:
            yield 1
            yield 2
        finally:
            closing.set()
            while not may_go_on.is_set():
                await asyncio.sleep(0.001)
            closed.append(True)

    async def cancel():
        tasks[0].cancel()

    def ends(steps):
        if step == "close":
            steps.close()
        else:
            with pytest.raises(concurrent.futures.CancelledError):
                next(steps)
        assert [True] == closed

    def root():
        steps = aio.iterate(items())
        next(steps)
        aio.run(cancel())
        closing.wait()
        with ThreadGroup() as group:
            group.spawn(ends, steps)
            wait_all_parked()
            may_go_on.set()

    vthreads.run(root)


def test_a_step_whose_task_is_cancelled_before_it_begins_is_over():
    begun, asked = threading.Event(), threading.Event()

    async def cancels():
        others = {asyncio.current_task()}
        begun.set()
        asked.wait()
        # The loop calls this after it has created the task, and before the first step of that.
        asyncio.get_running_loop().call_soon(lambda: (asyncio.all_tasks() - others).pop().cancel())

    def first():
        with pytest.raises(concurrent.futures.CancelledError):
            next(aio.iterate(Items()))

    def root():
        with ThreadGroup() as group:
            group.spawn(aio.run, cancels())
            begun.wait()
            group.spawn(first)
            # It has asked the loop for its task.
            wait_all_parked()
            asked.set()

    vthreads.run(root)


@pytest.mark.parametrize("is_loop_poller", [False, True])
def test_unfinished_step_tasks_end_with_the_runtime(kind, is_loop_poller):
    items, manager = Items(), Manager()
    left = []

    def root():
        left[:] = aio.iterate(items), aio.enter(manager)
        next(left[0])
        left[1].__enter__()

    vthreads.run(root, poller=kind if is_loop_poller else None)
    assert [True] == items.closed
    assert [asyncio.CancelledError] == manager.told


def test_unfinished_step_tasks_do_not_keep_the_loop_that_drives_them(run_script):
    script = """
    import asyncio
    from vthreads import aio

    class Manager:
        async def __aenter__(self):
            pass

        async def __aexit__(self, kind, error, traceback):
            print("left with", kind.__name__)

    async def items():
        try:
            while True:
                yield 1
        finally:
            print("closed")

    left = []

    def call():
        left.extend([aio.iterate(items()), aio.enter(Manager())])
        next(left[0])
        left[1].__enter__()

    async def main():
        await aio.to_vthread(call)

    asyncio.run(main())
    """
    assert ["closed", "left with CancelledError"] == sorted(run_script(script).splitlines())


def test_a_manager_is_left_once_if_the_runtime_ends_directly_after_the_block(run_script):
    script = """
    import vthreads
    from vthreads import aio

    class Manager:
        async def __aenter__(self):
            pass

        async def __aexit__(self, kind, error, traceback):
            print("left with", kind)

    def root():
        with aio.enter(Manager()):
            pass

    vthreads.run(root, poller="asyncio")
    """
    assert ["left with None"] == run_script(script).splitlines()


def test_what_is_not_asynchronous_is_refused():
    with pytest.raises(TypeError, match="no __aiter__"):
        aio.iterate([1])

    class Enters:
        async def __aenter__(self):
            pass

    class Exits:
        async def __aexit__(self, *_):
            pass

    for manager in open, Enters(), Exits():
        with pytest.raises(TypeError, match="not an asynchronous context manager"):
            aio.enter(manager)


# --- enter


@pytest.mark.parametrize("end", ["first", "last"])
def test_a_coroutine_cannot_make_the_steps_of_a_virtual_thread(end):
    async def steps():
        if end == "first":
            with pytest.raises(RuntimeError, match="use await there"):
                next(items)
        with pytest.raises(RuntimeError, match="use await there"):
            block.__enter__() if end == "first" else block.__exit__(None, None, None)

    def root():
        nonlocal items, block
        items, block = aio.iterate(Items()), aio.enter(Manager())
        if end == "last":
            block.__enter__()
        aio.run(steps())

    items = block = None
    vthreads.run(root)


def test_both_ends_of_a_block_run_in_one_task():
    manager = Manager()

    def root():
        variable.set("outside")
        with aio.enter(manager) as value:
            assert manager is value
        assert ["outside", "inside"] == manager.seen
        assert "outside" == variable.get()
        assert 2 == len(manager.tasks)
        assert 1 == len(set(manager.tasks))
        assert [None] == manager.told

    vthreads.run(root)


def test_a_block_that_has_ended_does_not_begin_again():
    block = None

    def root():
        nonlocal block
        block = aio.enter(Manager())
        with block:
            pass
        with pytest.raises(RuntimeError, match=r"call aio\.enter again"):
            block.__enter__()

    vthreads.run(root)


@pytest.mark.parametrize("swallows", [False, True])
def test_the_manager_learns_of_an_exception_and_may_swallow_it(swallows):
    manager = Manager(swallows)

    def root():
        raised = False
        try:
            with aio.enter(manager):
                raise LookupError
        except LookupError:
            raised = True
        assert raised is not swallows
        assert [LookupError] == manager.told
        assert ["root"] == [frame.name for frame in traceback.extract_tb(manager.tracebacks[0])]

    vthreads.run(root)


def test_a_manager_that_fails_to_enter_is_not_left():
    class Fails(Manager):
        async def __aenter__(self):
            raise LookupError

    manager = Fails()

    def root():
        with pytest.raises(LookupError), aio.enter(manager):
            pytest.fail("it was entered")
        # The loop has ended the task of the steps.
        aio.run(asyncio.sleep(0))
        aio.run(asyncio.sleep(0))

    vthreads.run(root)
    assert [] == manager.told


def test_the_manager_is_told_of_a_cancellation_as_asyncio_does():
    manager = Manager()

    def root():
        with CancelScope() as scope, aio.enter(manager):
            scope.cancel("a reason")
            vthreads.checkpoint()
        assert scope.cancelled_caught
        assert [asyncio.CancelledError] == manager.told
        assert [("a reason",)] == manager.messages

    vthreads.run(root)


def test_a_timeout_of_asyncio_cancels_the_block():
    @asynccontextmanager
    async def bounded():
        async with asyncio.timeout(0.01):
            yield

    def root():
        seen = []
        with pytest.raises(TimeoutError), aio.enter(bounded()):
            try:
                Event().wait()
            except Cancelled:
                seen.append(True)
                raise
        assert [True] == seen
        vthreads.checkpoint()

    vthreads.run(root)


def test_scopes_and_task_groups_of_anyio_span_steps():
    begun = []

    async def works():
        begun.append(True)

    @asynccontextmanager
    async def bounded():
        with anyio.move_on_after(0.01) as scope:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(works)
                yield scope

    async def items():
        with anyio.fail_after(1000):
            async with anyio.create_task_group() as tasks:
                for item in range(3):
                    tasks.start_soon(works)
                    yield item

    def root():
        with aio.enter(bounded()) as scope:
            Event().wait()
        assert scope.cancelled_caught
        assert [0, 1, 2] == list(aio.iterate(items()))
        assert 4 == len(begun)

    vthreads.run(root)


def test_a_task_group_waits_and_raises_in_the_block():
    @asynccontextmanager
    async def group():
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(fails())
            yield

    async def fails():
        raise LookupError

    def root():
        with pytest.raises(ExceptionGroup) as caught, aio.enter(group()):
            Event().wait()
        assert [LookupError] == list(map(type, caught.value.exceptions))

    vthreads.run(root)


def test_a_block_whose_task_others_cancel_raises_the_foreign_error():
    manager = Manager()

    async def cancel():
        manager.tasks[0].cancel("a message")

    def root():
        with pytest.raises(concurrent.futures.CancelledError), aio.enter(manager):
            aio.run(cancel())
            Event().wait()
        assert [asyncio.CancelledError] == manager.told
        assert [("a message",)] == manager.messages
        vthreads.checkpoint()

    vthreads.run(root)


def test_a_manager_that_its_thread_has_not_left_is_left_when_others_cancel_the_task():
    manager = Manager()

    async def cancel():
        manager.tasks[0].cancel("a message")
        while not manager.told:
            await asyncio.sleep(0)

    def root():
        vthreads.spawn(lambda: aio.enter(manager).__enter__()).result()
        aio.run(cancel())

    vthreads.run(root)
    assert [asyncio.CancelledError] == manager.told
    assert [("a message",)] == manager.messages


def test_a_block_whose_task_is_cancelled_before_its_thread_enters_it_is_cancelled():
    class Cancelled(Manager):
        async def __aenter__(self):
            loop, task = asyncio.get_running_loop(), asyncio.current_task()

            def after(iterations, function):
                loop.call_soon(*((after, iterations - 1, function) if iterations else (function,)))

            begun.set()
            pinned.wait()
            after(2, task.cancel)
            # The task of the steps reads its cancellation in a later iteration.
            after(10, lambda: is_cancelled.append(True))
            return await super().__aenter__()

    begun, pinned = threading.Event(), threading.Event()
    manager, is_cancelled = Cancelled(), []

    def block():
        with pytest.raises(concurrent.futures.CancelledError), aio.enter(manager):
            Event().wait()

    def root():
        with ThreadGroup() as group:
            group.spawn(block)
            begun.wait()
            pinned.set()
            while not is_cancelled:
                # Not a checkpoint: the thread enters its block only after that.
                pass
        assert [asyncio.CancelledError] == manager.told

    vthreads.run(root)


def test_a_manager_is_told_of_the_cancellation_that_ends_its_block():
    manager = Manager()

    async def cancel():
        manager.tasks[0].cancel("of the task")

    def root():
        with CancelScope() as scope, aio.enter(manager):
            aio.run(cancel())
            scope.cancel("of the scope")
            vthreads.checkpoint()
        assert scope.cancelled_caught

    vthreads.run(root)
    assert [("of the scope",)] == manager.messages


def test_a_manager_may_swallow_the_cancellation_of_its_task():
    manager = Manager(swallows=True)

    async def cancel():
        manager.tasks[0].cancel()

    def root():
        with aio.enter(manager):
            aio.run(cancel())
            Event().wait()
        assert [asyncio.CancelledError] == manager.told

    vthreads.run(root)


@pytest.mark.parametrize("swallows", [False, True])
def test_the_cancellation_of_a_block_is_split_off_a_group_of_exceptions(swallows):
    manager = Manager(swallows)

    async def cancel():
        manager.tasks[0].cancel()

    def block():
        with aio.enter(manager):
            aio.run(cancel())
            try:
                Event().wait()
            except Cancelled as cancelled:
                raise BaseExceptionGroup("both", [cancelled, LookupError()]) from None

    def root():
        if swallows:
            block()
        else:
            with pytest.raises(ExceptionGroup) as caught:
                block()
            assert [LookupError] == [type(error) for error in caught.value.exceptions]
        assert [ExceptionGroup] == manager.told

    vthreads.run(root)


def test_a_block_that_is_not_left_in_order_is_an_error_after_the_manager_is_left():
    manager = Manager()

    def root():
        scope = CancelScope()
        with pytest.raises(vthreads.ScopeMisuse), aio.enter(manager):
            scope.__enter__()
        assert [vthreads.ScopeMisuse] == manager.told

    vthreads.run(root)


class Raising(Manager):
    """Its `__aexit__` raises what the test wants."""

    def __init__(self, raises):
        super().__init__()
        self._raises = raises

    async def __aexit__(self, kind, error, traceback):
        self._raises(error)
        await asyncio.sleep(0)


def raise_(error):
    raise error


def test_a_manager_may_raise_the_cancellation_that_it_is_told():
    def root():
        with CancelScope() as scope, aio.enter(Raising(raise_)):
            scope.cancel()
            vthreads.checkpoint()
        assert scope.cancelled_caught

    vthreads.run(root)


def test_a_manager_may_raise_an_error_of_asyncio_that_the_block_has_raised():
    error = asyncio.CancelledError("of the block")

    def root():
        with pytest.raises(asyncio.CancelledError) as caught, aio.enter(Raising(raise_)):
            raise error
        assert error is caught.value

    vthreads.run(root)


def raise_another(error):
    raise asyncio.CancelledError


def cancel_task(error):
    asyncio.current_task().cancel()


@pytest.mark.parametrize("raises", [raise_another, cancel_task])
@pytest.mark.parametrize("is_cancelled", [False, True])
def test_a_cancellation_in_the_last_step_of_a_block_is_the_foreign_error(is_cancelled, raises):
    def root():
        with CancelScope() as scope:
            with pytest.raises(concurrent.futures.CancelledError), aio.enter(Raising(raises)):
                if is_cancelled:
                    scope.cancel()
                    vthreads.checkpoint()
        assert not scope.cancelled_caught

    vthreads.run(root)


def test_a_block_that_is_cancelled_at_its_end_waits_until_the_manager_is_left():
    left = []

    @asynccontextmanager
    async def manager():
        yield
        try:
            await asyncio.get_running_loop().create_future()
        except asyncio.CancelledError:
            await asyncio.sleep(0.01)
            left.append(True)
            raise

    def root():
        with CancelScope() as scope:
            with aio.enter(manager()):
                scope.cancel()
            left.append("not reached")
        assert [True] == left
        assert scope.cancelled_caught

    vthreads.run(root)


# --- steps whose waiter is gone


class Slow(Manager):
    """Its `__aenter__` ignores its cancellation: it completes when the test wants."""

    def __init__(self, fails=False):
        super().__init__()
        self.begun = Event()
        self.may_complete = False
        self._fails = fails

    async def __aenter__(self):
        self.begun.set()
        while not self.may_complete:
            try:
                await asyncio.sleep(0)
            except asyncio.CancelledError:
                self.may_complete = True
        return await super().__aenter__()

    async def __aexit__(self, kind, error, traceback):
        await super().__aexit__(kind, error, traceback)
        if self._fails:
            raise LookupError("in the last step")


def enters(manager, raised):
    def block():
        try:
            with aio.enter(manager):
                raised.append("entered")
        except BaseException as error:
            raised.append(type(error))

    return block


def test_a_manager_that_an_interrupt_did_not_keep_from_entering_is_left():
    manager, raised = Slow(), []

    def root():
        with ThreadGroup() as group:
            future = group.spawn(enters(manager, raised))
            manager.begun.wait()
            future.thread.interrupt()

    vthreads.run(root)
    assert [vthreads.Interrupted] == raised
    assert [vthreads.Interrupted] == manager.told
    assert 1 == len(set(manager.tasks))


def test_a_generator_whose_step_goes_on_without_a_waiter_is_closed_after_the_step():
    begun, called_off, closing = Event(), Event(), Event()
    cancels, closed, may_go_on = [], [], []

    async def items():
        begun.set()
        try:
            while not may_go_on:
                try:
                    await asyncio.sleep(0)
                except asyncio.CancelledError:
                    cancels.append(True)
                    called_off.set()
            yield
        finally:
            closed.append(True)

    def iterates():
        try:
            list(aio.iterate(items()))
        except vthreads.Interrupted:
            closing.set()
            raise

    def root():
        with ThreadGroup(on_failure="continue") as group:
            future = group.spawn(iterates)
            begun.wait()
            future.thread.interrupt(KeyError)
            called_off.wait()
            # Gives the wait for the step up. The generator waits until it is closed, and an interrupt of that wait does
            # not cancel the step again.
            for interrupt in (ValueError, vthreads.Interrupted):
                future.thread.interrupt(interrupt)
                wait_all_parked()
                # The loop has read what the thread has asked for.
                aio.run(asyncio.sleep(0))
            may_go_on.append(True)
            with pytest.raises(vthreads.Interrupted):
                future.result()

    vthreads.run(root)
    assert [True] == cancels == closed


@pytest.mark.parametrize("fails", [False, True])
def test_a_manager_that_enters_after_its_waiter_is_gone_is_left_and_its_failure_reported(fails):
    class Later(Slow):
        async def __aenter__(self):
            self.begun.set()
            while not self.may_complete:
                try:
                    await asyncio.sleep(0)
                except asyncio.CancelledError:
                    called_off.set()
            return await Manager.__aenter__(self)

        async def __aexit__(self, *error):
            try:
                return await super().__aexit__(*error)
            finally:
                left.set()

    called_off, left = Event(), Event()
    manager, raised, reported = Later(fails), [], []

    async def collect():
        asyncio.get_running_loop().set_exception_handler(lambda _, context: reported.append(context["exception"]))

    def root():
        aio.run(collect())
        with ThreadGroup() as group:
            future = group.spawn(enters(manager, raised))
            manager.begun.wait()
            future.thread.interrupt(KeyError)
            called_off.wait()
            # The second interrupt gives the wait up.
            future.thread.interrupt()
        manager.may_complete = True
        left.wait()
        aio.run(asyncio.sleep(0.001))

    vthreads.run(root)
    assert [vthreads.Interrupted] == raised
    assert 1 == len(manager.told)
    assert ([LookupError] if fails else []) == [type(error) for error in reported]


@pytest.mark.real
def test_a_manager_that_enters_after_ctrl_c_has_given_it_up_is_told_of_the_cancellation(run_script):
    script = """
    import asyncio, os, signal, sys
    import vthreads
    from vthreads import CancelScope, aio

    class Err:
        # The wait is reported when its grace is over, and then Ctrl-C gives it up.
        def write(self, text):
            os.kill(os.getpid(), signal.SIGINT)

        def flush(self):
            pass

    class Manager:
        async def __aenter__(self):
            try:
                scope.cancel("a reason")
                await asyncio.get_running_loop().create_future()
            except asyncio.CancelledError:
                await release.wait()

        async def __aexit__(self, kind, error, traceback):
            print(kind.__name__, *error.args)

    def enters():
        with scope, aio.enter(Manager()):
            print("entered")

    def root():
        global release
        release = asyncio.Event()
        try:
            with vthreads.ThreadGroup() as group:
                group.spawn(enters)
        except KeyboardInterrupt:
            print("interrupted")
        aio.run(asyncio.sleep(0, release.set()))
        aio.run(asyncio.sleep(0.01))

    sys.stderr, scope = Err(), CancelScope(cleanup_grace=0)
    vthreads.run(root)
    """
    told = "CancelledError 'MainThread' was interrupted: KeyboardInterrupt"
    assert ["interrupted", told] == run_script(script).splitlines()
