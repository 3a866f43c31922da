"""The virtual threads on stderr when the process dies of a fatal error (SIGSEGV, SIGABRT and their like).

    fault ──> faulthandler: stacks of the OS threads, safely, from C ──raise──> here: the dump ──raise──> death

The handler of `faulthandler` is in front, so what it writes does not depend on this. Then Python runs once more in the
broken process, which may fail: the OS thread that died only waits for another one, with a stack of its own, that writes
the dump, and for no longer than a few seconds.
"""

from __future__ import annotations

import ctypes
import faulthandler
import os
import signal

from .._core.fork import watch_forks
from .._core.originals import allocate_lock, get_ident, write_fd
from .._core.own_os_thread import start_own_os_thread
from .._core.runtime import after_fork_hooks, own_os_threads
from .dumps import dump

__all__ = ["dump_on_fatal_error"]

# Those that `faulthandler` deals with; not every platform has SIGBUS.
SIGNALS = [
    getattr(signal, name) for name in ("SIGSEGV", "SIGFPE", "SIGABRT", "SIGBUS", "SIGILL") if hasattr(signal, name)
]
# Seconds that the dump may take.
PATIENCE = 3.0
STDERR = 2
DEFAULT = None

# Sets a handler from any OS thread and without the interpreter's own bookkeeping, unlike `signal.signal`.
_set_handler = ctypes.pythonapi.PyOS_setsig
_set_handler.argtypes = [ctypes.c_int, ctypes.c_void_p]
_set_handler.restype = ctypes.c_void_p


class _Writer:
    """The OS thread that writes the dump, when it is asked to."""

    def __init__(self) -> None:
        self._asked = allocate_lock()
        self._asked.acquire()
        self._written = allocate_lock()
        self._written.acquire()
        start_own_os_thread(self._live)

    def _live(self) -> None:
        own_os_threads.add(get_ident())
        self._asked.acquire()
        try:
            # The carrier that died does not answer, so nothing is gained by waiting for it.
            text = dump(patience=0.0)
        except BaseException as error:  # noqa: BLE001  # told instead: the process is broken
            text = f"the virtual threads could not be looked at: {error!r}\n"
        write_fd(STDERR, f"\nvthreads: the process dies of a fatal error; its virtual threads were\n\n{text}".encode())
        self._written.release()

    def write(self) -> None:
        """Have the dump written, and wait for it (called in the OS thread that died)."""
        self._asked.release()
        self._written.acquire(True, PATIENCE)


_writer: _Writer | None = None


def _died(signalnum: int) -> None:
    # Once: a fault in here, or the second raise, has to end the process.
    _set_handler(signalnum, DEFAULT)
    if _writer is not None:
        _writer.write()
    os.kill(os.getpid(), signalnum)


# Called from C; kept here, since nothing else keeps it alive.
_called_at_death = ctypes.CFUNCTYPE(None, ctypes.c_int)(_died)


def dump_on_fatal_error() -> None:
    """Write `vthreads.dump()` to stderr when the process dies of SIGSEGV, SIGABRT, SIGBUS, SIGFPE or SIGILL.

    Behind what `faulthandler` writes, which this enables, on descriptor 2: the stack of each OS thread, which for a
    carrier is that of the running virtual thread. Not a checkpoint; thread-safe; a second call does nothing.

    Python runs in the broken process for it, and may fail; then the process ends after a few seconds with what
    `faulthandler` has written. It does not end at all if whoever holds the GIL waits in C for the OS thread that died.
    """
    global _writer
    if _writer is not None:
        return
    watch_forks()
    _writer = _Writer()
    # Who is enabled last is called first, and calls the one before.
    faulthandler.disable()
    for signalnum in SIGNALS:
        _set_handler(signalnum, ctypes.cast(_called_at_death, ctypes.c_void_p))
    faulthandler.enable(STDERR)


def _make_writer_again() -> None:
    """In the child of a fork the OS thread is not there."""
    global _writer
    if _writer is not None:
        _writer = _Writer()


after_fork_hooks.append(_make_writer_again)
