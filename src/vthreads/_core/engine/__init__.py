"""The machine that switches: one contract, chosen once.

An engine defines

- `Fiber`: what is switched. A subclass brings `context` and `run()`; `run` must not raise. States: see `State`.
- `Scheduler(poller, clock, order)`: run queue, timers, poller and inbox of one carrier.
    - on its own OS thread: `adopt`, `start`, `enqueue`, `park`, `yield_now`, `timers`, `descriptors`, `close`;
    - from any OS thread: `unpark`, `rouse`, `post`, `interrupt_fd`.
- `TIMED_OUT`, `ABORTED`: what `park` returns when it was not unparked.

`park(abort, deadline)`: the running fiber stops until somebody unparks it. `abort` is the caller's undo: it answers
True if the wait could be withdrawn, False if it was granted already and the wake-up is on its way. Deadlines and
cancellation both ask it, so that exactly one of grant and withdrawal happens.

The engine knows fibers. It does not know virtual threads, cancellation, groups or locks.
"""

from __future__ import annotations

import os

from .descriptors import CLOSED, Descriptor, Descriptors
from .pollers import HANGUP, READ, WRITE, make_poller
from .reference import ABORTED, TIMED_OUT, Fiber, Scheduler, State

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
    "Scheduler",
    "State",
    "make_poller",
]

ENGINES = ("reference",)

wanted = os.environ.get("VTHREADS_ENGINE", "reference")
if wanted not in ENGINES:
    raise ImportError(f"VTHREADS_ENGINE={wanted!r}: this installation has {', '.join(ENGINES)}")
