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
from ..._core.replaced import latest
from ..._core.thread import VirtualThread
from ..._timeouts import shield
from .children import Changes, ChildWait, has_changed
from .waiting import original_waitpid

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
    if process.returncode is not None:
        # `communicate` has waited, and the end of the `with` block waits again.
        return process.returncode
    if os.waitpid is not latest(original_waitpid):
        # The program has replaced it as well, for example by a mock. The original calls what it finds there.
        replaced: int | None = original_wait(process, timeout)
        return replaced
    code = _take_status(process)
    if code is None:
        end = Changes(os.P_PID, process.pid, os.WEXITED)
        wait_for_end = ChildWait(thread, end, timeout)
    while code is None:
        in_time = wait_for_end.park()
        code = _take_status(process)
        if code is None and _has_come(end, process):
            # The child has ended, and another thread is about to take its status. So this wait is short, and needs no
            # delivery.
            with deferred_delivery():
                code = original_wait(process, None)
        elif code is None and not in_time:
            assert timeout is not None
            raise TimeoutExpired(process.args, timeout)
    return code


def _take_status(process: Popen[Any]) -> int | None:
    """Take the status if the child has ended. None also if another thread is waiting for it in the original."""
    code: int | None = process._internal_poll()  # type: ignore[attr-defined]  # not in the type stubs
    return code


def _has_come(end: Changes, process: Popen[Any]) -> bool:
    if process.returncode is not None:
        return True
    ended = has_changed(end)
    return process.poll() is not None if ended is None else ended
