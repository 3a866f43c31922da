"""The placement of virtual threads on the carriers of one run.

A thread is placed before its first run, and stays. Until it runs, it is in the queue of one carrier, from which any
carrier may remove it. Removing is one atomic step, so exactly one carrier starts it. A carrier reads the queues of the
others before it waits, and an idle one is invited when a thread is placed on a carrier that is not idle. So an
unstarted thread never waits for a pinned carrier while another one is idle.

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


class _Berth:
    """A carrier as a place for threads."""

    __slots__ = ("has_taken", "placed", "scheduler", "unstarted")

    def __init__(self, scheduler: Scheduler) -> None:
        self.scheduler = scheduler
        # Threads that are queued for their first run, and all that were placed here and have not ended.
        self.unstarted: deque[VirtualThread] = deque()
        self.placed: set[VirtualThread] = set()
        # Whether it has taken a thread since it looked for one: it runs that thread, although it is still idle.
        self.has_taken = False

    @property
    def is_idle(self) -> bool:
        """Whether it takes the next thread before it runs anything else."""
        return self.scheduler.idle_on is not None and not self.has_taken

    def load(self) -> tuple[int, int]:
        """Return what is compared: the number of threads that want to run, then that of all threads placed here."""
        scheduler = self.scheduler
        return len(self.unstarted) + len(scheduler._ready) + (not self.is_idle), len(self.placed)


class _Start(Fiber):
    """Joins the run queue of a carrier, and starts an unstarted thread when its turn comes.

    The thread itself would be lost to the other carriers as soon as it was in a run queue.
    """

    name = "start of a thread"
    group = None
    _sites = ()
    _waits_for = None

    def __init__(self, placement: Placement, berth: _Berth) -> None:
        super().__init__(berth.scheduler, None)
        self._placement = placement
        self._berth = berth
        # Observers record it like a thread.
        self._thread_ident = next_ident()

    def run(self) -> None:
        # Between two switches: finalizers and signal handlers in code that runs as a fiber would take it for a thread.
        self._scheduler.post(self._placement.start_one, self._berth)


class PlacedAtGrant:
    """The wait of an unstarted thread for a permit: the thread is placed when it gets one, or when it is cancelled.

    If it had a carrier before, it would wait for that one, which may be pinned by then.
    """

    __slots__ = ("_permits", "_thread")

    def __init__(self, thread: VirtualThread, permits: Any) -> None:
        self._thread = thread
        self._permits = permits

    def queue(self) -> None:
        """Queue for a permit; place the thread now if there is one."""
        thread = self._thread
        thread._wait_unstarted(self._give_up)
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

    def _give_up(self) -> bool:
        """Place the thread, only to end, unless it got a permit. Returns False: the caller must not make it ready."""
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

    Each step on a queue or a set is atomic; loads are read without a lock, because a wrong guess costs no more than a
    worse place.
    """

    def __init__(self) -> None:
        self._berths: dict[Scheduler, _Berth] = {}

    def admit(self, scheduler: Scheduler) -> None:
        """Place threads on the carrier of `scheduler` too, from now on."""
        berth = _Berth(scheduler)
        scheduler.placement = self
        scheduler.when_idle = partial(self.start_one, berth)
        # A copy, because other carriers iterate over the dict.
        self._berths = {**self._berths, scheduler: berth}

    @property
    def schedulers(self) -> list[Scheduler]:
        """The schedulers of the run; that of the root is the first."""
        return list(self._berths)

    # --- placing a thread

    def place(self, thread: VirtualThread) -> None:
        """Queue `thread`, which has never run, on the least loaded carrier."""
        berth = min(self._berths.values(), key=_Berth.load)
        thread._scheduler = berth.scheduler
        berth.placed.add(thread)
        berth.unstarted.append(thread)
        self._invite(berth)
        if not berth.is_idle:
            self._invite_idle()

    def left(self, thread: VirtualThread) -> None:
        """Handle the end of `thread`."""
        self._berths[thread._scheduler].placed.discard(thread)

    def _invite(self, berth: _Berth) -> None:
        berth.scheduler.post(self._accept, berth)

    def _invite_idle(self) -> None:
        for berth in self._berths.values():
            if berth.is_idle:
                self._invite(berth)
                return

    # --- on a carrier, between two switches

    def _accept(self, berth: _Berth) -> None:
        """Start a thread in turn; at once on an idle carrier, where another ready thread could pin the carrier."""
        scheduler = berth.scheduler
        if berth.is_idle:
            # The carrier looks for a thread itself before it waits again. But if a thread is ready, it does not wait.
            if len(scheduler._ready):
                self.start_one(berth)
        elif berth.unstarted:
            scheduler.make_ready(_Start(self, berth))
            self._invite_idle()

    def start_one(self, berth: _Berth) -> bool:
        """Make the carrier of `berth` run an unstarted thread next, an own one first; return whether there is one.

        A carrier that is not idle starts only its own threads.
        """
        # Idle before it looks, and busy before the check below: so a thread that is placed meanwhile is either found
        # here, or its spawner invites another carrier.
        berth.has_taken = False
        thread = self._take(berth)
        if thread is None:
            return False
        berth.has_taken = True
        berth.scheduler.make_next(thread)
        if any(other.unstarted for other in self._berths.values()):
            # The thread may pin this carrier.
            self._invite_idle()
        return True

    def _take(self, berth: _Berth) -> VirtualThread | None:
        for source in (berth, *self._berths.values()):
            # An idle carrier was invited with each of its threads, and takes one before it runs anything else. Mostly
            # nothing is queued anywhere, and the check comes before each wait.
            if not source.unstarted or (source is not berth and (source.is_idle or not berth.is_idle)):
                continue
            try:
                thread = source.unstarted.popleft()
            except IndexError:
                # Another carrier was faster.
                continue
            if source is not berth:
                source.placed.discard(thread)
                berth.placed.add(thread)
                thread._scheduler = berth.scheduler
            return thread
        return None

    # --- a deadlock of all

    def all_rest(self) -> bool:
        """Return whether all carriers wait at the same moment, for nothing that comes by itself. From any OS thread.

        A carrier that rests in both rounds and has not switched in between has rested all the time. So at the end of
        the first round all of them did.
        """
        for scheduler in self._berths:
            if scheduler.idle_on is None or scheduler._inbox:
                # The usual case: the others are busy. The rest of this check is slower than a hand-over.
                return False
        before = self._switches()
        return before is not None and before == self._switches()

    def _switches(self) -> list[int] | None:
        """Return the numbers of switches; None if a carrier does not rest."""
        schedulers = self.schedulers
        counts = [scheduler.switches for scheduler in schedulers]
        return counts if all(map(_rests, schedulers)) else None


def _rests(scheduler: Scheduler) -> bool:
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
