"""The machine that switches fibers: one contract, two engines, chosen once.

The engine does not depend on virtual threads, cancellation, groups or locks. `tests/engine/test_contract_lists.py`
compares these lists with both engines and with the modules above. `docs/internals.md` lists what those modules supply.

An engine defines:

    Fiber                 the unit of switching; `State` has its states
    Scheduler             run queue, timers, poller and inbox of one carrier
    Section               a reentrant lock for a few instructions; `_at_fork_reinit` frees it in the child of a fork
    become_carrier        makes this OS thread run the fibers of a scheduler
    cease_carrier         makes it an ordinary one again
    running               the fiber that runs on this OS thread; None on a plain OS thread and during a switch
    compiled              decorates a class or function of a module above, and returns its compiled version if there is
                          one. The Python version is the specification, and handles the uncommon cases. A decorated
                          base class holds the fields of its subclasses
    supply                passes once the classes, constants and functions of a module above that compiled code uses
    quick_condition_call  returns a version of a method of the standard library, for example "Condition.wait", that does
                          the same as the readable one, and calls that in uncommon cases; that itself if there is none
    quick_socket_calls    returns such versions of methods of `socket.socket`, by name; `managed` contains the timeouts
                          that CPython does not store, by id of the socket
    refuse_by             makes a function pass the arguments of each call that raised an error of wrong arguments to
                          `refuse`, which raises another error or returns. Without `any_error`, only if their number
                          or a name was wrong. Returns False if the caller must wrap the function instead
    modes_changed         called when the program has changed the blocking mode of an open file by a descriptor

A scheduler has, for any OS thread:

    post         calls a function on the carrier between two switches; the function must not park or raise
    ident        the ident of its OS thread
    clock        its source of time
    poller       waits for descriptors
    switches     the number of switches so far
    switched_at  the real time of the last switch, as that of `time.monotonic`
    slice_end    the time at which the slice of the running fiber ends; a time in the past ends it
    timers       iteration over them is for inspection
    idle_on      the greenlet on whose stack the carrier waits while no fiber is ready, else None
    closed       whether `close` was called

and, for its own OS thread:

    adopt            makes the running code the code of a fiber
    start            runs a new fiber at once, up to its first park; then the caller continues, before all others
    make_ready       queues a new or parked fiber
    make_next        runs a fiber at the next switch, before all others
    park             runs others until the fiber is unparked. Its argument `abort` is the undo function of the caller:
                     it returns True if it has withdrawn the wait, False if the wait was granted, and so the fiber
                     unparked. Deadlines and cancellation call it, so that exactly one of grant and withdrawal happens
    _yield_now       runs each ready fiber once
    lend             runs others for a turn of the event loop that the fiber runs; returns the seconds until the next
    call_host        runs the fiber that called `lend`, up to its next park
    running          the fiber whose code runs, None during a switch
    arriving         during a switch the fiber that is switched to, else None
    descriptors      the descriptors that fibers wait for
    suspend_tracing  calls no trace or profile function until a fiber lands
    close            ends the pooled greenlets and closes the poller

Modules above set these fields of a scheduler. A function among them is called on the carrier, and must not park or
raise:

    when_forking    (_core/fork) before each switch, spawn and unpark while a fiber forks; gives the running fiber a new
                    scheduler in the child, and returns True there
    when_idle       (_core/fork, _core/placement, _event_loops/guests) before each wait; returns whether it has made a
                    fiber ready
    when_contended  (debug/_triggers) after waits for locks; returns the seconds until its next call
    when_landed     (_event_loops/running_loops) after each switch, with the fiber that runs next
    when_ready      (_event_loops/guests) when the event loop on this OS thread should call `lend` soon: a fiber is
                    ready, or timers may have changed. Not called during a turn
    loop_calls      (_event_loops/guests) the calls that wait for that event loop, which ends them in its turns
    observer        (debug/_observers, testing/_observer) an object that is called when a fiber has `parked`, is
                    `readied` (queued), `runs` (next) or has `ended`. Its methods may be looked up once, when it is set
    outside         (_calls/processes/children, _calls/signal_waits, _core/submitted, _os_threads/offload, aio/_calls)
                    the number of calls on other OS threads that will unpark a fiber
    background      (_core/carrier) not used by the engine, as the next four
    threads         (_core/carrier)
    daemons         (_core/carrier)
    root            (_core/carrier)
    placement       (_core/fork, _core/placement)

A fiber has, for any OS thread:

    _unpark        makes it ready; `_park` returns the value. False if it was not parked any more
    _rouse         makes it check what is pending: `_park` returns ABORTED if its wait can be withdrawn
    state          one of `State`
    _scheduler     its scheduler, for life
    _frame         returns its innermost frame
    _parked_at     the time of its last park
    _parked_until  the deadline of that
    _waits_for     name and object of the compiled call that parks it; None if a Python frame shows that

and, for itself:

    _check              begins each checkpoint: raises what is pending, and yields after a long run
    _give_way           yields after a long run
    _yield_now          a checkpoint that runs each ready fiber once
    _park               parks, after `_check`; returns the value of `_unpark`, or TIMED_OUT
    _answer             what the next `_park` returns, once the fiber is unparked
    _take_answer        returns that, and removes it
    _has_begun_to_wait  set from the queueing of the fiber until its park
    _pending            set while something may have to be raised; only then a checkpoint calls the subclass
    _leave_context      ends its context: a finished greenlet must not keep the context variables alive
    _retire             ends it before its owner drops it: no code runs as this fiber afterwards
    context             its context variables

A subclass of `Fiber` defines these; the ones that raise what is pending are called only while `_pending` is set:

    run               the code of the fiber; must not raise
    _break_cycles     drops references after the end, at the next landing
    _may_be_roused    whether `_rouse` takes effect
    _raise_due        raises what must be raised at a checkpoint, if anything
    _park_pending     `_park`
    _raise_aborted    raises the exception for which `_park` returned ABORTED

Foreign code (finalizers, callbacks of weak references, trace functions, signal handlers) may run at an allocation, at a
call, and where the last reference to an object is dropped. There it may do the following:

    while a fiber runs          everything. If it waits inside a `Section`, other fibers of the OS thread enter that
    from queueing to park       everything. The fiber counts as running; the modules above give foreign code that waits
                                there a separate waiter, and check their condition again after the queueing
    from a change of state      spawn, unpark and post. `running` is None, so a wait, or a call that starts the runtime,
      to the landing            raises a RuntimeError. Trace functions are not called: their errors would end the switch
    from the landing on         everything. Nothing of the wait is left: the answer is taken, the timer cancelled, the
                                undo function dropped
    while no fiber is ready     spawn, unpark and post, inside the scheduler
    after `_retire`             as during a switch. Objects that only the ended fiber kept alive are freed at the next
                                landing, on the fiber that lands; if none is ready, at once and inside the scheduler
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
