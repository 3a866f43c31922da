"""Paths of the sockets of processes that can be inspected: in a directory that only their user may enter.

`$XDG_RUNTIME_DIR/vthreads/PID.sock` if that directory exists, otherwise `vthreads-UID/PID.sock` in the directory for
temporary files. `forget_dead` removes the sockets of processes that were killed.
"""

from __future__ import annotations

import os
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path

__all__ = ["UNREADY", "forget_dead", "leave", "own_socket", "pids", "socket_of"]

# The system's directories for users that are logged in, in case the environment does not name one.
USER_DIRECTORIES = "/run/user"

# Suffixes of a socket: before clients can connect, and after that.
UNREADY, READY = ".made", ".sock"


def own_socket() -> Path:
    """Return the path on which this process should listen; create the directory.

    Raises:
        PermissionError: the directory belongs to another user, or others may enter it.
    """
    directory = _directories(os.geteuid())[0]
    directory.mkdir(mode=0o700, exist_ok=True)
    if not _is_private(directory, os.geteuid()):
        raise PermissionError(
            f"{str(directory)!r} is not a directory of user {os.geteuid()} that no other user may enter; "
            "remove it, or set XDG_RUNTIME_DIR to such a directory"
        )
    return directory / f"{os.getpid()}{READY}"


def socket_of(pid: int) -> Path | None:
    """Return the path on which process `pid` listens; None if it does not listen."""
    try:
        owner = os.stat(f"/proc/{pid}").st_uid
    except OSError:
        # No such process, or no /proc: assume a process of this user.
        owner = os.geteuid()
    places = [directory / f"{pid}{READY}" for directory in _directories(owner) if _is_private(directory, owner)]
    return next((place for place in places if place.is_socket()), None)


def pids() -> Iterator[int]:
    """Return the pids of this user's processes that listen."""
    for directory in _directories(os.geteuid()):
        if _is_private(directory, os.geteuid()):
            yield from (int(place.stem) for place in directory.glob(f"*{READY}") if place.stem.isdecimal())


def leave(place: Path) -> None:
    """Remove the socket `place`, and its directory if it is empty then."""
    place.unlink(missing_ok=True)
    try:
        place.parent.rmdir()
    except OSError:
        # The directory contains other sockets, or was removed already.
        pass


def forget_dead() -> None:
    """Remove the sockets of processes that were killed."""
    for directory in _directories(os.geteuid()):
        for place in directory.iterdir() if _is_private(directory, os.geteuid()) else ():
            if place.suffix in (UNREADY, READY) and place.stem.isdecimal() and not _is_alive(int(place.stem)):
                place.unlink(missing_ok=True)


def _directories(user: int) -> list[Path]:
    """Return the directories that may contain the sockets of `user`, preferred first."""
    runtime = [os.environ.get("XDG_RUNTIME_DIR") if user == os.geteuid() else None, f"{USER_DIRECTORIES}/{user}"]
    usable = [Path(path) for path in runtime if path and _is_private(Path(path), user)]
    return [*(path / "vthreads" for path in usable), Path(tempfile.gettempdir()) / f"vthreads-{user}"]


def _is_private(directory: Path, user: int) -> bool:
    try:
        found = directory.lstat()
    except OSError:
        # The directory does not exist or may not be read.
        return False
    return stat.S_ISDIR(found.st_mode) and found.st_uid == user and not stat.S_IMODE(found.st_mode) & 0o077


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        # The pid belongs to a process of another user now, so the one that listened here has ended.
        return False
    return True
