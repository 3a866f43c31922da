"""Replacements for `os.system` and `os.spawn*`: start the child without blocking, then park until it ends.

Only this call knows the child. So if the call is cancelled, it kills the child and takes its status, as
`subprocess.run` does. Processes that a killed shell has started continue, as they do there.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from typing import Any

from ..._core.current import running
from ..._core.wait_queue import refuse_to_wait_inside_scheduler
from ..._timeouts import shield
from .waiting import waitpid

__all__ = ["spawnvef", "system"]

original_system = os.system
original_spawnvef: Any = os._spawnvef  # type: ignore[attr-defined]  # all of os.spawn* call it

SHELL = "/system/bin/sh" if hasattr(sys, "getandroidapilevel") else "/bin/sh"
# The status that the C library returns if there is no shell.
NO_SHELL = 127 << 8


def system(command: Any) -> int:
    """`os.system`. A checkpoint; thread-safe.

    The original ignores SIGINT and SIGQUIT in the whole process while the command runs. Here they are not ignored,
    because they may be meant for another virtual thread.
    """
    thread = running()
    if thread is None:
        refuse_to_wait_inside_scheduler()
        return original_system(command)
    thread._check()
    command = os.fsencode(command)
    sys.audit("os.system", command)
    try:
        pid = os.posix_spawn(SHELL, ["sh", "-c", command], os.environ)
    except OSError:
        return NO_SHELL
    try:
        return _status_of(pid)
    except ChildProcessError:
        # The original returns this too, if SIGCHLD is ignored and the kernel has dropped the status.
        return -1


def spawnvef(mode: int, file: Any, args: Any, env: Any, func: Callable[..., Any]) -> int:
    """`os._spawnvef`, which all of `os.spawn*` call. A checkpoint if `mode` is P_WAIT; thread-safe."""
    thread = running()
    if thread is None and mode == os.P_WAIT:
        refuse_to_wait_inside_scheduler()
    if thread is None or mode != os.P_WAIT:
        result: int = original_spawnvef(mode, file, args, env, func)
        return result
    thread._check()
    return os.waitstatus_to_exitcode(_status_of(original_spawnvef(os.P_NOWAIT, file, args, env, func)))


def _status_of(pid: int) -> int:
    try:
        return waitpid(pid, 0)[1]
    except ChildProcessError:
        # The child is gone. Do not kill: another process may have its number now.
        raise
    except BaseException:
        # The caller does not get the number of the child, so no other code could end it or collect its status.
        os.kill(pid, signal.SIGKILL)
        with shield(None):
            waitpid(pid, 0)
        raise
