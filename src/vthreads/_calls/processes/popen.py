"""Replacements for parts of `subprocess.Popen`: the wait for a child, which polls in the original if it has a timeout.

Everything else is the standard library's code, on top of calls that park.
"""

from __future__ import annotations

import os
import signal
from subprocess import Popen, TimeoutExpired
from typing import Any

from ..._core.current import running
from ..._core.delivery import deferred_delivery
from ..._core.thread import VirtualThread
from ..._timeouts import shield
from .children import Changes, ChildWait, has_changed

__all__ = ["send_signal", "wait"]

original_wait: Any = Popen._wait  # type: ignore[attr-defined]  # not in the type stubs
original_send_signal = Popen.send_signal

# Key in the instance's dict, set when SIGKILL was sent to the child.
KILLED = "_vthreads_killed"


def send_signal(self: Popen[Any], sig: int) -> None:
    """`Popen.send_signal`, which `kill` calls too. Not a checkpoint."""
    original_send_signal(self, sig)
    if sig == signal.SIGKILL:
        self.__dict__[KILLED] = True


def wait(self: Popen[Any], timeout: float | None) -> int | None:
    """`Popen._wait`, which `wait`, `communicate` and `with` call. A checkpoint unless `timeout` is 0.

    After a SIGKILL the child ends at once, so the wait for its status is shielded: if `run()` is cancelled, it kills
    the child, waits and leaves no zombie, even if no cleanup time is left. If the kernel cannot end the child, an
    interrupt or a second Ctrl-C ends the wait.
    """
    thread = running()
    if thread is None or timeout is not None and timeout <= 0:
        code: int | None = original_wait(self, timeout)
        return code
    if KILLED in self.__dict__:
        with shield(None):
            return _wait(thread, self, timeout)
    return _wait(thread, self, timeout)


def _wait(thread: VirtualThread, process: Popen[Any], timeout: float | None) -> int | None:
    thread._check()
    end = Changes(os.P_PID, process.pid, os.WEXITED)
    wait_for_end = ChildWait(thread, end, timeout)
    # Without `Popen._waitpid_lock`: threads that only check the child would have to wait for it.
    while not _has_come(end, process):
        if not wait_for_end.park() and not _has_come(end, process):
            assert timeout is not None
            raise TimeoutExpired(process.args, timeout)
    # The child has ended, so its status is available at once. Deferred delivery: a cancellation must not lose it.
    with deferred_delivery():
        code: int | None = original_wait(process, None)
        return code


def _has_come(end: Changes, process: Popen[Any]) -> bool:
    if process.returncode is not None:
        return True
    ended = has_changed(end)
    return process.poll() is not None if ended is None else ended
