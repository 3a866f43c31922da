"""The event loop that all virtual threads of the process share, and the OS thread that runs it.

It is made at the first call, again after a fork, and again if a coroutine has stopped it. It ends with the last
runtime: the tasks that are left are cancelled and awaited. This module does not depend on who waits for a coroutine.
"""

from __future__ import annotations

import asyncio
import sys
import threading
from collections.abc import Callable, Coroutine
from contextvars import Context
from typing import Any, Protocol, TypeVar

from .._core.cancel import DEFAULT_CLEANUP_GRACE
from .._core.carrier import check_again
from .._core.carrier_end import end_lazy_carrier, never_collect
from .._core.current import carriers
from .._core.engine import Scheduler, Section
from .._core.originals import allocate_lock, get_ident
from .._core.os_thread_kinds import hidden_os_threads, hide_os_thread, own_os_threads
from .._core.own_os_thread import signal_mask, start_own_os_thread, with_signal_mask
from .._core.participants import Participant, participate
from .._event_loops.serving import end_tasks, new_event_loop, run_until_stopped

__all__ = ["SharedLoop", "Waiting", "shared_loop"]

T = TypeVar("T")


class Waiting(Protocol):
    """A call that waits for something on the loop."""

    def settle(self, value: Any, error: BaseException | None) -> None:
        """End the call with `value`, or with `error`; called on the OS thread of the loop."""


def _new_event_loop() -> asyncio.AbstractEventLoop:
    try:
        return new_event_loop("uvloop")
    except ImportError:
        return new_event_loop("asyncio")


class SharedLoop:
    """An event loop on an OS thread, which runs until `close`, or until a coroutine stops it."""

    def __init__(self) -> None:
        self.loop = _new_event_loop()
        # Guards the outcome of each call that waits; reentrant, because a finalizer may run in between.
        self.changing = Section()
        # The calls that wait for the loop; added by their OS threads, removed on that of the loop.
        self.waiting: dict[Waiting, None] = {}
        # The schedulers that are notified when a task ends.
        self._watching: set[Scheduler] = set()
        self.ident = 0
        self._closing = False
        self._started, self._ended = allocate_lock(), allocate_lock()
        self._started.acquire()
        self._ended.acquire()
        # Code of coroutines, and processes that they start, get the mask of the code that made the loop.
        self._signal_mask = signal_mask()
        start_own_os_thread(self._live)
        self._started.acquire()

    @property
    def is_over(self) -> bool:
        """Whether the loop runs no more coroutines. Thread-safe."""
        return self._closing or self.loop.is_closed()

    def call(self, function: Callable[..., object], *args: Any) -> None:
        """Call `function(*args)` on the loop, soon. Thread-safe.

        Raises:
            RuntimeError: the loop is closed.
        """
        self.loop.call_soon_threadsafe(function, *args)

    # A task is created on the OS thread of its loop only, so `begin` cannot call the function here.
    begin = call

    def create_task(self, coroutine: Coroutine[Any, Any, T], context: Context) -> asyncio.Task[T]:
        """Create a task of the loop; called on its OS thread."""
        return self.loop.create_task(coroutine, context=context)

    def tasks(self) -> list[asyncio.Task[Any]]:
        """Return the tasks of the loop that have not ended. Thread-safe."""
        return list(asyncio.all_tasks(self.loop))

    def has_tasks(self, scheduler: Scheduler) -> bool:
        """Return whether the loop has tasks; if it has, make `scheduler` check for a deadlock when one has ended."""
        if scheduler in self._watching:
            return True
        if not self.tasks():
            return False
        self._watching.add(scheduler)
        try:
            self.call(self._watch, scheduler)
        except RuntimeError:
            # The loop is closed, so the tasks have ended meanwhile.
            return False
        return True

    def close(self) -> None:
        """Cancel all tasks, wait until they have ended, and end the OS thread. Blocks the calling OS thread."""
        self._closing = True
        try:
            self.call(self.loop.stop)
        except RuntimeError:
            # A coroutine has stopped the loop, which closes it.
            pass
        if not self._ended.acquire(True, DEFAULT_CLEANUP_GRACE):
            names = ", ".join(repr(task) for task in self.tasks())
            sys.stderr.write(
                f"vthreads: the runtime ends, but waits for cancelled tasks; Ctrl-C abandons them: {names}\n"
            )
            self._ended.acquire()

    # --- on the OS thread of the loop

    def _live(self) -> None:
        self.ident = get_ident()
        own_os_threads.add(self.ident)
        try:
            with with_signal_mask(self._signal_mask):
                sys.settrace(threading.gettrace())
                sys.setprofile(threading.getprofile())
                self._register()
                self._started.release()
                self._serve()
        finally:
            hidden_os_threads.pop(self.ident, None)
            own_os_threads.discard(self.ident)
            self._ended.release()

    def _watch(self, scheduler: Scheduler) -> None:
        task = next(iter(self.tasks()), None)
        if task is None:
            self._notify(scheduler)
        else:
            task.add_done_callback(lambda _: self._notify(scheduler))

    def _notify(self, scheduler: Scheduler) -> None:
        self._watching.discard(scheduler)
        check_again(scheduler)

    def _register(self) -> None:
        """Give this OS thread a name, without making it a thread that programs count and join."""
        # `threading` creates a dummy object, as for any OS thread that it did not start, and lists it.
        os_thread = threading.current_thread()
        os_thread.name = "vthreads-asyncio"
        hide_os_thread(os_thread)

    def _serve(self) -> None:
        loop = self.loop
        asyncio.set_event_loop(loop)
        try:
            run_until_stopped(loop)
            self._closing = True
            self._fail_waiting()
            end_tasks(loop)
        finally:
            asyncio.set_event_loop(None)
            # Virtual threads that coroutines have spawned live on this OS thread, so join them before it ends.
            end_lazy_carrier()
            loop.close()
            # A call that began to wait since then has not found the loop closed.
            self._fail_waiting()

    def _fail_waiting(self) -> None:
        """End the calls that wait. At the end of the last runtime there are none: a coroutine has stopped the loop."""
        for waiting in list(self.waiting):
            waiting.settle(
                None,
                RuntimeError(
                    f"a coroutine has stopped {self.loop!r}, which all virtual threads share; let it end instead, "
                    "or use asyncio.run for a loop that it may stop"
                ),
            )


_making = Section()
_shared: SharedLoop | None = None


def shared_loop() -> SharedLoop:
    """Return the loop of this process, and make it if there is none. Thread-safe."""
    global _shared
    with _making:
        if _shared is None or _shared.is_over:
            _shared = SharedLoop()
        return _shared


def _stopping(scheduler: Scheduler) -> None:
    """End the loop with the last runtime; a runtime that coroutines have started on its OS thread does not count."""
    global _shared
    shared = _shared
    if shared is None or any(ident not in (scheduler.ident, shared.ident) for ident in carriers):
        return
    if scheduler.ident != shared.ident:
        _shared = None
        shared.close()


def _may_unpark(scheduler: Scheduler) -> bool:
    """Return whether a task of the loop could still unpark a virtual thread."""
    return _shared is not None and not _shared.is_over and _shared.has_tasks(scheduler)


def _forked() -> None:
    """Forget the loop in the child of a fork, where its OS thread does not exist."""
    global _shared, _making
    _making = Section()
    hidden_os_threads.clear()
    if _shared is not None:
        # Its end would close descriptors that the parent's loop registered, and warn that it still runs.
        never_collect(_shared.loop)
        _shared = None


participate(__name__, Participant(stopping=_stopping, may_unpark=_may_unpark, forked=_forked))
