"""Asking another process what its virtual threads do: by its socket, if it serves one.

From Python 3.14 on a process that was not told to serve can be made to: `sys.remote_exec` runs a line of Python in it.
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

from .meeting import forget_dead, socket_of

__all__ = ["NotServing", "ask_process"]

# Seconds to wait for an answer: a carrier may take half a second, and a large tree some more.
PATIENCE = 30.0
# Seconds that a process that was not told to serve has to begin with it: it does so at its next Python instruction.
PATIENCE_TO_BEGIN = 5.0

BEGIN_TO_SERVE = "import vthreads.debug\nvthreads.debug.serve()\n"


class NotServing(RuntimeError):
    """The process cannot be asked."""


def ask_process(pid: int, ask: str, **options: Any) -> Any:
    """Put a question to process `pid`: "dump" or "load", with the arguments of `snapshot` or `load`.

    Blocks the OS thread, or parks the virtual thread, that calls.

    Raises:
        NotServing: there is no such process, or it does not answer.
        RuntimeError: it could not answer this question.
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
        raise NotServing(f"process {pid} does not answer at {str(place)!r}: {error}") from error
    if not line:
        raise NotServing(f"process {pid} has closed {str(place)!r} without an answer: only its own user may ask")
    answer = json.loads(line)
    if "error" in answer:
        raise RuntimeError(f"process {pid} could not answer {ask!r}: {answer['error']}")
    return answer["answer"]


def _made_to_serve(pid: int) -> Path:
    if not _exists(pid):
        raise NotServing(f"there is no process {pid}")
    if sys.version_info >= (3, 14):
        return _begin_by_remote_exec(pid)
    raise NotServing(
        f"process {pid} was not told to answer: start it with VTHREADS_DEBUG=1 in its environment, with "
        "`python -m vthreads run --debug`, or let it call vthreads.debug.serve()"
    )


def _exists(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        # Somebody else's.
        return True
    return True


if sys.version_info >= (3, 14):

    def _begin_by_remote_exec(pid: int) -> Path:
        with tempfile.NamedTemporaryFile("w", suffix=".py") as script:
            script.write(BEGIN_TO_SERVE)
            script.flush()
            try:
                sys.remote_exec(pid, script.name)
            except (OSError, RuntimeError) as error:
                raise NotServing(f"process {pid} could not be made to answer: {error}") from error
            give_up_at = time.monotonic() + PATIENCE_TO_BEGIN
            while time.monotonic() < give_up_at:
                place = socket_of(pid)
                if place is not None:
                    return place
                time.sleep(0.02)
        raise NotServing(
            f"process {pid} has not begun to answer within {PATIENCE_TO_BEGIN} seconds; it does so when its main "
            "thread next runs Python code, which one that waits or is stuck in C does not"
        )
