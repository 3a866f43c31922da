"""`aio.iterate` and `aio.enter`: all steps in one task and one context."""

import asyncio
import concurrent.futures
import contextvars
import threading
from contextlib import asynccontextmanager

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
        with pytest.raises(LookupError, match="no more"):
            next(steps)
        with pytest.raises(StopIteration):
            next(steps)

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
    with pytest.raises(TypeError, match="not an asynchronous context manager"):
        aio.enter(open)


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

    vthreads.run(root)


def test_the_manager_is_told_of_a_cancellation_as_asyncio_does():
    manager = Manager()

    def root():
        with CancelScope() as scope, aio.enter(manager):
            scope.cancel()
            vthreads.checkpoint()
        assert scope.cancelled_caught
        assert [asyncio.CancelledError] == manager.told

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
        manager.tasks[0].cancel()

    def root():
        with pytest.raises(concurrent.futures.CancelledError), aio.enter(manager):
            aio.run(cancel())
            Event().wait()
        assert [asyncio.CancelledError] == manager.told
        vthreads.checkpoint()

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
