"""What `os.system` and `os.spawn*` become on a virtual thread: a start that does not block, and a wait that parks.

Only the call knows the child, so what ends the call early kills the child and takes its status, as `subprocess.run`
does; what a killed shell has started goes on, as there.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from typing import Any

from .._core.current import running
from ..timeouts import shield
from .waiting import waitpid

__all__ = ["spawnvef", "system"]

original_system = os.system
original_spawnvef: Any = os._spawnvef  # type: ignore[attr-defined]  # what all of os.spawn* end in

SHELL = "/system/bin/sh" if hasattr(sys, "getandroidapilevel") else "/bin/sh"
# What the C library answers if there is no shell.
NO_SHELL = 127 << 8


def system(command: Any) -> int:
    """`os.system`. A checkpoint; thread-safe.

    The original ignores SIGINT and SIGQUIT in the whole process while the command runs, for whichever thread they are;
    here they are not ignored.
    """
    thread = running()
    if thread is None:
        return original_system(command)
    thread.check()
    command = os.fsencode(command)
    sys.audit("os.system", command)
    try:
        pid = os.posix_spawn(SHELL, ["sh", "-c", command], os.environ)
    except OSError:
        return NO_SHELL
    try:
        return _status_of(pid)
    except ChildProcessError:
        # As the original answers if SIGCHLD is ignored.
        return -1


def spawnvef(mode: int, file: Any, args: Any, env: Any, func: Callable[..., Any]) -> int:
    """`os._spawnvef`, and by that `os.spawn*`. A checkpoint if `mode` is P_WAIT; thread-safe."""
    thread = running()
    if thread is None or mode != os.P_WAIT:
        result: int = original_spawnvef(mode, file, args, env, func)
        return result
    thread.check()
    return os.waitstatus_to_exitcode(_status_of(original_spawnvef(os.P_NOWAIT, file, args, env, func)))


def _status_of(pid: int) -> int:
    try:
        return waitpid(pid, 0)[1]
    except ChildProcessError:
        # It is gone: its number may be somebody else's.
        raise
    except BaseException:
        os.kill(pid, signal.SIGKILL)
        with shield(None):
            waitpid(pid, 0)
        raise
