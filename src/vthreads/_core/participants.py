"""The participants of a runtime: an ordered table of modules, and the occasions on which each of them is called.

`ORDER` is the order of the calls, whatever the order of imports; only `stopping` is called in reverse. The table holds
names and not functions, because the core may not import the layers that it lists, and most of `debug` and `testing` is
imported at its first use. So a place stays empty until its module is imported and calls `participate`. A search in
`sys.modules` would find a module that another OS thread is still executing; `participate` comes when its functions
exist.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from importlib import import_module
from typing import Any, NamedTuple

from .engine import Scheduler

__all__ = [
    "ORDER",
    "Participant",
    "any_may_unpark",
    "dismiss_waiting",
    "import_participant",
    "participants",
    "participate",
]

PACKAGE = __name__.partition(".")[0]


class Participant(NamedTuple):
    """The functions of a module for the occasions of a runtime; None where it has nothing to do.

    All are called on the OS thread of the carrier. `stopping`, `forked`, `group_failed`, and the functions called when
    all threads are parked (`may_unpark`, `dismiss`, `deadlocked`, `deadlock_note`) must not park.
    """

    # A carrier has started, and its root runs. The flag is `run(patch=…)`: only `_patching` uses it, but it must patch
    # at its place in the order, after the signals are set up and before `debug` opens sockets.
    started: Callable[[Scheduler, bool], object] | None = None
    # A carrier is about to stop; its root still runs. Also called if `started` of an earlier participant has failed.
    stopping: Callable[[Scheduler], object] | None = None
    # This is the child of a fork, on its only OS thread, and no carrier has started yet.
    forked: Callable[[], object] | None = None
    # `run(preempt=seconds)` has started a carrier.
    preempting: Callable[[Scheduler, float], object] | None = None
    # `run(poller=name)` has started a carrier, and `name` is that of an event loop: run it on this carrier.
    hosting: Callable[[Scheduler, str], object] | None = None
    # The last virtual threads have been joined; the root may still park.
    joined: Callable[[Scheduler], object] | None = None
    # All threads of this carrier are parked: return whether something outside can still unpark one.
    may_unpark: Callable[[Scheduler], bool] | None = None
    # A carrier joins its last threads: end those that wait for work that can no longer come; return whether any did.
    dismiss: Callable[[Scheduler], bool] | None = None
    # A deadlock is being reported: return the thread of this carrier that gets the error before all others, or None.
    deadlocked: Callable[[Scheduler], Any] | None = None
    # A `DeadlockError` is being created, between two switches: return a text to add to it; "" adds nothing.
    deadlock_note: Callable[[Scheduler], str] | None = None
    # The main thread only joins from now on: unpark threads that join it. The result is called after the joins.
    main_over: Callable[[], Callable[[], object]] | None = None
    # A group whose other members are alive has its first failure, and has not cancelled them yet. Must not raise.
    group_failed: Callable[[BaseException], object] | None = None


# The modules that participate, without the name of the package.
ORDER = (
    # The interpreter calls fork handlers in the child in order of registration, and exit functions in reverse order. So
    # the child has its new runtime before later handlers run, and carriers are stopped after the later exit functions.
    "_core.fork",
    "_core.daemon_carriers",
    # Waits for tasks when the last carrier stops: after the signals, so that Ctrl-C ends the wait.
    "aio._shared_loop",
    # Reads the user's handlers, so before `_preemption` sets its own.
    "_calls.signals",
    "_core.submitted",
    # OS threads of the runtime: in the child of a fork they are gone, and later participants may start new ones.
    "_os_threads.pool",
    "_os_threads.calls",
    "_os_threads.held_up",
    "_os_threads.ticker",
    # In the child it restores SIGURG before a carrier starts and `_calls.signals` reads the user's handlers.
    "_preemption",
    # State that calls of the parent's other threads have left behind.
    "_mapping",
    "_calls.net.dns",
    "_calls.files.raw",
    "_calls.files.buffer_classes",
    "_calls.processes.children",
    "integrations._thread_pools",
    # The patch: later participants may use the standard library as a user would.
    "_patching",
    "_patching.threads",
    "_patching.identity",
    # The event loop that runs on the OS thread of the carrier.
    "_event_loops.hosting",
    "_event_loops.guests",
    # Observers start after the parts that they observe, and stop before them.
    "debug._observers",
    "debug._triggers",
    "debug._lock_circles",
    "debug._server",
    "debug._fatal",
    "testing._standard_time",
    "testing._root",
    "testing._explore.run",
)

# A dict keeps the order of its keys when a value is replaced. So registering is a single step for the interpreter, and
# safe while another OS thread imports a module, or while an occasion that iterates over the table imports one.
_places: dict[str, Participant] = dict.fromkeys(ORDER, Participant())


def participate(module: str, participant: Participant) -> None:
    """Register `module` in the table. Called once by each participant, at the end of its import.

    Raises:
        LookupError: `module` has no place in `ORDER`.
    """
    name = module.partition(".")[2]
    if name not in _places:
        raise LookupError(f"{module!r} has no place in the order of participants: add {name!r} to `ORDER`")
    _places[name] = participant


def import_participant(name: str) -> None:
    """Import the module of a participant that most programs do not need."""
    import_module(f"{PACKAGE}.{name}")


def participants() -> Iterator[Participant]:
    """Yield the registered participants in order; one that registers meanwhile is still visited."""
    return iter(_places.values())


def any_may_unpark(scheduler: Scheduler) -> bool:
    """Return whether a participant reports that something outside could still unpark a thread of `scheduler`."""
    return any(one.may_unpark(scheduler) for one in participants() if one.may_unpark is not None)


def dismiss_waiting(scheduler: Scheduler) -> bool:
    """Make all participants end threads that wait for work that can no longer come; return whether any did."""
    dismissed = [one.dismiss(scheduler) for one in participants() if one.dismiss is not None]
    return any(dismissed)
