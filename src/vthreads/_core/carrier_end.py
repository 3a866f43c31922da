"""The end of a carrier that was not started by `run`: with its OS thread, or with the main thread at interpreter exit.

Its remaining virtual threads are joined at a point where the interpreter still runs Python code and greenlets on that
OS thread. This module does not depend on how the carrier was started.
"""

from __future__ import annotations

import atexit
import os
import sys
import threading
import warnings
from _ctypes import Py_INCREF
from collections.abc import Callable
from functools import partial
from typing import Any, NoReturn

from ..errors import DeadlockError
from .carrier import Carrier
from .current import carriers
from .deadlock import threads_below
from .exceptions import report, show
from .originals import OSThreadLocal, get_ident
from .os_thread_kinds import known_os_thread
from .participants import participants

__all__ = [
    "end_lazy_carrier",
    "end_with_os_thread",
    "exit_process",
    "finish_process",
    "join_at_exit",
    "never_collect",
]

# Private names of `threading`, which are not in the type stubs.
_threading: Any = threading


def end_with_os_thread(carrier: Carrier) -> None:
    """Make the end of this OS thread end `carrier`, unless it stops before."""
    os_thread = known_os_thread()
    if os_thread is threading.main_thread():
        carrier.undo_end = join_at_exit(carrier)
    elif os_thread is None or isinstance(os_thread, threading._DummyThread):
        _os_thread.end = _EndOfOSThread(carrier)
    else:
        carrier.undo_end = _join_at_end_of(os_thread, carrier)


def _join_at_end_of(os_thread: threading.Thread, carrier: Carrier) -> Callable[[], None]:
    """End the carrier in `Thread._delete`, the last call of a `threading.Thread` in Python 3.11 to 3.14."""

    def delete() -> None:
        try:
            _end(carrier, os_thread)
        finally:
            type(os_thread)._delete(os_thread)  # type: ignore[attr-defined]  # not in the type stubs

    def undo() -> None:
        if vars(os_thread).get("_delete") is delete:
            del os_thread._delete  # type: ignore[attr-defined]  # likewise

    os_thread._delete = delete  # type: ignore[attr-defined]  # not in the type stubs
    return undo


class _EndOfOSThread:
    """Stored in the thread-local data of an OS thread that `threading` did not start; ends its carrier.

    The interpreter drops these data when it deletes the thread's state, on the same OS thread, where Python code and
    greenlets still run. `threading` removes its objects of such threads in the same way, from Python 3.13 on.
    """

    def __init__(self, carrier: Carrier) -> None:
        self._carrier = carrier
        # Not the ident: another OS thread may have the same ident at the time of the end.
        self._os_thread = os.getpid(), threading.get_native_id()

    def __del__(self) -> None:
        if sys is None or sys.is_finalizing():
            # The interpreter drops the data of the OS threads that are left. They run no Python code any more, so their
            # virtual threads cannot be joined.
            return
        pid, native_id = self._os_thread
        if os.getpid() != pid:
            # The child of a fork drops the data of OS threads that it does not have; `fork` handles their carriers.
            return
        if threading.get_native_id() == native_id:
            _end(self._carrier, known_os_thread())
        else:
            # Another OS thread held a reference, for example by `gc.get_objects()`, and this one has ended meanwhile.
            _abandon(self._carrier)


def _abandon(carrier: Carrier) -> None:
    """Drop a carrier whose OS thread has ended: its virtual threads cannot run on another one."""
    scheduler = carrier.scheduler
    if scheduler.closed:
        return
    if carriers.get(scheduler.ident) is scheduler:
        del carriers[scheduler.ident]
    scheduler.poller.close()
    never_collect(scheduler)
    lost = [thread for thread in threads_below(scheduler) if thread is not carrier.root]
    for thread in lost:
        never_collect(thread)
    if lost:
        warnings.warn(
            f"an OS thread ended with {len(lost)} virtual threads on it, {lost[0]!r} first", ResourceWarning, 1
        )


def never_collect(kept: object) -> None:
    """Prevent the collection of the greenlets of `kept`, which would run their `finally` blocks on any stack."""
    Py_INCREF(kept)


_os_thread = OSThreadLocal()


def end_lazy_carrier() -> None:
    """Join the virtual threads of an OS thread that `threading` did not start, and end its carrier."""
    vars(_os_thread).clear()


def _end(carrier: Carrier, os_thread: threading.Thread | None) -> None:
    """Join at the end of an OS thread that became a carrier."""
    if carriers.get(get_ident()) is not carrier.scheduler:
        return
    try:
        carrier.join()
    except BaseException as error:  # noqa: BLE001  # no caller could handle it: reported as a failure of the thread
        report(error, os_thread)
    carrier.stop()


def join_at_exit(carrier: Carrier) -> Callable[[], None]:
    """Join the virtual threads of the main thread at interpreter exit; return the undo function."""
    shutdown = _Shutdown(carrier, _threading._shutdown)
    _threading._shutdown = shutdown
    return shutdown.undo


class _Shutdown:
    """Stands for `threading._shutdown` while the main thread is a carrier, and joins before the original does.

    The original first shuts down the thread pools, in reverse order of their registration, and then joins OS threads,
    which blocks the carrier. In between, virtual threads of `threading` are joined: those of a pool have just been
    shut down. They may wait for the end of the main thread, so it is marked as ended by then.
    """

    def __init__(self, carrier: Carrier, original: Callable[[], None]) -> None:
        self._carrier = carrier
        self._original = original
        self._is_deadlocked = False

    def undo(self) -> None:
        """Put the original back, unless other code has replaced it since."""
        if _threading._shutdown is self:
            _threading._shutdown = self._original

    def __call__(self) -> None:
        _threading._shutdown = self._original
        if not self._is_carrier_here():
            self._original()
            return
        ended_by = _join_main(self._carrier, partial(self._carrier.scheduler.background.join, self._carrier.root))
        if isinstance(ended_by, KeyboardInterrupt):
            self._cancel_all()
            return
        self._is_deadlocked = isinstance(ended_by, DeadlockError)
        _threading._threading_atexits.insert(0, self._join_threads)
        try:
            self._original()
        except BaseException as error:  # any but a deadlock is raised again
            # The exit function of a pool has failed, which skips the others. Often it joined a worker: one that waits
            # forever, or one that Ctrl-C has interrupted. Cancel all threads, or the join below would wait for them.
            self._carrier.scheduler.threads.cancel("an exit function failed, and the interpreter ends")
            if not isinstance(error, DeadlockError):
                raise
            self._is_deadlocked = True
            show(error)
        finally:
            if self._is_carrier_here():
                self._join_threads()
        if self._is_deadlocked:
            exit_process(1)

    def _is_carrier_here(self) -> bool:
        return carriers.get(get_ident()) is self._carrier.scheduler

    def _cancel_all(self) -> None:
        # After Ctrl-C at this point plain Python joins no threads any more, so a single press cancels all.
        self._carrier.scheduler.threads.cancel("KeyboardInterrupt in the main thread")
        _join_main(self._carrier, self._carrier.join)
        self._carrier.stop()

    def _join_threads(self) -> None:
        """Mark the main thread as ended, join all other threads, and stop the carrier."""
        undo = [one.main_over() for one in participants() if one.main_over is not None]
        ended_by = _join_main(self._carrier, self._carrier.join)
        self._is_deadlocked = self._is_deadlocked or isinstance(ended_by, DeadlockError)
        self._carrier.stop()
        for put_back in undo:
            put_back()


def _join_main(carrier: Carrier, join: Callable[[], None]) -> BaseException | None:
    """Join at the end of the main thread; return the exception that ended the join, after printing it."""
    if isinstance(getattr(sys, "last_value", None), KeyboardInterrupt):
        carrier.scheduler.background.cancel("KeyboardInterrupt in the main thread")
    try:
        join()
    except BaseException as error:  # noqa: BLE001  # no caller could handle it: printed as by the interpreter
        show(error)
        return error
    return None


def exit_process(status: int) -> NoReturn:
    """End this process with `status`, as the end of a main script does."""
    finish_process()
    os._exit(status)


def finish_process() -> None:
    """Do what the interpreter does after the last thread has ended: run the `atexit` functions, and flush."""
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, ValueError, AttributeError):
            # The stream is closed or broken, and the process ends, so the error cannot be reported anywhere.
            pass
