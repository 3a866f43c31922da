"""Find what code left behind: virtual threads, scopes, timers, permits, descriptors, processes, and so on.

It takes a snapshot before and one after, and describes the difference in terms of the program: where a thread was
spawned, what it waits in. Objects that the garbage collector frees do not count as left behind.
"""

from __future__ import annotations

import gc
import glob
import os
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from time import monotonic
from typing import Any

from .._calls.standard_locks import StandardLock, StandardRLock
from .._core.blocks import block
from .._core.current import carriers, running
from .._core.deadlock import threads_of_run
from .._core.engine import Scheduler, State
from .._core.engine.pollers.wakeup import WakeupPipe
from .._core.exceptions import add_note
from .._core.originals import sleep
from .._core.os_thread_kinds import own_os_threads
from .._core.placement import schedulers_beside
from .._core.semaphore import BoundedSemaphore, Semaphore
from .._core.spawn_site import describe_sites
from .._core.thread import VirtualThread
from .._core.wait_queue import WaitQueue
from .._sync.locks import Lock, RLock
from .._sync.mutex import RwLock
from ._places import describe_call

__all__ = ["Holdings", "LeakError", "Snapshot", "check_nothing_leaked"]

# The directory in which the system lists the descriptors of this process.
DESCRIPTORS = next((path for path in ("/proc/self/fd", "/dev/fd") if os.path.isdir(path)), None)
# Where `multiprocessing` stores the pids of its helper processes: module, object, attribute.
KEEPERS = (
    ("multiprocessing.resource_tracker", "_resource_tracker", "_pid"),
    ("multiprocessing.forkserver", "_forkserver", "_forkserver_pid"),
)
# Real seconds that OS threads have to end.
OS_THREADS_END_WITHIN = 0.25
# Real seconds that a child has to begin its program.
EXEC_ENDS_WITHIN = 0.25

# How much of an object is held, by its exact type, because `isinstance` would run code of a proxy.
HELD: dict[type, Callable[[Any], int]] = {
    Lock: Lock.locked,
    StandardLock: Lock.locked,
    RLock: lambda lock: lock.statistics().locked,
    StandardRLock: lambda lock: lock.statistics().locked,
    RwLock: lambda lock: lock.statistics().readers + lock.statistics().writing,
    Semaphore: lambda semaphore: semaphore._initial - semaphore.statistics().value,
    BoundedSemaphore: lambda semaphore: semaphore._initial - semaphore.statistics().value,
    # It does not record its initial value. So use the negative value: acquiring increases it.
    threading.Semaphore: lambda semaphore: -semaphore._value,
    threading.BoundedSemaphore: lambda semaphore: semaphore._initial_value - semaphore._value,
    WaitQueue: lambda queue: sum(map(_has_ended, queue.waiters())),
}


def _has_ended(waiter: Any) -> bool:
    """Return whether `waiter` is, or belongs to, a virtual thread that has ended but is still queued."""
    while not isinstance(waiter, VirtualThread) and waiter is not None:
        waiter = getattr(waiter, "_waiter", None)
    return waiter is not None and waiter.state is State.ENDED


class LeakError(AssertionError):
    """Something was left behind.

    Attributes:
        leaks: a description of each item, as a tuple of strings.
    """

    def __init__(self, leaks: list[str]) -> None:
        things = "1 thing was" if len(leaks) == 1 else f"{len(leaks)} things were"
        super().__init__("\n".join([f"{things} left behind:", *(f"  {leak}" for leak in leaks)]))
        self.leaks: tuple[str, ...] = tuple(leaks)


class Holdings:
    """How much of each object is held at present, in the whole process."""

    def __init__(self) -> None:
        # Contains the objects too, because ids are reused.
        self._held = _held()

    def leaks(self) -> list[str]:
        """Describe what is held now and was not held then."""
        if not self.differences():
            return []
        gc.collect()
        _wait_for_os_threads(self.differences)
        return self.differences()

    def surplus(self) -> list[str]:
        """Describe the semaphores that have more permits now than then."""
        now = _held()
        return [
            f"permits of {thing!r} that were released too often"
            for number, (thing, held) in self._held.items()
            if isinstance(thing, Semaphore | threading.Semaphore) and number in now and now[number][1] < held
        ]

    def differences(self) -> list[str]:
        """Like `leaks`, but includes what the garbage collector would free and OS threads are about to release."""
        return [
            _describe_held(thing)
            for number, (thing, held) in _held().items()
            if held > self._held.get(number, (thing, _free_value(thing)))[1]
        ]


def _wait_for_os_threads(differences: Callable[[], list[str]]) -> None:
    """Wait a moment for OS threads to end or become idle."""
    if set(threading.enumerate()) - {threading.main_thread()}:
        until = monotonic() + OS_THREADS_END_WITHIN
        while differences() and monotonic() < until:
            sleep(0.005)


class Snapshot:
    """Everything that exists at present, on the carriers of the run and in the process."""

    def __init__(self) -> None:
        thread = running()
        self._scheduler: Scheduler | None = None if thread is None else thread._scheduler
        self._innermost = None if thread is None else thread._innermost
        self._threads = set(self._virtual_threads())
        self._descriptors = _descriptors()
        self._os_threads = _os_threads()
        self._children = _children()
        self._holdings = Holdings()
        self._timers = self._armed_timers()

    def leaks(self) -> list[str]:
        """Describe what exists now and did not exist then."""
        if not self._differences():
            return []
        gc.collect()
        _wait_for_os_threads(self._of_the_process)
        return self._differences()

    def _differences(self) -> list[str]:
        return [*self._of_the_runtime(), *self._of_the_process()]

    # --- the run

    def _virtual_threads(self) -> Iterator[VirtualThread]:
        return iter(()) if self._scheduler is None else threads_of_run(self._scheduler)

    def _armed_timers(self) -> dict[tuple[int, float], Any]:
        """Return the owners, by identity and time."""
        schedulers = [] if self._scheduler is None else schedulers_beside(self._scheduler)
        return {(id(owner), when): owner for scheduler in schedulers for when, owner in scheduler.timers}

    def _of_the_runtime(self) -> Iterator[str]:
        leaked = {thread for thread in self._virtual_threads() if thread.state is not State.ENDED} - self._threads
        for thread in sorted(leaked, key=lambda thread: thread._thread_ident):
            yield _describe_thread(thread)
        here = running()
        if here is not None and here._scheduler is self._scheduler and here._innermost is not self._innermost:
            yield f"{here._innermost!r}, which {here!r} has not left"
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
            *(_describe_child(child) for child in sorted(_children() - self._children)),
        ]


def _describe_thread(thread: VirtualThread) -> str:
    does = f"{thread.state.value} in {describe_call(thread)}" if thread.state is State.PARKED else thread.state.value
    owner = "" if thread.group is None else f" of group {thread.group.name!r}"
    spawned_at = describe_sites(f"virtual thread {thread.name!r}{owner}", thread._sites)
    return f"{does}: {spawned_at}".replace("\n", "\n    ")


def _free_value(thing: Any) -> int:
    """Return how much of a new object counts as held if no thread holds it."""
    return -thing._value if type(thing) is threading.Semaphore else 0


def _describe_held(thing: Any) -> str:
    if isinstance(thing, WaitQueue):
        return f"waiters that have ended: {list(filter(_has_ended, thing.waiters()))!r}"
    if isinstance(thing, Semaphore | threading.Semaphore):
        return f"permits of {thing!r} that were not released"
    return f"{thing!r}, which was not released"


def _held() -> dict[int, tuple[Any, int]]:
    """Return all objects that can be held, with how much of each is. Reads every object of the process."""
    # By id: a metaclass may have made its classes unhashable.
    kinds = set(map(id, HELD))
    return {id(thing): (thing, HELD[type(thing)](thing)) for thing in gc.get_objects() if id(type(thing)) in kinds}


def _descriptors() -> dict[int, tuple[int, int]]:
    """Return device and inode of each open descriptor, except those of the carriers' pollers."""
    found = {}
    own = _descriptors_of_pollers()
    for name in os.listdir(DESCRIPTORS) if DESCRIPTORS else ():
        fd = int(name)
        try:
            status = os.fstat(fd)
        except OSError:
            # The descriptor with which the directory was listed: closed now.
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
    """Return the OS threads of the program, without those of the runtime, which may stay."""
    return {thread for thread in threading.enumerate() if thread.ident not in own_os_threads}


def _children() -> set[int]:
    """Return the child processes, including zombies; an empty set if the system does not list them.

    Helper processes that `multiprocessing` keeps until the end of the process are left out.
    """
    found: set[int] = set()
    for tasks in glob.glob("/proc/self/task/*/children"):
        try:
            found.update(map(int, Path(tasks).read_text().split()))
        except OSError:
            # Its OS thread has just ended, and the children belong to another one now.
            pass
    keepers = [(sys.modules.get(module), keeper, pid) for module, keeper, pid in KEEPERS]
    return found - {getattr(getattr(module, keeper, None), pid, None) for module, keeper, pid in keepers}


def _describe_child(child: int) -> str:
    until = monotonic() + EXEC_ENDS_WITHIN
    while not (command := _command_of(child)) and not _has_exited(child) and monotonic() < until:
        # It is about to run its program: the kernel empties the command line before it writes the new one.
        sleep(0.001)
    return f"child process {child} ({command})" if command else f"child process {child}, ended and not waited for"


def _command_of(child: int) -> str:
    """Return the command line of a process; empty if it has ended, and for a moment while it starts a program."""
    try:
        return Path(f"/proc/{child}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
    except OSError:
        return ""


def _has_exited(child: int) -> bool:
    """Return whether a child has ended, without waiting for it."""
    try:
        return os.waitid(os.P_PID, child, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None
    except ChildProcessError:
        return True


@block
def check_nothing_leaked() -> Iterator[None]:
    """Return a block that must leave nothing behind.

    At its end there must not be more than at its start of: virtual threads of this run, entered scopes, timers,
    held locks and permits, waiters that have ended, descriptors, OS threads and child processes. A
    `threading.Semaphore` does not record its initial value, so missing permits of one created in the block are not
    found. If the block raises, its exception propagates with a note on what was left behind. Entering and leaving are
    no checkpoints. Each reads every object of the process, which takes milliseconds.

    Raises:
        LeakError: an `AssertionError` that lists what was left behind, and where each thread was spawned.
    """
    before = Snapshot()
    try:
        yield
    except BaseException as error:
        # The failure of the block may be the reason for the leaks, so raise it, with the leaks as a note.
        leaks = before.leaks()
        if leaks:
            add_note(error, "in the block, ", str(LeakError(leaks)))
        raise
    leaks = before.leaks()
    if leaks:
        raise LeakError(leaks)
