"""What `open` and `os.open` become.

`open` puts together what the original does: a raw file, a buffer, a text layer. What never waits is left to the
original altogether: files in memory, and files on a disk that are only written. Wrong arguments are left to it as well,
for its errors.

Opening itself is done in place: it takes microseconds, and only FIFOs wait for somebody else. They are opened on an OS
thread. If nobody wants it any more, the other end is opened for a moment, which lets that OS thread go; whoever waits
there as well may take this for a peer that came and went. Both are opened by way of a descriptor that stands for the
FIFO, where the system has such: until then the name may be gone, or mean another file.
"""

from __future__ import annotations

import fcntl
import io
import itertools
import os
import stat
import sys
from typing import Any

from .._core.current import running
from .._core.originals import allocate_lock, close_fd
from ..offload import offload_abandonable
from ..os_calls import Limiter
from .buffers import Random, Reader, Writer
from .kinds import Kind, fstat, is_in_memory, status_of
from .raw import File

__all__ = ["open_fd", "open_file"]

original_open, original_os_open, original_fcntl = io.open, os.open, fcntl.fcntl

# Every FIFO that is opened holds one until its other end is opened, perhaps by one that waits for one: so many.
fifos = Limiter("open of a FIFO", 1000)
# Seconds: should the OS thread that has to leave the call get no processor.
LONGEST_END = 0.1
# It opens nothing, but stands for a file. Not every platform has it.
O_PATH: int = getattr(os, "O_PATH", 0)

# Each mode that is one, whatever the order of its letters, with the mode of its raw file.
MODES = {
    "".join(letters): "".join(letter for letter in letters if letter in "rwax+")
    for action in "rwax"
    for more in ("", "+")
    for form in ("", "b", "t")
    for letters in itertools.permutations(action + more + form)
}


def open_file(
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
    is_fifo = False
    if opener is None:
        status = _status_if_there(file)
        if status is None or _never_waits(status, mode):
            return original_open(file, mode, *rest)
        is_fifo = stat.S_ISFIFO(status.st_mode) and not isinstance(file, int)
    if hasattr(file, "__fspath__"):
        file = os.fspath(file)
    raw = File(file, MODES[mode], closefd, open_fd if is_fifo else opener)
    try:
        return _layers_over(raw, mode, *rest[:4])
    except BaseException:
        raw.close()
        raise


def _is_odd(mode: str, buffering: int, encoding: Any, errors: Any, newline: Any, *_: Any) -> bool:
    """Whether the original has an error or a warning for these arguments."""
    if "b" in mode:
        return buffering == 1 or not encoding is errors is newline is None
    return buffering == 0


def _status_if_there(file: Any) -> os.stat_result | None:
    try:
        return status_of(file)
    except (OSError, TypeError, ValueError):
        # It does not exist yet; or never will, and the original tells why.
        return None


def _never_waits(status: os.stat_result, mode: str) -> bool:
    if not stat.S_ISREG(status.st_mode):
        return False
    return not ("r" in mode or "+" in mode) or is_in_memory(status.st_dev)


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


def _buffer_of(raw: File) -> Any:
    updating = raw.readable() and raw.writable()
    if raw.kind is Kind.MEMORY or raw.kind is Kind.DISK and not raw.readable():
        return io.BufferedRandom if updating else io.BufferedReader if raw.readable() else io.BufferedWriter
    return Random if updating else Reader if raw.readable() else Writer


def _buffer_size(raw: File) -> int:
    block: int = raw._blksize  # type: ignore[attr-defined]  # not in the type stubs
    if sys.version_info >= (3, 14):
        return max(min(block, 8 << 20), io.DEFAULT_BUFFER_SIZE)
    return block if block > 1 else io.DEFAULT_BUFFER_SIZE


# --- descriptors


def open_fd(path: Any, flags: int, mode: int = 0o777, *, dir_fd: int | None = None) -> int:
    """`os.open`. A checkpoint if `path` is a FIFO and the flags do not say that it does not wait."""
    thread = running()
    if thread is None or flags & (os.O_NONBLOCK | O_PATH) or isinstance(path, int) or not _is_fifo(path, dir_fd):
        return original_os_open(path, flags, mode, dir_fd=dir_fd)
    thread.check()
    path = os.fspath(path)
    # As the original tells it. More is told of what is opened below, with flags and names of its own.
    sys.audit("open", path, None, flags | os.O_CLOEXEC)
    opening = _FifoOpening(path, flags, mode, dir_fd)
    try:
        return offload_abandonable(fifos, opening.open, opening.dispose)
    except BaseException:
        opening.end()
        raise


def _is_fifo(path: Any, dir_fd: int | None) -> bool:
    try:
        return stat.S_ISFIFO(status_of(path, dir_fd=dir_fd).st_mode)
    except (OSError, TypeError, ValueError):
        return False


def _stand_in_for(path: Any, flags: int, dir_fd: int | None) -> int:
    """A descriptor that stands for the FIFO at `path`, whatever becomes of the name; -1 if there can be none."""
    if not O_PATH:
        return -1
    try:
        lowest = original_os_open(path, O_PATH | flags & os.O_NOFOLLOW, dir_fd=dir_fd)
        try:
            # The lowest number is left to what is opened: who closed standard input to open another one counts on it.
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
    """Whether opening `fd` by its name in /proc, if there is one, is the same as opening the FIFO by its own."""
    name, status = _name_of(fd), fstat(fd)
    if not stat.S_ISFIFO(status.st_mode) or not os.path.samestat(status, status_of(name)):
        return False
    if not flags & os.O_CREAT or status.st_uid == os.geteuid():
        return True
    # In a folder like /tmp the kernel may refuse those of others (fs.protected_fifos), which it judges by the folder.
    return not status_of(os.path.dirname(os.readlink(name))).st_mode & stat.S_ISVTX


def _name_of(fd: int) -> str:
    return f"/proc/self/fd/{fd}"


class _FifoOpening:
    """One opening of a FIFO, on an OS thread, that can be ended."""

    def __init__(self, path: Any, flags: int, mode: int, dir_fd: int | None) -> None:
        self._path = path
        self._stand_in = _stand_in_for(path, flags, dir_fd)
        if self._stand_in >= 0:
            # That name is a link, which is followed; if there is one at `path`, it has been judged.
            self._name, self._dir_fd, flags = _name_of(self._stand_in), None, flags & ~os.O_NOFOLLOW
        else:
            self._name, self._dir_fd = path, dir_fd
        self._flags_and_mode = flags, mode
        self._changing = allocate_lock()
        self._is_unwanted = False
        # Held while the OS thread is in the call, and until what nobody wants and its peer are closed.
        self._under_way = allocate_lock()
        self._peer = -1

    def open(self) -> int:
        """Open it (called on an OS thread); -1 if nobody wants it any more."""
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
        """Be its peer until it is over: for microseconds, in which others would take that for a peer of theirs."""
        with self._changing:
            self._is_unwanted = True
            if not self._under_way.locked():
                self._drop_stand_in()
                return
            try:
                # As reader and writer at once, which waits for nobody.
                peer_flags = os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC
                self._peer = original_os_open(self._name, peer_flags, dir_fd=self._dir_fd)
            except OSError:
                # Gone, or not ours to read and write: the OS thread has to wait for somebody else.
                return
        self._under_way.acquire(timeout=LONGEST_END)

    def _drop_stand_in(self) -> None:
        self.dispose(self._stand_in)
        self._stand_in = -1

    @staticmethod
    def dispose(fd: int) -> None:
        """Close what came too late."""
        if fd >= 0:
            close_fd(fd)
