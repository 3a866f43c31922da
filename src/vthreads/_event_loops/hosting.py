"""Loop pollers: `run(poller="uvloop")` and `run(poller="asyncio")`.

The runtime makes the loop and a virtual thread that runs it, and is its guest. This module imports asyncio with the
first loop.
"""

from __future__ import annotations

from contextvars import Context
from typing import Any

from .._core.delivery import deferred_delivery
from .._core.engine import Scheduler
from .._core.exceptions import report
from .._core.participants import Participant, participate
from .._core.thread import VirtualThread
from .guests import Guest, guest_of, guests, host
from .running_loops import note_running_loop

__all__: list[str] = []


class _Host:
    """The loop of a runtime, and the virtual thread that runs it. As its owner, it gets the failures of the thread."""

    name = "the event loop"

    def __init__(self, scheduler: Scheduler, kind: str) -> None:
        self.scheduler = scheduler
        self.ends = self._is_given_up = False
        self._loop = _new_event_loop(kind)
        thread = self.thread = VirtualThread.__new__(VirtualThread)._init_thread(
            scheduler, Context(), self, (self._serve, (), {})
        )
        thread.name = f"{kind} loop"
        # Code of the loop has the identity of the OS thread, as without a runtime: only the main thread sets handlers.
        thread._thread_ident = scheduler.ident

    def end(self) -> None:
        """End all tasks and the loop, and wait for that; called by the root."""
        self.ends = True
        self._stop_loop()
        try:
            self.thread.join()
        except BaseException:
            # Ctrl-C. Tasks may ignore their cancellation, so end the loop without them.
            self._is_given_up = True
            self._stop_loop()
            with deferred_delivery():
                self.thread.join()
            raise

    def _stop_loop(self) -> None:
        guest = guests.get(self.scheduler)
        if guest is not None:
            guest.call(self._loop.stop)

    def _serve(self) -> None:
        from .serving import cancel_tasks, end_tasks, run_until_stopped

        loop = self._loop
        guest = host(loop, self.thread)
        assert guest is not None
        guest.is_own = True
        note_running_loop(self.thread, loop)
        try:
            run_until_stopped(loop)
            while not self.ends:
                # A coroutine has stopped the loop, which other code of the program still needs: run it again.
                guest.fail_waiting()
                cancel_tasks(loop)
                run_until_stopped(loop)
            guest.ends = True
            end_tasks(loop, lambda: self._is_given_up)
        finally:
            guest.end()
            note_running_loop(self.thread, None)
            loop.close()

    def _settle(self, thread: VirtualThread, value: Any, error: BaseException | None) -> None:
        if error is not None:
            report(error, thread)

    def _member_ended(self, thread: VirtualThread) -> None:
        """Do nothing: `end` joins the thread."""

    def _failed_at_end(self, thread: VirtualThread, error: BaseException) -> None:
        report(error, thread)


def _new_event_loop(kind: str) -> Any:
    from .serving import new_event_loop

    try:
        return new_event_loop(kind)
    except ImportError as error:
        raise ValueError(
            f"poller={kind!r} needs the package {kind}, which cannot be imported ({error}); install it, or omit poller="
        ) from error


_hosts: dict[Scheduler, _Host] = {}


def _hosting(scheduler: Scheduler, kind: str) -> None:
    made = _hosts[scheduler] = _Host(scheduler, kind)
    scheduler.start(made.thread)


def _joined(scheduler: Scheduler) -> None:
    made = _hosts.get(scheduler)
    if made is not None:
        try:
            made.end()
        finally:
            del _hosts[scheduler]


def _may_unpark(scheduler: Scheduler) -> bool:
    """Return whether the loop has a task, which may unpark a virtual thread, or ends, which unparks the root."""
    made = _hosts.get(scheduler)
    guest: Guest | None = guest_of(scheduler)
    if made is None or guest is None:
        return False
    return guest.blocked_since is None and (made.ends or guest.has_tasks())


participate(__name__, Participant(hosting=_hosting, joined=_joined, may_unpark=_may_unpark, forked=_hosts.clear))
