"""Detect circles of locks: threads that wait for each other's locks without a deadline, and can never continue.

A lock is added to the list `contended` when a thread begins to wait for it. While the list is not empty, the carriers
check it every `LOOK_EVERY` seconds, even if other OS threads could unpark something. A wait that existed at two checks
is followed: to the thread that holds the lock, the lock for which that thread waits, and so on. The members of a
circle, virtual threads and plain OS threads, get a `DeadlockError`. A known wait is checked once.

A `Lock` records the thread that acquired it, but any thread may release it. So a circle counts only if the holder
itself will release the lock: a `with` statement has acquired it, or the source shows that (see `_holders`).
"""

from __future__ import annotations

from collections.abc import Iterator
from importlib import import_module
from math import inf
from time import monotonic
from types import FrameType
from typing import Any, NamedTuple
from weakref import ref

from .._core.deadlock import describe_place, describe_wait
from .._core.engine import State, contended
from .._core.originals import allocate_lock
from .._core.os_thread_kinds import frames_of_os_threads
from .._core.participants import Participant, participate
from .._core.thread import VirtualThread
from .._core.wait_queue import OSThreadWaiter
from .._sync.locks import Lock, RLock
from ..errors import DeadlockError
from ._stacks import frame_of

__all__ = ["look_at_contended"]

# Real seconds between two checks. A wait must exist at two of them, so a circle is reported within 2 s.
LOOK_EVERY = 0.7
# Longest check, in seconds. A longer one is interrupted and continued later, so that the carrier is not blocked.
LONGEST_LOOK = 0.002
GO_ON_AFTER = 0.02

# A thread that waits: an OS thread is represented by its waiter.
Waiting = VirtualThread | OSThreadWaiter


class _Wait:
    """A wait for a lock without a deadline, as of the last check."""

    def __init__(self, waiting: Waiting, lock: Any) -> None:
        # Weak references: this record must not keep a thread or lock alive.
        self.waiting = ref(waiting)
        self.lock = ref(lock)
        self._parked_at = _parked_at(waiting)
        # Whether two checks have seen it.
        self.is_confirmed = False

    def goes_on(self) -> bool:
        waiting = self.waiting()
        return waiting is not None and _is_parked(waiting) and self._parked_at == _parked_at(waiting)

    def is_of(self, waiting: Waiting) -> bool:
        return self.waiting() is waiting and self._parked_at == _parked_at(waiting)


def _parked_at(waiting: Waiting) -> float:
    # An OS thread has another waiter for each wait, so the waiter alone identifies the wait.
    return waiting._parked_at if isinstance(waiting, VirtualThread) else -inf


def _is_parked(waiting: Waiting) -> bool:
    """Return whether the thread is parked without a deadline."""
    if isinstance(waiting, VirtualThread):
        return waiting.state is State.PARKED and waiting._parked_until == inf
    return waiting.is_parked_without_deadline()


class _Member(NamedTuple):
    """A thread of a circle, and the lock for which it waits."""

    waiting: Waiting
    lock: Any
    wait: _Wait


# By ident of the thread.
_waits: dict[int, _Wait] = {}
_looking = allocate_lock()


def look_at_contended() -> float:
    """Check the listed locks, between two switches of a carrier; return the seconds until the next check."""
    if not _looking.acquire(False):
        # Another carrier is checking.
        return LOOK_EVERY
    try:
        return _look()
    finally:
        _looking.release()


def _look() -> float:
    ends_at = monotonic() + LONGEST_LOOK
    # Other carriers append meanwhile, so remove only what was copied.
    listed = contended[:]
    del contended[: len(listed)]
    for ident in [ident for ident, wait in _waits.items() if not wait.goes_on()]:
        del _waits[ident]
    confirmed: list[_Wait] = []
    for place, reference in enumerate(listed):
        if monotonic() >= ends_at:
            contended.extend(listed[place:])
            break
        lock = reference()
        if lock is not None:
            lock._is_listed = False
            confirmed.extend(_check(lock))
            if _has_new_waiter(lock):
                _list(lock)
    if not _report_circles(confirmed) or monotonic() >= ends_at:
        return GO_ON_AFTER
    return LOOK_EVERY


def _check(lock: Any) -> Iterator[_Wait]:
    """Record the waits for `lock`; yield those that an earlier check has recorded."""
    for waiting in _waiting_for(lock):
        wait = _waits.get(waiting.ident)
        if not _is_parked(waiting) or (wait is not None and wait.is_of(waiting) and wait.is_confirmed):
            continue
        if wait is None or not wait.is_of(waiting):
            _waits[waiting.ident] = _Wait(waiting, lock)
        else:
            wait.is_confirmed = True
            yield wait


def _waiting_for(lock: Any) -> Iterator[Waiting]:
    for waiter in lock._waiting.waiters():
        waiting = getattr(waiter, "_waiter", waiter)
        if isinstance(waiting, Waiting):
            yield waiting


def _has_new_waiter(lock: Any) -> bool:
    """Return whether a wait for `lock` must be checked again: it was seen once, or is about to begin."""
    for waiting in _waiting_for(lock):
        wait = _waits.get(waiting.ident)
        if wait is not None and wait.is_of(waiting):
            if not wait.is_confirmed:
                return True
        elif not isinstance(waiting, VirtualThread) or waiting.state is State.RUNNING:
            # It has listed the lock and is queued, but runs still, on another OS thread.
            return True
    return False


def _list(lock: Any) -> None:
    if not lock._is_listed:
        lock._is_listed = True
        contended.append(ref(lock))


# --- circles


def _report_circles(confirmed: list[_Wait]) -> bool:
    """Report the circles that the waits in `confirmed` close; return False if some must be checked again soon."""
    by_holder = dict(_by_holder()) if confirmed else {}
    reported: set[_Wait] = set()
    is_complete = True
    for wait in confirmed:
        circle = _circle_from(wait, by_holder)
        if not circle or wait in reported:
            continue
        if not _holders_are_loaded() or not all(_is_readable(member) for member in circle):
            wait.is_confirmed = False
            _list(circle[0].lock)
            is_complete = False
        elif _is_deadlock(circle):
            reported.update(member.wait for member in circle)
            _report(circle)
    return is_complete


def _by_holder() -> Iterator[tuple[int, _Wait]]:
    """Yield the recorded waits with the numbers by which locks name their holders."""
    for ident, wait in _waits.items():
        yield ident, wait
        waiting = wait.waiting()
        if isinstance(waiting, VirtualThread):
            yield id(waiting), wait


def _circle_from(start: _Wait, by_holder: dict[int, _Wait]) -> list[_Member]:
    """Return the circle that starts with `start`; an empty list if no chain of holders leads back to it."""
    # Depth first: an RwLock may have several holders.
    levels: list[Iterator[_Wait]] = [iter([start])]
    path: list[_Member] = []
    seen: set[_Wait] = set()
    while levels:
        wait = next(levels[-1], None)
        if wait is None:
            levels.pop()
            if path:
                path.pop()
        elif wait is start and path:
            return path
        elif wait not in seen and wait.is_confirmed:
            seen.add(wait)
            waiting, lock = wait.waiting(), wait.lock()
            if waiting is not None and lock is not None:
                path.append(_Member(waiting, lock, wait))
                levels.append(iter(_waits_of_holders(lock, by_holder)))
    return []


def _waits_of_holders(lock: Any, by_holder: dict[int, _Wait]) -> list[_Wait]:
    """Return the waits of the threads that hold `lock`, as far as they are recorded."""
    holder: int | None
    if isinstance(lock, RLock):
        holder = lock._held()[0]
    elif isinstance(lock, Lock):
        holder = lock._holder
    else:
        # An RwLock may have many readers.
        return [by_holder[number] for number in set(lock._holders.values()) if number in by_holder]
    return [by_holder[holder]] if holder in by_holder else []


def _is_deadlock(circle: list[_Member]) -> bool:
    """Return whether no other thread will release the locks, and no cancellation will end one of the waits."""
    for member, holder in zip(circle, circle[1:] + circle[:1], strict=True):
        waiting = member.waiting
        if isinstance(waiting, VirtualThread) and waiting._innermost._affected_by is not None:
            return False
        if isinstance(member.lock, Lock) and not _will_release(holder, member.lock, alone=len(circle) == 1):
            return False
    return True


def _will_release(holder: _Member, lock: Lock, alone: bool) -> bool:
    """Return whether the holder of `lock` itself will release it, as far as is known."""
    from ._holders import released_by_blocks_in, released_in

    if lock._in_block and not alone:
        # Also if the block is that of a generator, as in a `contextmanager`, which is on no stack while it waits.
        return True
    # A program that uses a lock as a signal acquires it twice in one thread, and another thread releases it; another
    # thread may also close a generator that holds it. So for a circle of one thread, only a `with` block on its own
    # stack shows that the holder itself releases the lock.
    shows = [released_by_blocks_in] if alone else [released_by_blocks_in, released_in]
    return any(id(lock) in show(frame) for frame in _frames(holder.waiting) for show in shows)


def _holders_are_loaded() -> bool:
    """Import `_holders` late, since few programs need it; return False if another OS thread is importing it."""
    try:
        import_module("._holders", __package__)
    except RuntimeError:
        # The import would have to wait, and code between two switches must not wait. Continue the check later.
        return False
    return True


# --- frames


def _is_readable(member: _Member) -> bool:
    """Return whether the frames of the thread can be read: its carrier may be about to switch, which hides them."""
    waiting = member.waiting
    return not isinstance(waiting, VirtualThread) or waiting._is_here() or _frame(waiting) is not None


def _frame(waiting: Waiting) -> FrameType | None:
    if isinstance(waiting, VirtualThread):
        return frame_of(waiting, waiting._scheduler)
    return frames_of_os_threads().get(waiting.ident)


def _frames(waiting: Waiting) -> Iterator[FrameType]:
    frame = _frame(waiting)
    while frame is not None:
        yield frame
        frame = frame.f_back


# --- the report


def _report(circle: list[_Member]) -> None:
    """Raise `DeadlockError` in the members.

    None of them gets it after it was handed a lock: the error ends only a wait that can still be withdrawn, and the
    withdrawal and the hand-over remove the waiter from the same queue, so only one of them succeeds. That matters as
    soon as the first member continues, releases its lock in the cleanup, and hands it to the next member.
    """
    text = _describe(circle)
    for member in circle:
        waiting = member.waiting
        if isinstance(waiting, OSThreadWaiter):
            waiting.interrupt(DeadlockError(text))
        elif waiting._is_here():
            _interrupt_waiter(member.wait, text)
        else:
            waiting._scheduler.post(_interrupt_waiter, member.wait, text)


def _interrupt_waiter(wait: _Wait, text: str) -> None:
    """End the wait of a virtual thread, on its carrier. A member elsewhere may have ended the circle meanwhile."""
    thread = wait.waiting()
    if isinstance(thread, VirtualThread) and wait.goes_on():
        thread._interrupt_wait(DeadlockError(text))


def _describe(circle: list[_Member]) -> str:
    lines = ["these threads wait for each other's locks in a circle, so none of them can continue:"]
    for member, holder in zip(circle, circle[1:] + circle[:1], strict=True):
        lines.append(f"  {_name(member.waiting)!r} waits in {_describe_wait(member.waiting)}")
        lines.append(f"    for a lock that {_name(holder.waiting)!r} holds")
    lines.append("acquire the locks in the same order everywhere, or give each wait a timeout")
    return "\n".join(lines)


def _name(waiting: Waiting) -> str:
    if isinstance(waiting, VirtualThread):
        return waiting.name
    from ._os_thread_names import name_of_os_thread

    return name_of_os_thread(waiting.ident)


def _describe_wait(waiting: Waiting) -> str:
    if isinstance(waiting, VirtualThread):
        return describe_wait(waiting)
    return f"an OS thread{describe_place(_frame(waiting))}"


def _forked() -> None:
    """Reset in the child of a fork: the parent's threads do not exist there, and one may have been checking."""
    global _looking
    _looking = allocate_lock()
    _waits.clear()


participate(__name__, Participant(forked=_forked))
