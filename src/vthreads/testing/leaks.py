"""What a piece of code left behind: virtual threads, scopes, timers, permits, waiters, descriptors, OS threads.

A look at everything before, a look after, and the difference, told in the words of the program: where a thread was
spawned, what it waits in. What the garbage collector takes away is not left behind.
"""

from __future__ import annotations

import gc
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from time import monotonic
from typing import Any

from .._core.current import carriers, running
from .._core.deadlock import threads_below
from .._core.engine import Scheduler, State
from .._core.engine.pollers.wakeup import WakeupPipe
from .._core.originals import sleep
from .._core.runtime import own_os_threads
from .._core.semaphore import BoundedSemaphore, Semaphore
from .._core.spawn_site import describe_sites
from .._core.thread import VirtualThread
from .._core.wait_queue import WaitQueue
from ..locks import Lock, RLock
from ..mutex import RwLock
from ..standard_locks import StandardLock, StandardRLock
from .places import describe_call

__all__ = ["Holdings", "LeakError", "Snapshot", "check_nothing_leaked"]

# Where the system lists the descriptors of this process.
DESCRIPTORS = next((path for path in ("/proc/self/fd", "/dev/fd") if os.path.isdir(path)), None)
# Real seconds that OS threads which are ending have to do so.
OS_THREADS_END_WITHIN = 0.25

# What may be held, by class: how much of it is. By the class itself, since asking a proxy for its class runs its code.
HELD: dict[type, Callable[[Any], int]] = {
    Lock: Lock.locked,
    StandardLock: Lock.locked,
    RLock: lambda lock: lock.statistics().locked,
    StandardRLock: lambda lock: lock.statistics().locked,
    RwLock: lambda lock: lock.statistics().readers + lock.statistics().writing,
    Semaphore: lambda semaphore: semaphore._initial - semaphore.statistics().value,
    BoundedSemaphore: lambda semaphore: semaphore._initial - semaphore.statistics().value,
    # It has forgotten how many there were: a count below nothing of what is there, so that taking makes it more.
    threading.Semaphore: lambda semaphore: -semaphore._value,
    threading.BoundedSemaphore: lambda semaphore: semaphore._initial_value - semaphore._value,
    WaitQueue: lambda queue: sum(map(_has_ended, _waiters_of(queue))),
}


def _waiters_of(queue: WaitQueue) -> list[Any]:
    """Who stands in it: the keys of the dict that it keeps, in each engine under a name of its own."""
    return [waiter for kept in gc.get_referents(queue) if isinstance(kept, dict) for waiter in kept]


def _has_ended(waiter: Any) -> bool:
    """Whether a virtual thread is over that still stands in a queue, itself or by what stands for it."""
    while not isinstance(waiter, VirtualThread) and waiter is not None:
        waiter = getattr(waiter, "_waiter", None)
    return waiter is not None and waiter.state is State.ENDED


class LeakError(AssertionError):
    """Something was left behind.

    Attributes:
        leaks: a description of each, as a tuple of strings.
    """

    def __init__(self, leaks: list[str]) -> None:
        things = "1 thing was" if len(leaks) == 1 else f"{len(leaks)} things were"
        super().__init__("\n".join([f"{things} left behind:", *(f"  {leak}" for leak in leaks)]))
        self.leaks = tuple(leaks)


class Holdings:
    """How much of each thing that may be held is held now, in the whole process."""

    def __init__(self) -> None:
        # The objects as well: an id may be given out again.
        self._held = _held()

    def leaks(self) -> list[str]:
        """Describe what is held more now than then."""
        if not self.differences():
            return []
        gc.collect()
        _wait_for_os_threads(self.differences)
        return self.differences()

    def differences(self) -> list[str]:
        """The same, of what the garbage collector would take away and OS threads are about to give back as well."""
        return [
            _describe_held(thing)
            for number, (thing, held) in _held().items()
            if held > self._held.get(number, (thing, _held_by_nobody(thing)))[1]
        ]


def _wait_for_os_threads(differences: Callable[[], list[str]]) -> None:
    """Give OS threads a moment in which they end, or come to rest."""
    if set(threading.enumerate()) - {threading.main_thread()}:
        patience = monotonic() + OS_THREADS_END_WITHIN
        while differences() and monotonic() < patience:
            sleep(0.005)


class Snapshot:
    """What there is now, on the carrier that asks and in the process."""

    def __init__(self) -> None:
        thread = running()
        self._scheduler: Scheduler | None = None if thread is None else thread.scheduler
        self._innermost = None if thread is None else thread.innermost
        self._threads = set(self._virtual_threads())
        self._descriptors = _descriptors()
        self._os_threads = _os_threads()
        self._holdings = Holdings()
        self._timers = self._armed_timers()

    def leaks(self) -> list[str]:
        """Describe what there is more of now than then."""
        if not self._differences():
            return []
        gc.collect()
        _wait_for_os_threads(self._of_the_process)
        return self._differences()

    def _differences(self) -> list[str]:
        return [*self._of_the_runtime(), *self._of_the_process()]

    # --- the carrier

    def _virtual_threads(self) -> Iterator[VirtualThread]:
        return iter(()) if self._scheduler is None else threads_below(self._scheduler)

    def _armed_timers(self) -> dict[tuple[int, float], Any]:
        """The owners, by identity and time."""
        timers = iter(()) if self._scheduler is None else iter(self._scheduler.timers)
        return {(id(owner), when): owner for when, owner in timers}

    def _of_the_runtime(self) -> Iterator[str]:
        leaked = {thread for thread in self._virtual_threads() if thread.state is not State.ENDED} - self._threads
        for thread in sorted(leaked, key=lambda thread: thread.thread_ident):
            yield _describe_thread(thread)
        here = running()
        if here is not None and here.scheduler is self._scheduler and here.innermost is not self._innermost:
            yield f"{here.innermost!r}, which {here!r} has not left"
        for (_, when), owner in self._armed_timers().items():
            if (id(owner), when) not in self._timers and owner not in leaked:
                yield f"a timer of {owner!r}, due at {when:g}"
        yield from self._holdings.differences()

    # --- the process

    def _of_the_process(self) -> list[str]:
        descriptors = _descriptors().items() - self._descriptors.items()
        return [
            *(_describe_descriptor(fd) for fd, _ in sorted(descriptors)),
            *(f"OS thread {thread!r}" for thread in _os_threads() - self._os_threads),
        ]


def _describe_thread(thread: VirtualThread) -> str:
    does = f"{thread.state.value} in {describe_call(thread)}" if thread.state is State.PARKED else thread.state.value
    owner = "" if thread.group is None else f" of group {thread.group.name!r}"
    told = describe_sites(f"virtual thread {thread.name!r}{owner}", thread.sites).removeprefix("in ")
    return f"{does}: {told}".replace("\n", "\n    ")


def _held_by_nobody(thing: Any) -> int:
    """How much of a thing that is new counts as held by nobody."""
    return -thing._value if type(thing) is threading.Semaphore else 0


def _describe_held(thing: Any) -> str:
    if isinstance(thing, WaitQueue):
        return f"waiters that have ended: {list(filter(_has_ended, _waiters_of(thing)))!r}"
    if isinstance(thing, Semaphore | threading.Semaphore):
        return f"permits of {thing!r} that were not given back"
    return f"{thing!r}, which was not released"


def _held() -> dict[int, tuple[Any, int]]:
    """What may be held, with how much of it is. One look at every object."""
    return {id(thing): (thing, HELD[type(thing)](thing)) for thing in gc.get_objects() if type(thing) in HELD}


def _descriptors() -> dict[int, tuple[int, int]]:
    """Device and inode of each open descriptor, without those by which carriers wait."""
    found = {}
    own = _descriptors_of_pollers()
    for name in os.listdir(DESCRIPTORS) if DESCRIPTORS else ():
        fd = int(name)
        try:
            status = os.fstat(fd)
        except OSError:
            # The one by which the directory was listed.
            continue
        if fd not in own:
            found[fd] = status.st_dev, status.st_ino
    return found


def _descriptors_of_pollers() -> set[int]:
    fds = set()
    for scheduler in list(carriers.values()):
        for part in vars(scheduler.poller).values():
            if isinstance(part, WakeupPipe):
                fds |= {part.read_fd, part.write_fd}
            elif hasattr(part, "fileno"):
                fds.add(part.fileno())
    return fds


def _describe_descriptor(fd: int) -> str:
    try:
        file = os.readlink(f"{DESCRIPTORS}/{fd}")
    except OSError:
        file = "a file that the system does not name"
    return f"descriptor {fd}: {file}"


def _os_threads() -> set[threading.Thread]:
    """The OS threads of the program; idle ones of the runtime may stay."""
    return {thread for thread in threading.enumerate() if thread.ident not in own_os_threads}


@contextmanager
def check_nothing_leaked() -> Iterator[None]:
    """Make a block that has to leave nothing behind.

    At its end there may be no more than at its beginning of: virtual threads of this carrier, scopes entered, timers
    armed, locks and permits held, waiters that have ended, descriptors and OS threads of the process. A
    `threading.Semaphore` does not know how many permits it began with: of one that was made in the block, permits may
    be missing. A failure of the block comes out of it, with a note on what was left behind. Entering and leaving are no
    checkpoints. Each looks at every object of the process, which takes milliseconds.

    Raises:
        LeakError: an `AssertionError` that lists what was left, and where each thread was spawned.
    """
    before = Snapshot()
    try:
        yield
    except BaseException as error:
        leaks = before.leaks()
        if leaks:
            error.add_note(str(LeakError(leaks)))
        raise
    leaks = before.leaks()
    if leaks:
        raise LeakError(leaks)
