"""The machine that switches: one contract, chosen once.

An engine defines

- `Fiber`: what is switched. A subclass brings `context` and `run()`; `run` must not raise. States: see `State`.
- `Scheduler(poller, clock, order)`: run queue, timers, poller and inbox of one carrier.
    - on its own OS thread: `adopt`, `start`, `make_ready`, `make_next`, `park`, `yield_now`, `timers`, `descriptors`,
      `close`;
    - from any OS thread: `post`; and for looking at, `switches` and iteration over `timers`.
- Of a fiber, on its own OS thread: `check`, `give_way`, `yield_now`, `park`; from any OS thread: `unpark`, `rouse`.
  While its flag `pending` is set, these ask the subclass what to raise: `raise_due`, `park_pending`, `raise_aborted`.
- `become_carrier`, `cease_carrier`, `running`: which scheduler, and which fiber, runs on this OS thread.
- `Scheduler.switches`: how often somebody was chosen to run next. From any OS thread, like `slice_end`: when the one
  who runs has had its share of time.
- `Scheduler.observer`: None, or somebody who is told, on the carrier, of a fiber that `parked`, is `readied` (queued),
  `runs` (next) or has `ended`. It must not raise. Its methods may be looked up once, when it is set.
- `Section`: a reentrant lock for a few instructions. `_at_fork_reinit()`, in the child of a fork, frees it.
- `compiled(part)`: a decorator of classes and functions in the layers above. An engine that has the same compiled gives
  that in its place; the readable one is its specification. Such an engine may also have places of its own, in `Fiber`,
  `Outcome` and `Roster`, for what virtual threads, futures and groups keep.
- `quick_socket_calls(readable, managed)`: methods of `socket.socket`, by name, that do what those of `readable` do, and
  leave to them whatever is not common. `managed` has the timeouts that are not CPython's to keep, by id of the socket.
- `TIMED_OUT`, `ABORTED`: what `park` returns when it was not unparked.

`park(abort, deadline)`: the running fiber stops until somebody unparks it. `abort` is the caller's undo: it answers
True if the wait could be withdrawn, False if it was granted already and the wake-up is on its way. Deadlines and
cancellation both ask it, so that exactly one of grant and withdrawal happens.

The engine knows fibers. It does not know virtual threads, cancellation, groups or locks.
"""

from __future__ import annotations

import os
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING

from .descriptors import CLOSED, Descriptor, Descriptors
from .pollers import HANGUP, READ, WRITE, make_poller
from .states import ABORTED, TIMED_OUT, State, carriers

# The fastest first.
ENGINES = ("accelerated", "reference")


def _choose(wanted: str | None) -> tuple[str, ModuleType]:
    """The engine named `wanted`; None: the fastest that this installation has."""
    if wanted is not None and wanted not in ENGINES:
        raise ImportError(f"VTHREADS_ENGINE={wanted!r}: there is no such engine; choose one of {', '.join(ENGINES)}")
    for name in ENGINES if wanted is None else (wanted,):
        try:
            return name, import_module(f".{name}", __name__)
        except ModuleNotFoundError:
            # Installed without a compiler; the last one is always there.
            if wanted is not None:
                raise ImportError(
                    f"VTHREADS_ENGINE={wanted}: the compiled engine is not part of this installation; "
                    "install vthreads again where there is a C compiler, or leave the variable unset"
                ) from None
    raise AssertionError("the reference engine is part of every installation")


__all__ = [
    "ABORTED",
    "CLOSED",
    "HANGUP",
    "READ",
    "TIMED_OUT",
    "WRITE",
    "Descriptor",
    "Descriptors",
    "Fiber",
    "Outcome",
    "Roster",
    "Scheduler",
    "Section",
    "State",
    "become_carrier",
    "carriers",
    "cease_carrier",
    "compiled",
    "engine_name",
    "make_poller",
    "quick_socket_calls",
    "running",
]

if TYPE_CHECKING:
    from .reference import (
        Fiber,
        Outcome,
        Roster,
        Scheduler,
        Section,
        become_carrier,
        cease_carrier,
        compiled,
        quick_socket_calls,
        running,
    )

    engine_name: str
else:
    engine_name, engine = _choose(os.environ.get("VTHREADS_ENGINE"))
    Fiber, Scheduler, Outcome, Section = engine.Fiber, engine.Scheduler, engine.Outcome, engine.Section
    become_carrier, cease_carrier, running = engine.become_carrier, engine.cease_carrier, engine.running
    Roster = engine.Roster
    compiled, quick_socket_calls = engine.compiled, engine.quick_socket_calls
