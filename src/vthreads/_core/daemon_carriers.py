"""Stop carriers on daemon OS threads at interpreter exit: each blocks permanently between two switches.

While the interpreter finalizes, CPython before 3.14 ends a daemon thread as soon as it asks for the GIL. That unwinds
its stack without the GIL and destroys greenlet's data of the thread: the process dies by SIGSEGV or SIGABRT. A carrier
that waits for a lock never asks for the GIL again, and ends with the process. A carrier that starts later than this
blocks before it runs anything.

A carrier that computes or is pinned is not stopped. An exception could stop it at any instruction, but there it may
hold a lock that a later exit function needs, as `logging.shutdown` needs those of the handlers.
"""

from __future__ import annotations

import atexit
import os
import time

from .current import carriers
from .engine import Scheduler
from .originals import LockType, allocate_lock, get_ident
from .participants import Participant, participate

__all__: list[str] = []

# Seconds that the exit waits for all carriers to reach their next switch. On a busy machine an OS thread may wait long
# for a processor and for the GIL, and one that starts first patches the standard library.
PATIENCE = 2.0


class _Exit:
    """The exit of this process."""

    # Whether the exit function is registered: with the first carrier, and not at import.
    watched = False
    # The process and the OS thread that stop the others, from then on. The ident alone would stop a child that another
    # OS thread forks during the exit, and that does not exit itself.
    stopped_by: tuple[int, int] | None = None


def _stop_others() -> None:
    # Set before the carriers are listed: one that starts meanwhile is in the list, or sees this.
    _Exit.stopped_by = os.getpid(), get_ident()
    arrivals: list[LockType] = []
    for ident, scheduler in list(carriers.items()):
        if ident != get_ident():
            arrived = allocate_lock()
            arrived.acquire()
            arrivals.append(arrived)
            scheduler.post(_block_forever, arrived)
    deadline = time.monotonic() + PATIENCE
    for arrived in arrivals:
        arrived.acquire(timeout=max(0.0, deadline - time.monotonic()))


def _block_forever(arrived: LockType) -> None:
    never = allocate_lock()
    never.acquire()
    arrived.release()
    never.acquire()


def _started(scheduler: Scheduler, patch: bool) -> None:
    if not _Exit.watched:
        _Exit.watched = True
        atexit.register(_stop_others)
    if _Exit.stopped_by is not None and _Exit.stopped_by[0] == os.getpid() and _Exit.stopped_by[1] != get_ident():
        arrived = allocate_lock()
        arrived.acquire()
        _block_forever(arrived)


participate(__name__, Participant(started=_started))
