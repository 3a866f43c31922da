"""Ask another process for its virtual threads, through its socket, if it serves one.

From Python 3.14 on a process that does not serve one can be made to: `sys.remote_exec` runs a line of Python in it.
"""

from __future__ import annotations

import json
import os
import socket
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from ._socket_path import forget_dead, pids, socket_of

__all__ = ["HOW_TO_ANSWER", "NotServing", "ask_process"]

# Seconds to wait for an answer: a carrier may take half a second, and a large tree more.
PATIENCE = 30.0
# Seconds until a process made to serve must have its socket: it creates it at its next Python instruction.
PATIENCE_TO_BEGIN = 5.0

HOW_TO_ANSWER = (
    "start it with VTHREADS_DEBUG=1 in its environment or with `python -m vthreads run --debug`, "
    "or call vthreads.debug.serve() in it"
)

BEGIN_TO_SERVE = "import vthreads.debug\nvthreads.debug.serve()\n"


class NotServing(RuntimeError):
    """The process does not answer requests."""


def ask_process(pid: int, ask: str, **options: Any) -> Any:
    """Send a request to process `pid`: "dump" or "load", with the arguments of `snapshot` or `load`.

    Blocks the calling OS thread, or parks the calling virtual thread.

    Raises:
        NotServing: the process does not exist, or does not answer.
        RuntimeError: the process failed to answer this request.
    """
    forget_dead()
    place = socket_of(pid) or _made_to_serve(pid)
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
            connection.settimeout(PATIENCE)
            connection.connect(str(place))
            connection.sendall(json.dumps({"ask": ask, **options}).encode() + b"\n")
            with connection.makefile("rb") as answers:
                line = answers.readline()
    except OSError as error:
        _refuse_if_ended(pid)
        raise NotServing(f"process {pid} does not answer at {str(place)!r}: {error}") from error
    if not line.endswith(b"\n"):
        _refuse_if_ended(pid)
        raise NotServing(f"process {pid} has closed {str(place)!r} without an answer: only its own user may connect")
    answer = json.loads(line)
    if "error" in answer:
        raise RuntimeError(f"process {pid} could not answer {ask!r}: {answer['error']}")
    return answer["answer"]


def _made_to_serve(pid: int) -> Path:
    _refuse_if_ended(pid)
    if sys.version_info >= (3, 14):
        return _begin_by_remote_exec(pid)
    children = sorted(child for child in pids() if _stat_of(child)[1:2] == [str(pid).encode()])
    if children:
        # For example the workers of `vthreads serve`, whose parent has no virtual threads.
        answering = ", ".join(map(str, children))
        raise NotServing(f"process {pid} does not answer ps, dump and top, but its child processes do: {answering}")
    raise NotServing(f"process {pid} does not answer ps, dump and top: {HOW_TO_ANSWER}")


def _refuse_if_ended(pid: int) -> None:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        raise NotServing(f"process {pid} does not exist; check the pid") from None
    except PermissionError:
        # The process exists and belongs to another user.
        return
    if _is_zombie(pid):
        raise NotServing(f"process {pid} has ended; its parent has not waited for it yet")


def _is_zombie(pid: int) -> bool:
    return _stat_of(pid)[:1] == [b"Z"]


def _stat_of(pid: int) -> list[bytes]:
    """Return the state of a process, its parent, and what else the system says; empty if it says nothing."""
    try:
        status = Path(f"/proc/{pid}/stat").read_bytes()
    except OSError:
        # The process has ended meanwhile, or this system has no /proc.
        return []
    # The state follows the program name, which is in parentheses and may contain any characters.
    return status.rpartition(b")")[2].split()


if sys.version_info >= (3, 14):

    def _begin_by_remote_exec(pid: int) -> Path:
        with tempfile.NamedTemporaryFile("w", suffix=".py") as script:
            script.write(BEGIN_TO_SERVE)
            script.flush()
            try:
                sys.remote_exec(pid, script.name)
            except (OSError, RuntimeError) as error:
                raise NotServing(f"process {pid} could not be made to serve requests: {error}") from error
            give_up_at = time.monotonic() + PATIENCE_TO_BEGIN
            while time.monotonic() < give_up_at:
                place = socket_of(pid)
                if place is not None:
                    return place
                time.sleep(0.02)
        raise NotServing(
            f"process {pid} does not serve requests {PATIENCE_TO_BEGIN} seconds after the request to; it begins when "
            "its main thread next runs Python code, so the main thread may be waiting or blocked in C"
        )
