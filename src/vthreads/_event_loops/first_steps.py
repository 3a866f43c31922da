"""Tasks whose first step is made at once: a coroutine that never waits ends without a turn of the loop.

Python 3.12 and later have eager tasks. On Python 3.11 a task costs more than all the rest of a call that ends at once.
So one task serves all such calls, one after the other, as long as none of them has left a trace in it. Imports asyncio.
"""

from __future__ import annotations

import asyncio
import sys
from asyncio.tasks import _enter_task, _leave_task
from collections.abc import Callable, Coroutine
from contextvars import Context
from functools import partial
from gc import get_referents
from sys import getrefcount
from typing import Any
from weakref import getweakrefcount, ref

from .._core.engine import compiled, supply
from .._core.repeated import repeated_in

__all__ = ["task_starter"]

# What `all_tasks` shows. Later versions of Python, with eager tasks, do not have it.
_all_tasks: Any = getattr(asyncio.tasks, "_all_tasks", None)


def task_starter(loop: Any) -> tuple[Callable[..., asyncio.Task[Any] | None], Callable[[], None]]:
    """Return a function that creates a task of `loop`, which runs here, and makes its first step at once.

    It is called with a coroutine and `context=`, and may return None if the coroutine has ended in its first step. Not
    to be called while a task of the loop makes a step, nor for a loop with a task factory. The second function drops
    what the first one keeps, when the loop ends.
    """
    if sys.version_info >= (3, 12):
        return partial(asyncio.Task, loop=loop, eager_start=True), _keep_nothing
    starter = TaskStarter(loop)
    return starter, starter.close


def _keep_nothing() -> None:
    """Do nothing: an eager task that has ended is dropped by its caller."""


@compiled
class TaskStarter:
    """Makes first steps of coroutines, and keeps a spare task for them.

    The spare task has not begun, or has paused after an earlier coroutine: its next step is kept here, and `all_tasks`
    does not show it. For the first step of the next coroutine it becomes the current task. If the coroutine waits, the
    task makes its next step, which yields what the coroutine has yielded, and goes on as any other task. When the
    coroutine has ended, in its first step or later, the task is spare again, unless it differs from a new one:
    the coroutine has changed it, or something refers to it. Then the task ends with its coroutine.

    A task asks the loop to call its next step soon, when it is created and when it pauses. This takes the place of
    `call_soon` meanwhile, and keeps the step.
    """

    def __init__(self, loop: Any) -> None:
        self.loop = loop
        self._spare: TaskSteps | None = None
        # Other classes than that of C store their state elsewhere, so a trace of the coroutine would not be found.
        self._keeps = asyncio.Task.__module__ == "_asyncio"
        # The steps whose task is about to pause.
        self._pausing: Any = None

    def __call__(self, coroutine: Coroutine[Any, Any, Any], context: Context) -> asyncio.Task[Any] | None:
        """Make the first step of `coroutine` in a task."""
        if self.loop.get_debug():
            # There a task records where it was created.
            self._drop_spare()
        steps, self._spare = self._spare, None
        if steps is None:
            steps = self._new_steps()
        return steps.start(coroutine, context)

    def _new_steps(self) -> TaskSteps:
        steps = TaskSteps(self)
        self.catch(steps)
        try:
            # For the type checker: it has the methods of a coroutine, and no other of its members.
            coroutine: Any = steps
            task: asyncio.Task[Any] = asyncio.Task(coroutine, loop=self.loop, context=steps.own_context)
        finally:
            self.stop_catching()
        steps.keep(task)
        return steps

    def catch(self, steps: TaskSteps) -> None:
        """Give the next step of the task of `steps` to that, instead of to the loop."""
        self._pausing = steps
        self.loop.call_soon = self._catch

    def stop_catching(self) -> None:
        """Let the loop have its own method again."""
        if self._pausing is not None:
            self._pausing = None
            del self.loop.call_soon

    def _catch(self, callback: Callable[..., None], *args: Any, context: Context | None = None) -> Any:
        steps = self._pausing
        if steps is not None and getattr(getattr(callback, "__self__", None), "_coro", None) is steps:
            self._pausing.next_step = callback
            self.stop_catching()
            return None
        # A finalizer that runs meanwhile has called this: pass its callback on.
        return type(self.loop).call_soon(self.loop, callback, *args, context=context)

    def close(self) -> None:
        """Drop the spare task, because the loop ends."""
        self._keeps = False
        self._drop_spare()

    def _drop_spare(self) -> None:
        steps, self._spare = self._spare, None
        if steps is not None:
            steps.drop()

    def take_back(self, steps: TaskSteps) -> bool:
        """Keep the task of `steps`, whose coroutine has ended, as the spare one; return whether it is kept."""
        if not self._keeps or self._spare is not None:
            return False
        self._spare = steps
        return True


@repeated_in("_event_loops/compiled/first_steps.pxi")
class TaskSteps:
    """The coroutine of a task that a `TaskStarter` has made: the steps of one coroutine after the other.

    Each coroutine runs in its own context, within that of the task, which is empty.
    """

    def __init__(self, starter: TaskStarter) -> None:
        self._starter = starter
        self.own_context = Context()
        # While the task is spare: makes its next step, in its context.
        self.next_step: Callable[[], None] | None = None
        self._coroutine: Any = None
        self._context: Context | None = None
        # The object that the coroutine has yielded in its first step, until the task gets it.
        self._has_yielded = False
        self._yielded: Any = None
        # The arguments of a cancellation by the coroutine itself in that step.
        self._cancelled_with: tuple[Any, ...] | None = None

    def keep(self, task: asyncio.Task[Any]) -> None:
        """Store the new `task`, of which this is the coroutine."""
        self._task: Any = task
        self._name = task.get_name()
        # Callbacks, attributes and the message of a cancellation add to it. The attributes are not visible otherwise.
        self._size = len(get_referents(task))
        # Shows the task in `all_tasks`. The task has made an equal entry there, which the first call removes.
        self._entry = ref(task, _all_tasks._remove)

    def drop(self) -> None:
        """Break the cycle with the task, which is not needed any more."""
        self._task = self.next_step = None

    def __getattr__(self, name: str) -> Any:
        # To stack walkers and the repr of the task, this is the coroutine: `cr_frame`, `cr_await`, `__qualname__`.
        return getattr(self._coroutine, name)

    # --- between the coroutines

    def start(self, coroutine: Any, context: Context) -> asyncio.Task[Any] | None:
        """Make the first step of `coroutine`; return the task if it has more of them."""
        loop = self._starter.loop
        self._coroutine, self._context = coroutine, context
        _all_tasks.data.add(self._entry)
        _enter_task(loop, self._task)
        try:
            self._yielded = context.run(coroutine.send, None)
            self._has_yielded = True
        except StopIteration:
            pass
        finally:
            _leave_task(loop, self._task)
            # The holders: this object, and the step that is kept.
            if self._has_yielded or not self._is_spare_again(holders=2):
                self._go_on()
        return None if self._coroutine is None else self._task

    def _is_spare_again(self, holders: int) -> bool:
        """Keep the task for another coroutine if this one has left no trace in it, and only the holders refer to it."""
        self._coroutine = self._context = None
        _all_tasks.data.discard(self._entry)
        is_untouched = (
            getrefcount(self._task) == holders + 1
            and getweakrefcount(self._task) == 1
            and not self._task.cancelling()
            and not self._task._must_cancel
            and len(get_referents(self._task)) == self._size
            and self._task.get_name() is self._name
        )
        if not is_untouched or not self._starter.take_back(self):
            return False
        # A spare task is dropped without its end.
        self._task._log_destroy_pending = False
        return True

    def _go_on(self) -> None:
        """Make the next step of the task, which is no longer spare; it begins with what the coroutine has yielded."""
        self._task._log_destroy_pending = True
        step, self.next_step = self.next_step, None
        assert step is not None
        self.own_context.run(step)
        if self._cancelled_with is not None:
            # A step that ends with a pending cancellation cancels what the task waits for, which it has only now got.
            arguments, self._cancelled_with = self._cancelled_with, None
            self._task.cancel(*arguments)
            self._task.uncancel()

    # --- the steps of the task

    def send(self, value: None) -> Any:
        """Make one step."""
        if self._has_yielded:
            self._has_yielded = False
            yielded, self._yielded = self._yielded, None
            return yielded
        return self._step("send", value)

    def throw(self, error: BaseException) -> Any:
        """Make a step that begins with an exception."""
        if self._has_yielded:
            self._cancelled_with = error.args
            return self.send(None)
        return self._step("throw", error)

    def _step(self, method: str, argument: Any) -> Any:
        if self._coroutine is None or self._context is None:
            # It has ended in its first step, and the task ends with it.
            self._task = None
            raise argument if method == "throw" else StopIteration
        try:
            return self._context.run(getattr(self._coroutine, method), argument)
        except StopIteration:
            # The holders: this object, the callback that makes this step, and the record of the loop's current task.
            if not self._is_spare_again(holders=3):
                self._task = None
                raise
        except BaseException:
            self._task = None
            raise
        self._starter.catch(self)
        return None

    def close(self) -> None:
        """Close the coroutine."""
        if self._coroutine is not None:
            self._coroutine.close()

    def __await__(self) -> TaskSteps:
        """Return this; tasks take only what has this method for a coroutine."""
        return self


supply(__name__, task_type=asyncio.Task, all_tasks=_all_tasks, enter_task=_enter_task, leave_task=_leave_task)
