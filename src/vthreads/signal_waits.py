"""What `signal.sigwait` and its like and `signal.pause` become on a virtual thread.

A signal is taken by the original with no time to wait, on the carrier itself, since a signal may be meant for one OS
thread, and one that an OS thread had taken for a wait that was given up would be lost. To hear of it there is
Linux's signalfd, which is only looked at and never read; elsewhere the original is asked again after pauses that grow.

POSIX wants the signals to be blocked. Many a main program does not block them, and gets away with it, since its main
thread hears of them first. For `sigwait` on the main carrier that works here, too: a handler catches them meanwhile.
"""

from __future__ import annotations

import ctypes
import os
import signal
from collections import deque
from collections.abc import Callable, Iterable
from types import FrameType
from typing import Any, NamedTuple, TypeVar

from . import signals
from ._core.current import running
from ._core.originals import close_fd, read_fd, write_fd
from ._core.runtime import is_main_carrier
from ._core.thread import VirtualThread
from ._core.wait_queue import deadline_after
from .net.readiness import READ, park_for_fds
from .pauses import Pauses

__all__ = ["pause", "sigtimedwait", "sigwait", "sigwaitinfo"]

T = TypeVar("T")

original_sigwait, original_pause = signal.sigwait, signal.pause
# Not every platform has these.
original_sigwaitinfo: Any = getattr(signal, "sigwaitinfo", None)
original_sigtimedwait: Any = getattr(signal, "sigtimedwait", None)

LONGEST_PAUSE = 0.05

NAMED = frozenset(signal.Signals)


# --- the standard library's functions


def sigwait(sigset: Iterable[int], /) -> Any:
    """`signal.sigwait`. A checkpoint; thread-safe."""
    thread = running()
    if thread is None:
        return original_sigwait(sigset)
    thread.check()
    wanted = set(sigset)
    with _Catcher(thread, wanted) as catcher:
        signum = _until(thread, wanted, lambda: catcher.take() or _take(wanted), None, catcher.fds)
    # A realtime signal may have no name.
    return signal.Signals(signum) if signum in NAMED else signum


def sigwaitinfo(sigset: Iterable[int], /) -> Any:
    """`signal.sigwaitinfo`, for signals that are blocked. A checkpoint; thread-safe."""
    thread = running()
    if thread is None:
        return original_sigwaitinfo(sigset)
    thread.check()
    wanted = set(sigset)
    return _until(thread, wanted, lambda: original_sigtimedwait(wanted, 0), None)


def sigtimedwait(sigset: Iterable[int], timeout: float, /) -> Any:
    """`signal.sigtimedwait`, for signals that are blocked. A checkpoint unless `timeout` is 0; thread-safe."""
    thread = running()
    if thread is None or not isinstance(timeout, int | float) or not timeout > 0:
        # The original also says what is wrong with a negative or strange argument.
        return original_sigtimedwait(sigset, timeout)
    thread.check()
    wanted = set(sigset)
    return _until(thread, wanted, lambda: original_sigtimedwait(wanted, 0), timeout)


def pause() -> None:
    """`signal.pause`: park until a handler of the program has run on the main carrier. A checkpoint."""
    thread = running()
    if thread is None:
        return original_pause()
    thread.check()
    signals.handled.add(thread)
    # A signal may come from anywhere: to wait for one is no deadlock.
    thread.scheduler.outside += 1
    try:
        signals.handled.park(thread)
    finally:
        thread.scheduler.outside -= 1
    return None


# --- waiting


def _take(wanted: set[int]) -> int | None:
    """Take one of `wanted` that is pending, without waiting."""
    if original_sigtimedwait is not None:
        taken = original_sigtimedwait(wanted, 0)
        return None if taken is None else taken.si_signo
    return original_sigwait(wanted) if signal.sigpending() & wanted else None


def _until(
    thread: VirtualThread, wanted: set[int], attempt: Callable[[], T | None], timeout: float | None, fds: Any = ()
) -> T | None:
    """What `attempt` returns as soon as it is not None; None after `timeout` seconds."""
    result = attempt()
    if result is not None:
        return result
    now = thread.scheduler.clock.now
    deadline = deadline_after(now(), timeout)
    pauses = Pauses(thread, LONGEST_PAUSE, timeout)
    signalfd = _open_signalfd(wanted)
    try:
        while True:
            if signalfd is None:
                in_time = pauses.park()
            else:
                watched = [(fd, READ) for fd in (signalfd, *fds)]
                in_time = park_for_fds(thread, watched, None if timeout is None else max(0.0, deadline - now()))
            result = attempt()
            if result is not None or not in_time:
                return result
    finally:
        if signalfd is not None:
            close_fd(signalfd)


def _open_signalfd(wanted: set[int]) -> int | None:
    """Open a descriptor that is readable while one of `wanted` is pending; None if there is no such thing."""
    libc = ctypes.CDLL(None)
    if not hasattr(libc, "signalfd"):
        return None
    # Larger than the `sigset_t` of any C library; these know which bit is whose.
    mask = ctypes.create_string_buffer(1024)
    libc.sigemptyset(mask)
    for signum in wanted:
        libc.sigaddset(mask, int(signum))
    # The flags are those of open(2). It fails if no descriptors are left: then it is done without.
    fd: int = libc.signalfd(-1, mask, os.O_CLOEXEC | os.O_NONBLOCK)
    return None if fd < 0 else fd


# --- signals that are not blocked


class _Caught(NamedTuple):
    """A signal whose handler is `_catch` for now: what it was, and who waits, longest first."""

    previous: Any
    catchers: list[_Catcher]


_caught: dict[int, _Caught] = {}


class _Catcher:
    """Catches, on the main carrier and while inside, those of `wanted` that are not blocked.

    What was caught and not taken comes again afterwards, so that a cancelled wait has lost none.
    """

    def __init__(self, thread: VirtualThread, wanted: set[int]) -> None:
        unblocked = wanted - signal.pthread_sigmask(signal.SIG_BLOCK, [])
        self._wanted = unblocked if is_main_carrier(thread.scheduler) else set()
        self._signals: deque[int] = deque()
        self._pipe: tuple[int, ...] = ()

    def __enter__(self) -> _Catcher:
        if self._wanted:
            self._pipe = os.pipe()
        self._wanted = {signum for signum in self._wanted if self._begin(signum)}
        return self

    def __exit__(self, *_: object) -> None:
        for signum in self._wanted:
            self._end(signum)
        for fd in self._pipe:
            close_fd(fd)
        for signum in self._signals:
            signal.raise_signal(signum)

    @property
    def fds(self) -> tuple[int, ...]:
        """What becomes readable when a signal was caught."""
        return self._pipe[:1]

    def take(self) -> int | None:
        if not self._signals:
            return None
        read_fd(self._pipe[0], 1)
        return self._signals.popleft()

    def catch(self, signum: int) -> None:
        """Called between any two bytecodes."""
        if signum not in self._signals:
            self._signals.append(signum)
            write_fd(self._pipe[1], b"\0")

    def _begin(self, signum: int) -> bool:
        if signum not in _caught:
            previous = signals.original_getsignal(signum)
            if previous is None:
                # Installed by C code, it could not be put back.
                return False
            try:
                signals.original_signal(signum, _catch)
            except OSError:
                # No process can catch it.
                return False
            _caught[signum] = _Caught(previous, [])
        _caught[signum].catchers.append(self)
        return True

    def _end(self, signum: int) -> None:
        previous, catchers = _caught[signum]
        catchers.remove(self)
        if not catchers:
            # Unless the program has installed another one meanwhile.
            if signals.original_getsignal(signum) is _catch:
                signals.original_signal(signum, previous)
            del _caught[signum]


def _catch(signum: int, frame: FrameType | None) -> None:
    caught = _caught.get(signum)
    if caught is None:
        # It came just before the handler was put back.
        signal.raise_signal(signum)
    else:
        caught.catchers[0].catch(signum)
