"""Observers of what virtual threads do, on every carrier that there is and that starts while somebody watches.

A scheduler has room for one observer; several share it. Nothing here knows what they do with what they are told.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from .._core.current import carriers
from .._core.engine import Scheduler
from .._core.originals import allocate_lock, get_ident
from .._core.runtime import after_fork_hooks, start_hooks, stop_hooks

__all__ = ["Observation", "Observer", "observe"]


class Observer(Protocol):
    """What is told of the virtual threads of one carrier, on that carrier.

    Its methods run in the midst of the scheduler: they must not park, nor raise, nor take long.
    """

    def parked(self, thread: Any, /) -> None:
        """`thread` has parked; its frames are below this call."""

    def readied(self, thread: Any, /) -> None:
        """`thread` will be queued, by whichever runs: itself, if it lets others run."""

    def runs(self, thread: Any, /) -> None:
        """`thread` runs next."""

    def ended(self, thread: Any, /) -> None:
        """`thread` has ended."""

    def close(self) -> None:
        """Nothing more comes: the carrier stops, or the observation has ended. Called on any OS thread."""


class _Several:
    """The observers that share a scheduler."""

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
    """What `observe` began. A context manager, which ends it; `end()` does as well."""

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
        """Tell the observers nothing more, and close them. Not a checkpoint; thread-safe."""
        _observations.pop(self, None)
        for scheduler in list(self._observers):
            self._leave(scheduler)

    def _join(self, scheduler: Scheduler) -> None:
        """On the carrier, between two switches or in running code of its own."""
        if self in _observations and not scheduler.closed:
            self._observers[scheduler] = self._make_observer(scheduler)
            _share(scheduler)

    def _leave(self, scheduler: Scheduler) -> None:
        observer = self._observers.pop(scheduler, None)
        if observer is not None:
            _share(scheduler)
            observer.close()


# In the order in which they began.
_observations: dict[Observation, None] = {}
_sharing = allocate_lock()


def observe(make_observer: Callable[[Scheduler], Observer]) -> Observation:
    """Have an observer made for each carrier, those that start later included. Not a checkpoint; thread-safe.

    A carrier on another OS thread is observed from its next switch on.

    Args:
        make_observer: called on the carrier with its scheduler; the `Observer` of that carrier.
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
    """Let `scheduler` tell whoever wants to know now."""
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
    """The carriers of the parent are not in this process, and its observers write to files of the parent's."""
    _observations.clear()


start_hooks.append(_started)
stop_hooks.append(_stopping)
after_fork_hooks.append(_forked)
