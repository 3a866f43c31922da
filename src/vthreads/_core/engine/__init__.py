"""The machine that switches fibers: one contract, two engines, chosen once.

An engine defines

- `Fiber`: the unit of switching. A subclass defines `context` and `run()`; `run` must not raise. States: see `State`.
- `Scheduler(poller, clock, order)`: run queue, timers, poller and inbox of one carrier.
    - on its own OS thread: `adopt`, `start`, `make_ready`, `make_next`, `park`, `_yield_now`, `timers`, `descriptors`,
      `close`;
    - from any OS thread: `post`; for inspection also `switches` and iteration over `timers`.
- Of a fiber, on its OS thread: `_check`, `_give_way`, `_yield_now`, `_park`; from any OS thread: `_unpark`, `_rouse`.
  At its end `_leave_context`, because a finished greenlet must not keep the fiber's context variables alive; and
  `_retire`.
  While its flag `_pending` is set, these call the subclass, which may raise: `_raise_due`, `_park_pending`,
  `_raise_aborted`.
- `become_carrier`, `cease_carrier`, `running`: the scheduler, and the fiber, that run on this OS thread.
- `Scheduler.arriving`: during a switch the fiber that is being switched to, else None.
- `Scheduler.switches`: number of switches so far. From any OS thread, like `slice_end`: the time at which the slice of
  the running fiber ends.
- `Scheduler.observer`: None, or an object that is called, on the carrier, when a fiber has `parked`, is `readied`
  (queued), `runs` (next) or has `ended`. It must not raise. Its methods may be looked up once, when it is set.
- `Scheduler.when_ready`: None, or a function of an event loop that runs on the same OS thread and drives the
  scheduler; called when it should call `Scheduler.lend` soon. `lend`, called by the fiber that runs the loop, runs the
  others for a turn and returns the seconds until the next one. Meanwhile the loop waits for the descriptor of the
  poller.
- `Scheduler.when_landed`: None, or a function that is called after each switch with the fiber that runs next. It must
  not park or raise.
- `Section`: a reentrant lock for a few instructions. `_at_fork_reinit()`, in the child of a fork, frees it.
- `compiled(part)`: a decorator of classes and functions in the layers above. An engine that has a compiled version
  returns that instead; the Python version is its specification. A decorated base class holds the fields of its
  subclasses.
- `supply(module, **names)`: `module` of the layers above passes, once, the classes and constants that compiled code
  uses of it. The engine imports nothing of these layers.
- `quick_condition_call(name, readable)`: a version of a method of the standard library, for example "Condition.wait",
  that does the same as `readable` and calls it in uncommon cases; `readable` if there is none.
- `quick_socket_calls(readable, managed)`: methods of `socket.socket`, by name, that do the same as those of `readable`,
  and call those for uncommon cases. `managed` contains the timeouts that CPython does not store, by id of the socket.
- `refuse_by(function, refuse, any_error)`: `refuse` gets the arguments of each call of the compiled `function` that
  raised an error of wrong arguments, and raises another one, or returns. Without `any_error`, only if their number or a
  name was wrong. Return whether this engine does that; if not, the caller wraps the function.
- `modes_changed()`: the program has changed the blocking mode of an open file by a descriptor.
- `TIMED_OUT`, `ABORTED`: returned by `park` and `_park` if the fiber was not unparked.

`Scheduler.park(abort, deadline)` stops the running fiber until it is unparked. `abort` is the undo function of the
caller: it returns True if the wait could be withdrawn, False if it was granted already, and so the fiber unparked.
Deadlines and cancellation both call it, so that exactly one of grant and withdrawal happens.

Foreign code (finalizers, callbacks of weak references, trace functions) may run between any two steps: at an
allocation, at a call, and where the last reference to an object is dropped. Two rules keep each such place consistent:

- From the change of a fiber's state until the next fiber lands, `running` is None. Foreign code in between may spawn,
  unpark and post, but not park: `waiter_here`, and calls that start the runtime, raise a RuntimeError. Trace and
  profile functions are not called there (`suspend_tracing`), because their exceptions would interrupt the switch.
- A fiber lands when nothing of its wait is left: answer taken, timer cancelled, abort dropped. Foreign code that
  parks it from then on has a separate wait.

A fiber that ends calls `_retire` before its owner drops it: no code runs as that fiber afterwards. Objects that only
the fiber kept alive are freed at the next landing (`_break_cycles`), on the fiber that lands; if none is ready, at once
and inside the scheduler.

Between the queueing of a fiber and its park it is still running (`_has_begun_to_wait`). The layers above give foreign
code that waits there a separate waiter, and check their condition again after the queueing: foreign code that waits
inside a `Section` lets other fibers of this OS thread enter it.

The engine does not depend on virtual threads, cancellation, groups or locks.
"""

from __future__ import annotations

import os
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING

from .descriptors import CLOSED, Descriptor, Descriptors
from .pollers import HANGUP, READ, URGENT, WRITE, make_poller
from .states import ABORTED, TIMED_OUT, State, carriers, contended

# Fastest first.
ENGINES = ("accelerated", "reference")


def _require_greenlet() -> None:
    # Check before importing an engine, where a missing module would look like an engine that was not compiled.
    try:
        import_module("greenlet")
    except ModuleNotFoundError as error:
        raise ImportError(
            f"vthreads needs greenlet, which this Python cannot import ({error}); install it: pip install greenlet",
            name="greenlet",
        ) from error


def _choose(wanted: str | None) -> tuple[str, ModuleType]:
    """Return the engine named `wanted`; None: the fastest one of this installation."""
    if wanted is not None and wanted not in ENGINES:
        raise ImportError(f"VTHREADS_ENGINE={wanted!r}: there is no such engine; choose one of {', '.join(ENGINES)}")
    _require_greenlet()
    for name in ENGINES if wanted is None else (wanted,):
        try:
            return name, import_module(f".{name}", __name__)
        except ModuleNotFoundError:
            # This installation was built without a compiler. The reference engine always exists.
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
    "URGENT",
    "WRITE",
    "Descriptor",
    "Descriptors",
    "Fiber",
    "Scheduler",
    "Section",
    "State",
    "become_carrier",
    "carriers",
    "cease_carrier",
    "compiled",
    "contended",
    "engine_name",
    "make_poller",
    "modes_changed",
    "quick_condition_call",
    "quick_socket_calls",
    "refuse_by",
    "running",
    "supply",
]

if TYPE_CHECKING:
    from .reference import (
        Fiber,
        Scheduler,
        Section,
        become_carrier,
        cease_carrier,
        compiled,
        modes_changed,
        quick_condition_call,
        quick_socket_calls,
        refuse_by,
        running,
        supply,
    )

    engine_name: str
else:
    engine_name, engine = _choose(os.environ.get("VTHREADS_ENGINE"))
    Fiber, Scheduler, Section = engine.Fiber, engine.Scheduler, engine.Section
    become_carrier, cease_carrier, running = engine.become_carrier, engine.cease_carrier, engine.running
    compiled, supply, quick_socket_calls = engine.compiled, engine.supply, engine.quick_socket_calls
    modes_changed, quick_condition_call, refuse_by = engine.modes_changed, engine.quick_condition_call, engine.refuse_by
