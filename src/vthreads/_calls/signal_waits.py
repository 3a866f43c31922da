"""Replacements for `signal.sigwait` and similar calls, and for `signal.pause`.

The original, with timeout 0, takes the signal on the carrier itself. An OS thread could not do it: a signal may be sent
to one OS thread, and a signal taken for a wait that was cancelled meanwhile would be lost. Between attempts, a signalfd
reports signals on Linux; it is only polled, never read. Elsewhere the original is called again after growing pauses.

POSIX requires the signals to be blocked. Many main programs do not block them, which works because the main thread
receives them first. `sigwait` on the main carrier supports that: it catches them with a handler during the wait.
"""

from __future__ import annotations

import os
import signal
from collections import deque
from collections.abc import Callable, Iterable
from types import FrameType
from typing import Any, NamedTuple, TypeVar

from .._core.arguments import standard_time
from .._core.carrier import is_main_carrier
from .._core.current import running
from .._core.originals import close_fd, read_fd, write_fd
from .._core.thread import VirtualThread
from .._core.wait_queue import deadline_after, refuse_to_wait_inside_scheduler, waiter_here
from . import signals
from .net.readiness import READ, park_for_fds
from .pauses import Pauses

__all__ = ["pause", "sigtimedwait", "sigwait", "sigwaitinfo"]

T = TypeVar("T")

original_sigwait, original_pause = signal.sigwait, signal.pause
# Not every platform has these functions.
original_sigwaitinfo: Any = getattr(signal, "sigwaitinfo", None)
original_sigtimedwait: Any = getattr(signal, "sigtimedwait", None)

LONGEST_PAUSE = 0.05

NAMED = frozenset(signal.Signals)


# --- the standard library's functions


def sigwait(sigset: Iterable[int], /) -> Any:
    """`signal.sigwait`. A checkpoint; thread-safe."""
    thread = _checked_thread()
    if thread is None:
        return original_sigwait(sigset)
    wanted = set(sigset)
    with _Catcher(thread, wanted) as catcher:
        signum = _until(thread, wanted, lambda: catcher.take() or _take(wanted), None, catcher.fds)
    # A realtime signal may have no enum member.
    return signal.Signals(signum) if signum in NAMED else signum


def sigwaitinfo(sigset: Iterable[int], /) -> Any:
    """`signal.sigwaitinfo`, for signals that are blocked. A checkpoint; thread-safe."""
    thread = _checked_thread()
    if thread is None:
        return original_sigwaitinfo(sigset)
    wanted = set(sigset)
    return _until(thread, wanted, lambda: original_sigtimedwait(wanted, 0), None)


def sigtimedwait(sigset: Iterable[int], timeout: float, /) -> Any:
    """`signal.sigtimedwait`, for signals that are blocked. A checkpoint unless `timeout` is 0; thread-safe."""
    seconds = standard_time(timeout)
    if not seconds > 0:
        # Without a wait. The original also raises the error for a negative or wrong argument.
        return original_sigtimedwait(sigset, timeout)
    thread = _checked_thread()
    if thread is None:
        return original_sigtimedwait(sigset, timeout)
    wanted = set(sigset)
    return _until(thread, wanted, lambda: original_sigtimedwait(wanted, 0), seconds)


def pause() -> None:
    """`signal.pause`: park until a handler of the program has run on the main carrier. A checkpoint."""
    thread = _checked_thread()
    if thread is None:
        return original_pause()
    waiter = waiter_here()
    signals.handled.add(waiter)
    # A signal may come from outside the process, so a carrier that waits for one is not deadlocked.
    thread._scheduler.outside += 1
    try:
        signals.handled.park(waiter)
    finally:
        thread._scheduler.outside -= 1
    return None


# --- waiting


def _checked_thread() -> VirtualThread | None:
    """Return the running virtual thread, after a checkpoint; None on a plain OS thread, which may block."""
    thread = running()
    if thread is None:
        refuse_to_wait_inside_scheduler()
    else:
        thread._check()
    return thread


def _take(wanted: set[int]) -> int | None:
    """Take a pending signal of `wanted`, without waiting; None if there is none."""
    if original_sigtimedwait is not None:
        taken = original_sigtimedwait(wanted, 0)
        return None if taken is None else taken.si_signo
    return original_sigwait(wanted) if signal.sigpending() & wanted else None


def _until(
    thread: VirtualThread, wanted: set[int], attempt: Callable[[], T | None], timeout: float | None, fds: Any = ()
) -> T | None:
    """Return the first result of `attempt` that is not None; return None after `timeout` seconds."""
    result = attempt()
    if result is not None:
        return result
    now = thread._scheduler.clock.now
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
    """Open a descriptor that is readable while a signal of `wanted` is pending; None if that is not possible."""
    import ctypes

    libc = ctypes.CDLL(None)
    if not hasattr(libc, "signalfd"):
        return None
    # Larger than the `sigset_t` of any C library, whose functions set the right bits.
    mask = ctypes.create_string_buffer(1024)
    libc.sigemptyset(mask)
    for signum in wanted:
        libc.sigaddset(mask, int(signum))
    # The flags are those of open(2). The call fails if no descriptors are left; then the caller uses pauses.
    fd: int = libc.signalfd(-1, mask, os.O_CLOEXEC | os.O_NONBLOCK)
    return None if fd < 0 else fd


# --- signals that are not blocked


class _Caught(NamedTuple):
    """A signal whose handler is `_catch` at present: its previous handler, and the waiters, longest wait first."""

    previous: Any
    catchers: list[_Catcher]


_caught: dict[int, _Caught] = {}


class _Catcher:
    """Context manager: on the main carrier, catches the signals of `wanted` that are not blocked.

    Signals that were caught and not taken are raised again at the end, so a cancelled wait loses none.
    """

    def __init__(self, thread: VirtualThread, wanted: set[int]) -> None:
        unblocked = wanted - signal.pthread_sigmask(signal.SIG_BLOCK, [])
        self._wanted = unblocked if is_main_carrier(thread._scheduler) else set()
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
        """Descriptors that become readable when a signal was caught."""
        return self._pipe[:1]

    def take(self) -> int | None:
        if not self._signals:
            return None
        read_fd(self._pipe[0], 1)
        return self._signals.popleft()

    def catch(self, signum: int) -> None:
        """Record a signal; called between any two bytecodes."""
        if signum not in self._signals:
            self._signals.append(signum)
            write_fd(self._pipe[1], b"\0")

    def _begin(self, signum: int) -> bool:
        if signum not in _caught:
            previous = signals.original_getsignal(signum)
            if previous is None:
                # C code installed the handler, so it could not be restored from Python.
                return False
            try:
                signals.original_signal(signum, _catch)
            except OSError:
                # The kernel does not allow a handler for this signal.
                return False
            _caught[signum] = _Caught(previous, [])
        _caught[signum].catchers.append(self)
        return True

    def _end(self, signum: int) -> None:
        previous, catchers = _caught[signum]
        catchers.remove(self)
        if not catchers:
            # Restore the previous handler, unless the program has installed another one meanwhile.
            if signals.original_getsignal(signum) is _catch:
                signals.original_signal(signum, previous)
            del _caught[signum]


def _catch(signum: int, frame: FrameType | None) -> None:
    caught = _caught.get(signum)
    if caught is None:
        # The signal came just before the handler was restored. Raise it again for the previous handler.
        signal.raise_signal(signum)
    else:
        caught.catchers[0].catch(signum)
