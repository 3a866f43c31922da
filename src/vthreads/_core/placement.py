"""The placement of virtual threads on the carriers of one run.

A thread is placed before its first run, and stays. Until it runs, it is in the queue of one carrier, from which any
carrier may remove it. Removing is one atomic step, so exactly one carrier starts it. A carrier reads the queues of the
others before it waits. When a thread is placed on a carrier that is not idle, an idle one is notified, or else all of
them, which start it in its turn behind their ready threads. So an unstarted thread waits for no pinned carrier.

This module does not depend on groups, nor on how carriers start and end.
"""

from __future__ import annotations

from collections import deque
from functools import partial
from typing import Any

from .engine import ABORTED, Fiber, Scheduler, State
from .idents import next_ident
from .thread import VirtualThread

__all__ = ["PlacedAtGrant", "Placement", "place", "schedulers_beside"]


class _Load:
    """The threads that were placed on one carrier."""

    __slots__ = ("has_next", "placed", "scheduler", "starts", "unstarted")

    def __init__(self, scheduler: Scheduler) -> None:
        self.scheduler = scheduler
        # Threads that are queued for their first run, and all that were placed here and have not ended.
        self.unstarted: deque[VirtualThread] = deque()
        self.placed: set[VirtualThread] = set()
        # Whether the carrier has removed a thread from a queue and not yet run it: it still counts as idle then.
        self.has_next = False
        # Number of fibers in the run queue of the carrier that start a thread each. Changed on the carrier only.
        self.starts = 0

    @property
    def is_idle(self) -> bool:
        """Whether the carrier starts the next unstarted thread before it runs another one."""
        return self.scheduler.idle_on is not None and not self.has_next

    def size(self) -> tuple[int, int]:
        """Return what is compared: the number of threads that want to run, then that of all threads placed here."""
        scheduler = self.scheduler
        return len(self.unstarted) + len(scheduler._ready) + (not self.is_idle), len(self.placed)


class _Start(Fiber):
    """Is queued on a carrier in place of an unstarted thread, and starts one when it runs.

    If the thread itself were in the run queue, no other carrier could remove it.
    """

    name = "start of a thread"
    group = None
    _sites = ()
    _waits_for = None

    def __init__(self, placement: Placement, load: _Load) -> None:
        super().__init__(load.scheduler, None)
        self._placement = placement
        self._load = load
        # Observers record this fiber like a thread, by its ident.
        self._thread_ident = next_ident()

    def run(self) -> None:
        self._load.starts -= 1
        # Between two switches: here, finalizers and signal handlers would see this fiber as the running thread.
        self._scheduler.post(self._placement.start_one, self._load)


class PlacedAtGrant:
    """The wait of an unstarted thread for a permit: the thread is placed when it gets one, or when it is cancelled.

    If it were placed before, its carrier might be pinned by the time of the permit, while another one is idle.
    """

    __slots__ = ("_permits", "_thread")

    def __init__(self, thread: VirtualThread, permits: Any) -> None:
        self._thread = thread
        self._permits = permits

    def queue(self) -> None:
        """Queue for a permit; place the thread now if there is one."""
        thread = self._thread
        thread._wait_unstarted(self._withdraw)
        if self._permits._take_or_queue(self):
            self._unpark()
        elif thread._affected_by is not None:
            thread._notice()

    @property
    def state(self) -> State:
        return self._thread.state

    def _unpark(self, value: Any = True) -> bool:
        thread = self._thread
        if thread.state is State.ENDED:
            # It did not survive a fork.
            return False
        thread._answer = value
        thread.state = State.NEW
        place(thread)
        return True

    def _withdraw(self) -> bool:
        """Withdraw the wait, unless a permit was granted; the thread is placed, and ends at its first run.

        Returns False, because placing makes the thread ready, and the caller must not do it again.
        """
        if self._permits._withdraw(self):
            self._unpark(ABORTED)
        return False


def place(thread: VirtualThread) -> None:
    """Queue `thread`, which has never run, on a carrier of the run: the least loaded one. Thread-safe."""
    scheduler = thread._scheduler
    if scheduler.placement is not None:
        scheduler.placement.place(thread)
    elif thread._is_here():
        scheduler.make_ready(thread)
    else:
        scheduler.post(scheduler.make_ready, thread)


class Placement:
    """Chooses the carrier of each thread. Thread-safe.

    Each step on a queue or a set is atomic. Loads are read without a lock: a load that has changed meanwhile only makes
    the choice less even.
    """

    def __init__(self) -> None:
        self._loads: dict[Scheduler, _Load] = {}

    def add(self, scheduler: Scheduler) -> None:
        """Place threads on the carrier of `scheduler` too, from now on."""
        load = _Load(scheduler)
        scheduler.placement = self
        scheduler.when_idle = partial(self.start_one, load)
        # A copy, because other carriers iterate over the dict.
        self._loads = {**self._loads, scheduler: load}

    @property
    def schedulers(self) -> list[Scheduler]:
        """The schedulers of the run; that of the root is the first."""
        return list(self._loads)

    # --- placing a thread

    def place(self, thread: VirtualThread) -> None:
        """Queue `thread`, which has never run, on the least loaded carrier."""
        load = min(self._loads.values(), key=_Load.size)
        thread._scheduler = load.scheduler
        load.placed.add(thread)
        load.unstarted.append(thread)
        self._notify(load)
        if not load.is_idle:
            self._notify_others(load)

    def thread_ended(self, thread: VirtualThread) -> None:
        """Remove `thread` from the load of its carrier."""
        self._loads[thread._scheduler].placed.discard(thread)

    def _notify(self, load: _Load) -> None:
        load.scheduler.post(self._notified, load)

    def _notify_idle(self) -> bool:
        """Notify an idle carrier; return whether there is one."""
        for load in self._loads.values():
            if load.is_idle:
                self._notify(load)
                return True
        return False

    def _notify_others(self, load: _Load) -> None:
        """Notify an idle carrier, or else all others than that of `load`, which may be pinned."""
        if not self._notify_idle():
            for other in self._loads.values():
                if other is not load:
                    self._notify(other)

    # --- on a carrier, between two switches

    def _notified(self, load: _Load) -> None:
        """Queue the start of a thread; start one at once if the carrier is idle, before a ready thread can pin it."""
        scheduler = load.scheduler
        if load.is_idle:
            # The carrier calls `start_one` before it waits again. If a thread is ready, it does not wait.
            if len(scheduler._ready):
                self.start_one(load)
        else:
            self._queue_starts(load)
            if load.unstarted:
                self._notify_idle()

    def _queue_starts(self, load: _Load) -> None:
        """Queue a start for each unstarted thread on a busy carrier, which may never be idle again."""
        while load.starts < sum(len(other.unstarted) for other in self._loads.values()):
            load.starts += 1
            load.scheduler.make_ready(_Start(self, load))

    def start_one(self, load: _Load) -> bool:
        """Make the carrier of `load` run an unstarted thread next; return whether there is one. Its own come first."""
        # The carrier counts as idle while it searches, and as busy before the check below. So a thread that is placed
        # meanwhile is found here, or its spawner notifies another carrier.
        load.has_next = False
        thread = self._remove_unstarted(load)
        if thread is None:
            return False
        load.has_next = True
        load.scheduler.make_next(thread)
        self._queue_starts(load)
        if load.unstarted:
            # The thread may pin this carrier, and the others would wait.
            self._notify_others(load)
        elif any(other.unstarted for other in self._loads.values()):
            self._notify_idle()
        return True

    def _remove_unstarted(self, load: _Load) -> VirtualThread | None:
        for source in (load, *self._loads.values()):
            # An idle carrier was notified of each of its threads, and starts them itself. This runs before each wait,
            # and nothing is queued anywhere in most cases, so check that first.
            if not source.unstarted or (source is not load and source.is_idle):
                continue
            try:
                thread = source.unstarted.popleft()
            except IndexError:
                # Another carrier has removed it meanwhile.
                continue
            if source is not load:
                source.placed.discard(thread)
                load.placed.add(thread)
                thread._scheduler = load.scheduler
            return thread
        return None

    # --- a deadlock on all carriers

    def all_quiescent(self) -> bool:
        """Return whether all carriers are quiescent at the same moment. From any OS thread.

        A carrier that is quiescent in both rounds, without a switch in between, was so all the time. So at the end of
        the first round all of them were.
        """
        for scheduler in self._loads:
            if scheduler.idle_on is None or scheduler._inbox:
                # The usual case: another carrier is busy. Return early, because the rest takes longer than a hand-over.
                return False
        before = self._switches()
        return before is not None and before == self._switches()

    def _switches(self) -> list[int] | None:
        """Return the numbers of switches; None if a carrier is not quiescent."""
        schedulers = self.schedulers
        counts = [scheduler.switches for scheduler in schedulers]
        return counts if all(map(_is_quiescent, schedulers)) else None


def _is_quiescent(scheduler: Scheduler) -> bool:
    """Return whether the carrier waits, and no timer, descriptor, message or offloaded call can make a thread ready."""
    return (
        scheduler.idle_on is not None
        and not scheduler._inbox
        and not len(scheduler._ready)
        and not scheduler._spawners
        and not len(scheduler.timers)
        and not scheduler.outside
        and not scheduler.descriptors.waiting
    )


def schedulers_beside(scheduler: Scheduler) -> list[Scheduler]:
    """Return the schedulers of the run to which `scheduler` belongs, that of the root first."""
    placement: Placement | None = scheduler.placement
    return [scheduler] if placement is None else placement.schedulers
