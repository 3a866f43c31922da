"""Observe what virtual threads do, on every carrier that exists, and on those that start during the observation.

A scheduler has a slot for one observer; several share it. This module does not depend on what observers do.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from .._core.current import carriers
from .._core.engine import Scheduler
from .._core.originals import allocate_lock, get_ident
from .._core.participants import Participant, participate

__all__ = ["Observation", "Observer", "observe"]


class Observer(Protocol):
    """Receives the events of the virtual threads of one carrier, on that carrier.

    Its methods run inside the scheduler: they must not park, must not raise, and must be short.
    """

    def parked(self, thread: Any, /) -> None:
        """`thread` parks; its frames are below this call."""

    def readied(self, thread: Any, /) -> None:
        """`thread` is about to be queued, by the running thread: by itself, if it gives way to others."""

    def runs(self, thread: Any, /) -> None:
        """`thread` runs next."""

    def ended(self, thread: Any, /) -> None:
        """`thread` has ended."""

    def close(self) -> None:
        """Called after the last event, because the carrier stops or the observation ends; on any OS thread."""


class _Several:
    """Several observers that share the slot of a scheduler."""

    __slots__ = ("_observers",)

    def __init__(self, observers: tuple[Observer, ...]) -> None:
        self._observers = observers

    def parked(self, thread: Any) -> None:
        for observer in self._observers:
            observer.parked(thread)

    def readied(self, thread: Any) -> None:
        for observer in self._observers:
            observer.readied(thread)

    def runs(self, thread: Any) -> None:
        for observer in self._observers:
            observer.runs(thread)

    def ended(self, thread: Any) -> None:
        for observer in self._observers:
            observer.ended(thread)


class Observation:
    """An observation. Created by `observe`; ends by `end()`, or as a context manager."""

    def __init__(self, make_observer: Callable[[Scheduler], Observer]) -> None:
        self._make_observer = make_observer
        self._observers: dict[Scheduler, Observer] = {}

    def __enter__(self) -> Observation:
        return self

    def __exit__(self, *_: object) -> None:
        self.end()

    def observers(self) -> list[Observer]:
        """The observers of the carriers that run. Not a checkpoint; thread-safe."""
        return list(self._observers.values())

    def end(self) -> None:
        """End the observation and close its observers. Not a checkpoint; thread-safe."""
        _observations.pop(self, None)
        for scheduler in list(self._observers):
            self._leave(scheduler)

    def _join(self, scheduler: Scheduler) -> None:
        """Start on the carrier; called between two switches or in code of the carrier."""
        if self in _observations and not scheduler.closed:
            self._observers[scheduler] = self._make_observer(scheduler)
            _share(scheduler)

    def _leave(self, scheduler: Scheduler) -> None:
        observer = self._observers.pop(scheduler, None)
        if observer is not None:
            _share(scheduler)
            observer.close()


# In the order of their start.
_observations: dict[Observation, None] = {}
_sharing = allocate_lock()


def observe(make_observer: Callable[[Scheduler], Observer]) -> Observation:
    """Create an observer for each carrier, including those that start later. Not a checkpoint; thread-safe.

    A carrier on another OS thread is observed from its next switch on.

    Args:
        make_observer: called on the carrier with its scheduler; returns the `Observer` of that carrier.
    """
    observation = Observation(make_observer)
    _observations[observation] = None
    for ident, scheduler in list(carriers.items()):
        if ident == get_ident():
            observation._join(scheduler)
        else:
            scheduler.post(observation._join, scheduler)
    return observation


def _share(scheduler: Scheduler) -> None:
    """Set the observer of `scheduler` to those that observe it now."""
    with _sharing:
        everyone = [observation._observers.get(scheduler) for observation in list(_observations)]
        observers = tuple(observer for observer in everyone if observer is not None)
        scheduler.observer = None if not observers else observers[0] if len(observers) == 1 else _Several(observers)


def _started(scheduler: Scheduler, patch: bool) -> None:
    for observation in list(_observations):
        observation._join(scheduler)


def _stopping(scheduler: Scheduler) -> None:
    for observation in list(_observations):
        observation._leave(scheduler)


def _forked() -> None:
    """End all observations in the child of a fork: its observers would write to files of the parent."""
    _observations.clear()
    # Another OS thread may have held the lock, and does not exist in the child.
    _sharing._at_fork_reinit()  # type: ignore[attr-defined]  # not in the type stubs


participate(__name__, Participant(started=_started, stopping=_stopping, forked=_forked))
