"""The carrier: an OS thread with its scheduler, its root and its groups; its start, joins, stop, and deadlock.

It calls the participants on these occasions. This module does not depend on why an OS thread becomes a carrier, or on
what ends a carrier that was not started by `run`.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextvars import copy_context

from ..errors import DeadlockError
from .background import BackgroundGroup
from .clock import Clock, MonotonicClock
from .current import running
from .deadlock import describe_deadlock, threads_below, threads_of_run
from .engine import Scheduler, State, become_carrier, cease_carrier, make_poller
from .order import FifoOrder, Order
from .os_thread_kinds import known_os_thread, may_be_starting, other_os_threads
from .participants import any_may_unpark, dismiss_waiting, participants
from .placement import schedulers_beside
from .thread import VirtualThread
from .wait_queue import stand_ins

__all__ = ["Carrier", "check_again", "is_main_carrier", "without_run"]

# Carriers started at the first use of something, and not by `run`, by ident of their OS thread.
without_run: dict[int, Carrier] = {}


def _give_groups(scheduler: Scheduler) -> None:
    scheduler.background = BackgroundGroup(scheduler)
    scheduler.threads = BackgroundGroup(scheduler, "threads")
    scheduler.daemons = BackgroundGroup(scheduler, "daemons")


def _nothing_to_undo() -> None:
    """Do nothing: a carrier of `run` is ended by `run` itself."""


class Carrier:
    """An OS thread with its scheduler and its root."""

    def __init__(
        self,
        poller: str | None,
        clock: Clock | None,
        order: Order | None,
        root: VirtualThread | None = None,
        first: Carrier | None = None,
    ) -> None:
        self.scheduler = Scheduler(
            make_poller(poller),
            MonotonicClock() if clock is None else clock,
            FifoOrder() if order is None else order,
            is_deadlocked=self._is_deadlocked,
            when_deadlocked=self._report_deadlock,
            when_signalled=self._signalled,
        )
        # Undoes the registration that ends the carrier with its OS thread; a carrier of `run` has none.
        self.undo_end: Callable[[], None] = _nothing_to_undo
        self._joining = False
        # The carrier with the root of the run, which gets what concerns the run as a whole.
        self._first = self if first is None else first
        _give_groups(self.scheduler)
        self.scheduler.root = self.root = root or self._new_root()

    def _new_root(self) -> VirtualThread:
        root = VirtualThread.__new__(VirtualThread)._init_thread(self.scheduler, copy_context())
        # For `threading`, the root is still its OS thread, so it keeps that ident.
        root._thread_ident = self.scheduler.ident
        os_thread = known_os_thread()
        if os_thread is not None:
            root.name = os_thread.name
        return root

    def start(self, patch: bool) -> None:
        """Run the code that is running as the root. If a participant fails, the carrier has stopped again."""
        self.scheduler.adopt(self.root)
        become_carrier(self.scheduler)
        try:
            for participant in participants():
                if participant.started is not None:
                    participant.started(self.scheduler, patch)
        except BaseException:
            # Otherwise the OS thread would stay a carrier that nothing ends, and `run` would refuse to start.
            self.stop()
            raise

    def join(self) -> None:
        """Wait for the background groups and the standard library's threads of the run; daemons are cancelled.

        An interrupt, as by Ctrl-C or a deadlock, cancels all of them, and is raised when none is left. A thread that
        outlived its carrier could never end, and the interpreter, which joins the threads of `threading`, neither.
        """
        schedulers = schedulers_beside(self.scheduler)
        self._joining = True
        interrupts: list[BaseException] = []
        try:
            # A thread of one group may start one in another, so repeat until all are empty.
            while any(len(one.background) or len(one.threads) for one in schedulers):
                for one in schedulers:
                    interrupts += self._join_group(one.background)
                    dismiss_waiting(one)
                    interrupts += self._join_group(one.threads)
            for one in schedulers:
                one.daemons.end(self.root, "a daemon ends with its carrier")
        finally:
            for participant in participants():
                if participant.joined is not None:
                    participant.joined(self.scheduler)
        for interrupt in interrupts:
            raise interrupt

    def _join_group(self, group: BackgroundGroup) -> list[BaseException]:
        try:
            group.join(self.root)
        except BaseException as interrupt:  # noqa: BLE001  # raised by `join` at its end
            for one in schedulers_beside(self.scheduler):
                for other in one.background, one.threads:
                    other.cancel(f"{self.root.name!r} was interrupted while it joined the last threads")
            return [interrupt]
        return []

    def stop_if_unused(self) -> bool:
        """Stop if only the running code of the root is left; the OS thread is an ordinary one again then."""
        root = self.root
        if running() is not root:
            return False
        if dismiss_waiting(self.scheduler):
            # Idle workers of a pool are not work of the program, so they do not keep the carrier. They end at this
            # checkpoint.
            root._yield_now()
        if any(thread is not root for thread in threads_below(self.scheduler)):
            return False
        # Raise what is pending, which would be lost otherwise; it may end the scopes around this call.
        root._check()
        if root._innermost is not root:
            return False
        self.undo_end()
        self.stop()
        return True

    def stop(self) -> None:
        """Make this OS thread an ordinary one again, after its virtual threads have ended. Idempotent.

        Raises:
            BaseException: the first exception of a participant, as by Ctrl-C while one waits; the stop is complete.
        """
        if self.scheduler.closed:
            return
        failure: BaseException | None = None
        for participant in reversed(list(participants())):
            try:
                if participant.stopping is not None:
                    participant.stopping(self.scheduler)
            except BaseException as error:  # noqa: BLE001  # raised below; else the OS thread would stay a carrier
                failure = failure or error
        cease_carrier()
        without_run.pop(self.scheduler.ident, None)
        self.scheduler.close()
        # In the child of a fork the root may have an owner that ends the process with it. The code after this stop goes
        # on, so drop the owner.
        self.root.group = None
        self.root._end(None, None)
        if failure is not None:
            raise failure

    def _signalled(self, error: BaseException) -> None:
        self._first.root._interrupt_with(error, polite=False)

    def _is_deadlocked(self) -> bool:
        """Return whether nothing is left that could unpark a thread; called when all threads are parked."""
        placement = self.scheduler.placement
        if placement is None:
            return not other_os_threads() and not any_may_unpark(self.scheduler)
        if not placement.all_quiescent():
            return False
        if self._first is not self:
            # The carrier of the root reports it. It may have found this carrier busy at its own last check.
            check_again(self._first.scheduler)
            return False
        return not other_os_threads() and not any(map(any_may_unpark, placement.schedulers))

    def _report_deadlock(self) -> None:
        """Raise `DeadlockError` in the thread that blocks a loop, else in the root; else in one whose wait can end."""
        if may_be_starting():
            # An OS thread that starts may unpark a thread. If it does not, the scheduler finds the deadlock again after
            # a moment.
            return
        schedulers = schedulers_beside(self.scheduler)
        if self._joining and sum(map(dismiss_waiting, schedulers)):
            # The threads that waited for work that can no longer come are ready now, so this is not a deadlock. They
            # were started after `join` had dismissed the earlier ones.
            return
        waiting = [thread for thread in threads_of_run(self.scheduler) if thread.state is State.PARKED]
        # Leave out the roots of the other carriers: they wait for the end of the run, and not for another thread.
        parked = [thread for thread in waiting if thread is self.root or thread is not thread._scheduler.root]
        error = DeadlockError(describe_deadlock(parked))
        for participant in participants():
            note = "" if participant.deadlock_note is None else participant.deadlock_note(self.scheduler)
            if note:
                error.add_note(note)
        if any(thread.state is not State.PARKED for thread in waiting):
            # The text shows objects of the program. A `repr`, or a signal handler meanwhile, has unparked a thread: the
            # error would reach it later, in code that does not wait.
            return
        standing_in = [other for other in stand_ins if other._scheduler is self.scheduler]
        blockers = [one.deadlocked(self.scheduler) for one in participants() if one.deadlocked is not None]
        # Threads of this carrier first: an interrupt of a thread on another carrier is posted there, so the result of
        # that attempt is not known here.
        parked.sort(key=lambda thread: not thread._is_here())
        for thread in [*filter(None, blockers), *standing_in, self.root, *parked]:
            thread._interrupt_with(error, polite=False)
            if thread.state is not State.PARKED or not thread._is_here():
                return


def check_again(scheduler: Scheduler) -> None:
    """Make a carrier that waits in its poller check for a deadlock again. Thread-safe."""
    # Do nothing: posting this ends the wait, and the check follows.
    scheduler.post(int)


def is_main_carrier(scheduler: Scheduler) -> bool:
    """Return whether `scheduler` runs on the main OS thread, which handles signals."""
    # After a fork in a virtual thread, `threading` sees that thread as the main thread, with its own ident.
    return threading.main_thread().ident in (scheduler.ident, scheduler.root._thread_ident)
