"""Write the virtual threads to stderr when the process dies of a fatal error (SIGSEGV, SIGABRT and similar signals).

    fault ──> faulthandler: stacks of the OS threads, safely, from C ──raise──> here: the dump ──raise──> death

`faulthandler` runs first, so its output does not depend on this module. Then Python runs once more in the broken
process, which may fail. So the OS thread that died only waits, for a few seconds at most; another OS thread, with an
intact stack, writes the dump.
"""

from __future__ import annotations

import ctypes
import faulthandler
import os
import signal

from .._core.fork import watch_forks
from .._core.originals import allocate_lock, get_ident, write_fd
from .._core.os_thread_kinds import own_os_threads
from .._core.own_os_thread import start_own_os_thread
from .._core.participants import Participant, participate
from ._dump import dump

__all__ = ["dump_on_fatal_error"]

# The signals that `faulthandler` handles; not every platform has SIGBUS.
SIGNALS = [
    getattr(signal, name) for name in ("SIGSEGV", "SIGFPE", "SIGABRT", "SIGBUS", "SIGILL") if hasattr(signal, name)
]
# Longest time for the dump, in seconds.
PATIENCE = 3.0
STDERR = 2
DEFAULT = None

# Sets a handler from any OS thread and bypasses the interpreter's own table, unlike `signal.signal`.
_set_handler = ctypes.pythonapi.PyOS_setsig
_set_handler.argtypes = [ctypes.c_int, ctypes.c_void_p]
_set_handler.restype = ctypes.c_void_p


class _Writer:
    """The OS thread that writes the dump."""

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
            # Do not wait for the carrier that died: it cannot answer.
            text = dump(patience=0.0)
        except BaseException as error:  # noqa: BLE001  # written instead of the dump: the process is broken
            text = f"the virtual threads could not be read: {error!r}\n"
        write_fd(STDERR, f"\nvthreads: a fatal error ends this process; its virtual threads were\n\n{text}".encode())
        self._written.release()

    def write(self) -> None:
        """Make the OS thread write the dump, and wait for it; called on the OS thread that died."""
        self._asked.release()
        self._written.acquire(True, PATIENCE)


_writer: _Writer | None = None


def _died(signalnum: int) -> None:
    # Run once only: a fault in this function, or the second raise, must end the process.
    _set_handler(signalnum, DEFAULT)
    if _writer is not None:
        _writer.write()
    os.kill(os.getpid(), signalnum)


# C code holds only a pointer to this, so keep a reference here.
_called_at_death = ctypes.CFUNCTYPE(None, ctypes.c_int)(_died)


def dump_on_fatal_error() -> None:
    """Write `vthreads.dump()` to stderr when the process dies of SIGSEGV, SIGABRT, SIGBUS, SIGFPE or SIGILL.

    The dump follows the output of `faulthandler`, which this function enables on descriptor 2: the stack of each OS
    thread, which for a carrier is the stack of its running virtual thread. Not a checkpoint; thread-safe; a second call
    does nothing.

    The dump needs Python in the broken process, and may fail. Then the process ends after a few seconds, with only the
    output of `faulthandler`. It hangs if the thread that holds the GIL waits in C for the OS thread that died.
    """
    global _writer
    if _writer is not None:
        return
    watch_forks()
    _writer = _Writer()
    # The handler that is set last runs first and calls the previous one, so set `faulthandler` last.
    faulthandler.disable()
    for signalnum in SIGNALS:
        _set_handler(signalnum, ctypes.cast(_called_at_death, ctypes.c_void_p))
    faulthandler.enable(STDERR)


def _make_writer_again() -> None:
    """Start a new writer in the child of a fork, where its OS thread does not exist."""
    global _writer
    if _writer is not None:
        _writer = _Writer()


participate(__name__, Participant(forked=_make_writer_again))
