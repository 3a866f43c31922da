"""Replacements for `open` and `os.open`.

`open` builds the same layers as the original: a raw file, a buffer, a text layer. Files that never wait are left to the
original: files in memory, and files on a disk that are only written. It also gets wrong arguments, for its errors.

The opening itself is done in place: it takes microseconds, and only a FIFO makes it wait. FIFOs are opened on an OS
thread. If that opening is cancelled, the other end is opened for a moment, which releases the OS thread; another
process that waits at the FIFO may take this for a peer that came and left. Both ends are opened through a descriptor
that stands for the FIFO, where the system has such: by then its name may be gone or mean another file.
"""

from __future__ import annotations

import fcntl
import io
import itertools
import os
import stat
import sys
from operator import index
from typing import Any

from ..._core.current import on_carrier, running
from ..._core.engine import compiled, supply
from ..._core.originals import allocate_lock, close_fd
from ..._core.repeated import repeated_in
from ..._core.wait_queue import refuse_to_wait_inside_scheduler
from ..._os_threads.calls import Limiter
from ..._os_threads.offload import offload_abandonable
from .buffer_classes import OVER_FILES, OriginalRandom, OriginalReader, OriginalWriter, never_parks
from .kinds import Kind, device_of_regular, fstat, is_in_memory, status_of
from .raw import File

__all__ = ["format_if_it_waits", "open", "open_fd", "opener_for"]

original_open, original_os_open, original_fcntl = io.open, os.open, fcntl.fcntl

# Each opening of a FIFO uses an OS thread until its other end is opened, perhaps by another opening that waits here.
# If the limit were reached, neither could continue; so it is high.
fifos = Limiter("open of a FIFO", 1000)
# Longest wait, in seconds, for the OS thread to leave the call after its opening was cancelled. It takes microseconds,
# but on a loaded machine the system may not run the OS thread for more than 0.1 s.
LONGEST_END = 1.0
# Flag for a descriptor that stands for a file without opening it. Not every platform has it.
O_PATH: int = getattr(os, "O_PATH", 0)

# Each valid mode, with its letters in any order, and the mode of its raw file.
MODES = {
    "".join(letters): "".join(letter for letter in letters if letter in "rwax+")
    for action in "rwax"
    for more in ("", "+")
    for form in ("", "b", "t")
    for letters in itertools.permutations(action + more + form)
}


# Errors of wrong arguments show this name, so it is the one that programs call.
@compiled
def open(
    file: Any,
    mode: str = "r",
    buffering: int = -1,
    encoding: str | None = None,
    errors: str | None = None,
    newline: str | None = None,
    closefd: bool = True,
    opener: Any = None,
) -> Any:
    """`open`. A checkpoint if `file` is a FIFO."""
    rest = (buffering, encoding, errors, newline, closefd, opener)
    if encoding is None and sys.flags.warn_default_encoding and type(mode) is str and "b" not in mode:
        rest = (buffering, io.text_encoding(None, 2), *rest[2:])
    if type(mode) is not str or mode not in MODES or type(buffering) is not int or _is_odd(mode, *rest):
        return original_open(file, mode, *rest)
    if hasattr(file, "__fspath__"):
        file = os.fspath(file)
    if opener is None:
        file_format = format_if_it_waits(file, mode)
        if file_format is None:
            return original_open(file, mode, *rest)
        opener = opener_for(file, file_format)
    raw = File(file, MODES[mode], closefd, opener)
    try:
        return _layers_over(raw, mode, *rest[:4])
    except BaseException:
        # No caller has the file yet, so close its descriptor here.
        raw.close()
        raise


@repeated_in("_calls/files/compiled/opening.pxi")
def _is_odd(mode: str, buffering: int, encoding: Any, errors: Any, newline: Any, *_: Any) -> bool:
    """Return whether the original raises an error or a warning for these arguments."""
    if "b" in mode:
        return buffering == 1 or not encoding is errors is newline is None
    return buffering == 0


@repeated_in("_calls/files/compiled/opening.pxi")
def format_if_it_waits(file: Any, mode: str) -> int | None:
    """Return the format of `file`, a path or descriptor, by `stat`; None if it never waits or cannot be opened."""
    device = device_of_regular(file)
    if device >= 0:
        never_waits = "r" not in mode and "+" not in mode or is_in_memory(device)
        return None if never_waits else stat.S_IFREG
    status = _status_if_there(file)
    return None if status is None else stat.S_IFMT(status.st_mode)


def opener_for(file: Any, file_format: int) -> Any:
    """Return the opener for a file of this format: one that parks for a FIFO, else None."""
    return open_fd if file_format == stat.S_IFIFO and not isinstance(file, int) else None


def _status_if_there(file: Any) -> os.stat_result | None:
    try:
        return status_of(file)
    except (OSError, TypeError, ValueError, OverflowError):
        # It does not exist (yet), or the argument is wrong: the original creates it or raises the error.
        return None


@repeated_in("_calls/files/compiled/opening.pxi")
def _layers_over(raw: File, mode: str, buffering: int, encoding: Any, errors: Any, newline: Any) -> Any:
    by_lines = buffering == 1 or buffering < 0 and raw.kind is Kind.TTY
    if buffering == 0:
        return raw
    buffer = _buffer_of(raw)(raw, buffering if buffering > 1 else _buffer_size(raw))
    if "b" in mode:
        return buffer
    text = io.TextIOWrapper(buffer, encoding, errors, newline, by_lines)
    text.mode = mode  # type: ignore[misc]  # not in the type stubs
    return text


@repeated_in("_calls/files/compiled/opening.pxi")
def _buffer_of(raw: File) -> type:
    reading: type = OriginalRandom if raw.writable() else OriginalReader
    original = reading if raw.readable() else OriginalWriter
    return original if never_parks(raw, original) else OVER_FILES[original]


@repeated_in("_calls/files/compiled/opening.pxi")
def _buffer_size(raw: File) -> int:
    block: int = raw._blksize  # type: ignore[attr-defined]  # not in the type stubs
    if sys.version_info >= (3, 14):
        return max(min(block, 8 << 20), io.DEFAULT_BUFFER_SIZE)
    return block if block > 1 else io.DEFAULT_BUFFER_SIZE


supply(__name__, layers_over=_layers_over, original=original_open)


# --- descriptors


def open_fd(path: Any, flags: int, mode: int = 0o777, *, dir_fd: int | None = None) -> int:
    """`os.open`. A checkpoint if `path` is a FIFO, unless the flags keep it from waiting."""
    thread = running()
    if thread is None and not on_carrier():
        return original_os_open(path, flags, mode, dir_fd=dir_fd)
    flags = index(flags)
    if flags & (os.O_NONBLOCK | O_PATH) or isinstance(path, int) or not _is_fifo(path, dir_fd):
        return original_os_open(path, flags, mode, dir_fd=dir_fd)
    if thread is None:
        refuse_to_wait_inside_scheduler()
        return original_os_open(path, flags, mode, dir_fd=dir_fd)
    thread._check()
    path = os.fspath(path)
    # The same audit event as the original. The openings below raise more, with their own flags and names.
    sys.audit("open", path, None, flags | os.O_CLOEXEC)
    opening = _FifoOpening(path, flags, mode, dir_fd)
    try:
        return offload_abandonable(fifos, opening.open, opening.dispose)
    except BaseException:
        # The OS thread of the call waits in `open` until the FIFO has another end. No caller waits for it any more, so
        # end it.
        opening.end()
        raise


def _is_fifo(path: Any, dir_fd: int | None) -> bool:
    try:
        return stat.S_ISFIFO(status_of(path, dir_fd=dir_fd).st_mode)
    except (OSError, TypeError, ValueError):
        return False


def _stand_in_for(path: Any, flags: int, dir_fd: int | None) -> int:
    """Return a descriptor that stands for the FIFO at `path`, even if the name changes; -1 if there can be none."""
    if not O_PATH:
        return -1
    try:
        lowest = original_os_open(path, O_PATH | flags & os.O_NOFOLLOW, dir_fd=dir_fd)
        try:
            # Free the lowest number for the opening itself: a program that closes standard input to open a new one
            # relies on getting that number.
            fd = original_fcntl(lowest, fcntl.F_DUPFD_CLOEXEC, lowest + 1)
        finally:
            close_fd(lowest)
    except OSError:
        return -1
    try:
        if _stands_for_fifo(fd, flags):
            return fd
    except OSError:
        pass
    close_fd(fd)
    return -1


def _stands_for_fifo(fd: int, flags: int) -> bool:
    """Return whether opening `fd` by its name in /proc has the same effect as opening the FIFO by its own name."""
    name, status = _name_of(fd), fstat(fd)
    if not stat.S_ISFIFO(status.st_mode) or not os.path.samestat(status, status_of(name)):
        return False
    if not flags & os.O_CREAT or status.st_uid == os.geteuid():
        return True
    # In a sticky folder like /tmp the kernel may refuse FIFOs of other users (fs.protected_fifos). It checks the folder
    # of the name that is opened, so opening by the name in /proc would bypass that.
    return not status_of(os.path.dirname(os.readlink(name))).st_mode & stat.S_ISVTX


def _name_of(fd: int) -> str:
    return f"/proc/self/fd/{fd}"


class _FifoOpening:
    """An opening of a FIFO on an OS thread, which can be ended early."""

    def __init__(self, path: Any, flags: int, mode: int, dir_fd: int | None) -> None:
        self._path = path
        self._stand_in = _stand_in_for(path, flags, dir_fd)
        if self._stand_in >= 0:
            # The name in /proc is a link that must be followed; a link at `path` itself was already checked.
            self._name, self._dir_fd, flags = _name_of(self._stand_in), None, flags & ~os.O_NOFOLLOW
        else:
            self._name, self._dir_fd = path, dir_fd
        self._flags_and_mode = flags, mode
        self._changing = allocate_lock()
        self._is_unwanted = False
        # Held while the OS thread is in the call, and until an unwanted descriptor and its peer are closed.
        self._under_way = allocate_lock()
        self._peer = -1

    def open(self) -> int:
        """Open the FIFO (called on an OS thread); return -1 if the opening was cancelled."""
        with self._changing:
            if self._is_unwanted:
                return -1
            self._under_way.acquire()
        fd = -1
        try:
            fd = original_os_open(self._name, *self._flags_and_mode, dir_fd=self._dir_fd)
        except OSError as error:
            if error.filename == self._name:
                error.filename = self._path
            raise
        finally:
            with self._changing:
                if self._is_unwanted:
                    self.dispose(fd)
                    fd = -1
                self.dispose(self._peer)
                self._drop_stand_in()
                self._under_way.release()
        return fd

    def end(self) -> None:
        """End the call by opening the other end, which other waiters of the FIFO may see for some microseconds."""
        with self._changing:
            self._is_unwanted = True
            if not self._under_way.locked():
                self._drop_stand_in()
                return
            try:
                # Open as reader and writer at once, which never waits.
                peer_flags = os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC
                self._peer = original_os_open(self._name, peer_flags, dir_fd=self._dir_fd)
            except OSError:
                # The FIFO is gone, or we may not read and write it: the OS thread must wait for another peer.
                return
        self._under_way.acquire(timeout=LONGEST_END)

    def _drop_stand_in(self) -> None:
        self.dispose(self._stand_in)
        self._stand_in = -1

    @staticmethod
    def dispose(fd: int) -> None:
        """Close a descriptor that is not used any more; -1 stands for none."""
        if fd >= 0:
            close_fd(fd)
