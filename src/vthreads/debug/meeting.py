"""Where a process that can be asked from outside is found: its socket, in a directory that only its user may enter.

`$XDG_RUNTIME_DIR/vthreads/PID.sock` if there is such a directory, otherwise `vthreads-UID/PID.sock` in the directory
for temporary files. What a killed process has left behind is cleared away by whoever looks.
"""

from __future__ import annotations

import os
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path

__all__ = ["UNREADY", "forget_dead", "leave", "own_socket", "pids", "socket_of"]

# Where the system keeps directories of users that are logged in, also if the environment does not say so.
USER_DIRECTORIES = "/run/user"

# What a socket is called, after the process, while nobody can connect to it yet, and then.
UNREADY, READY = ".made", ".sock"


def own_socket() -> Path:
    """Where this process is to listen; the directory is made.

    Raises:
        PermissionError: the directory for it belongs to somebody else, or others may enter it.
    """
    directory = _directories(os.geteuid())[0]
    directory.mkdir(mode=0o700, exist_ok=True)
    if not _is_private(directory, os.geteuid()):
        raise PermissionError(
            f"{str(directory)!r} has to be a directory of user {os.geteuid()} that nobody else may enter; "
            "remove it, or set XDG_RUNTIME_DIR to one that is"
        )
    return directory / f"{os.getpid()}{READY}"


def socket_of(pid: int) -> Path | None:
    """Where process `pid` listens; None if it does not."""
    try:
        owner = os.stat(f"/proc/{pid}").st_uid
    except OSError:
        # No such process, or no such file system: then it is one of this user or of nobody.
        owner = os.geteuid()
    places = [directory / f"{pid}{READY}" for directory in _directories(owner) if _is_private(directory, owner)]
    return next((place for place in places if place.is_socket()), None)


def pids() -> Iterator[int]:
    """The processes of this user that listen."""
    for directory in _directories(os.geteuid()):
        if _is_private(directory, os.geteuid()):
            yield from (int(place.stem) for place in directory.glob(f"*{READY}") if place.stem.isdecimal())


def leave(place: Path) -> None:
    """Remove the socket `place`, and its directory if it was the last one."""
    place.unlink(missing_ok=True)
    try:
        place.parent.rmdir()
    except OSError:
        # Others are in it, or it is gone already.
        pass


def forget_dead() -> None:
    """Remove what processes left behind that were killed."""
    for directory in _directories(os.geteuid()):
        for place in directory.iterdir() if _is_private(directory, os.geteuid()) else ():
            if place.suffix in (UNREADY, READY) and place.stem.isdecimal() and not _is_alive(int(place.stem)):
                place.unlink(missing_ok=True)


def _directories(user: int) -> list[Path]:
    """Where the sockets of `user` may be, the best first."""
    runtime = [os.environ.get("XDG_RUNTIME_DIR") if user == os.geteuid() else None, f"{USER_DIRECTORIES}/{user}"]
    usable = [Path(path) for path in runtime if path and _is_private(Path(path), user)]
    return [*(path / "vthreads" for path in usable), Path(tempfile.gettempdir()) / f"vthreads-{user}"]


def _is_private(directory: Path, user: int) -> bool:
    try:
        found = directory.lstat()
    except OSError:
        # It is not there, or not to be looked at.
        return False
    return stat.S_ISDIR(found.st_mode) and found.st_uid == user and not stat.S_IMODE(found.st_mode) & 0o077


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        # Somebody else's by now, so not the one that listened here.
        return False
    return True
