"""Work in a child process that ends in bounded time, however the program behaves that the child imports.

The child leads a session, so the parent can kill it together with the processes and threads that it has started. It
sends lines to the parent; standard input is empty, and standard output goes to standard error. If the time is over, the
parent asks for the stack of the child by a signal: `faulthandler` writes it even while C code runs. If the main program
is parked, its stack is not that of the OS thread, so a handler in Python writes it after another signal.
"""

from __future__ import annotations

import faulthandler
import json
import os
import re
import select
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any, NamedTuple

from .._calls.signals import quiet_handlers
from .._core.engine import carriers
from .._core.originals import get_ident, write_fd

__all__ = ["Outcome", "supervise"]

Send = Callable[[Any], None]

# Programs rarely use them. They are sent after the time limit, so the child may also die of them.
STACK_SIGNAL, MAIN_SIGNAL = signal.SIGVTALRM, signal.SIGPROF
# Seconds between checks whether the child has ended. Its descendants may keep the pipe open.
PERIOD = 0.1
# Seconds for the stack, and after the limit for a child whose parent was killed.
GRACE = 5


class Outcome(NamedTuple):
    """The objects that the child sent, and how it ended before it was done; None if it was done."""

    sent: list[Any]
    # "over time", or a sentence about the end of the process.
    failure: str | None
    # After "over time": the stack of the main program, as lines of `faulthandler`, innermost first.
    stack: list[str]


def supervise(work: Callable[[Send], None], seconds: float) -> Outcome:
    """Call `work` with a function that sends JSON objects, in a child process, for at most so many seconds."""
    # Before the fork: the child may be far in its work before this process runs again.
    give_up_at = time.monotonic() + seconds
    lines, stacks = os.pipe(), os.pipe()
    sys.stdout.flush()
    sys.stderr.flush()
    # Ctrl-C in a handler of the fork would be printed and forgotten.
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
    pid = os.fork()
    if pid == 0:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        _be_child(work, lines[1], stacks[1], seconds)
    os.close(lines[1])
    os.close(stacks[1])
    try:
        return _collect(pid, lines[0], stacks[0], give_up_at, mask)
    finally:
        os.close(lines[0])
        os.close(stacks[0])


# --- the child


def _be_child(work: Callable[[Send], None], lines: int, stacks: int, seconds: float) -> None:
    """Work, and end the process. Nothing that the program registered for the exit of the interpreter is called."""
    pid, end, status = os.getpid(), os._exit, 1
    try:
        os.setsid()
        null = os.open(os.devnull, os.O_RDONLY)
        os.dup2(null, 0)
        os.dup2(2, 1)
        faulthandler.register(STACK_SIGNAL, stacks, all_threads=True)
        write_main = partial(_write_main, stacks)
        # The handler unparks no thread, so a program in which all threads wait is still a deadlock.
        quiet_handlers.append(write_main)
        signal.signal(MAIN_SIGNAL, write_main)
        signal.alarm(int(seconds) + GRACE)

        def send(thing: Any) -> None:
            # A process that the program has forked calls this too, if the fork returned into the import.
            if os.getpid() == pid:
                _write(lines, json.dumps(thing).encode() + b"\n")

        work(send)
        send(None)
        status = 0
    except BaseException:  # noqa: BLE001  printed; the parent notices that the last line is missing
        if os.getpid() == pid:
            traceback.print_exc()
    finally:
        try:
            sys.stdout.flush()
            sys.stderr.flush()
        finally:
            end(status)


def _write_main(stacks: int, *_: object) -> None:
    """Write the stack of the main program, in the format of `faulthandler`; none if no runtime has started."""
    scheduler = carriers.get(get_ident())
    frame = None if scheduler is None else scheduler.root._frame()
    lines = ["Main program (most recent call first):"]
    while frame is not None:
        lines.append(f'  File "{frame.f_code.co_filename}", line {frame.f_lineno} in {frame.f_code.co_name}')
        frame = frame.f_back
    _write(stacks, "\n".join([*lines, ""]).encode())


def _write(fd: int, data: bytes) -> None:
    while data:
        data = data[write_fd(fd, data) :]


# --- the parent


def _collect(pid: int, lines: int, stacks: int, give_up_at: float, mask: Iterable[int]) -> Outcome:
    received, status = b"", None
    try:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        while status is None and not received.endswith(b"null\n") and time.monotonic() < give_up_at:
            # First, so that all that an ended child has written is read below.
            status = _status_if_ended(pid)
            received += _read(lines, 0 if status is not None else PERIOD)
        sent = [json.loads(line) for line in received.splitlines(keepends=True) if line.endswith(b"\n")]
        if sent[-1:] == [None]:
            return Outcome(sent[:-1], None, [])
        if status is not None:
            return Outcome(sent, _described(status), [])
        return Outcome(sent, "over time", _stack(pid, stacks))
    finally:
        if status is None:
            _kill(pid)


def _status_if_ended(pid: int) -> int | None:
    ended, status = os.waitpid(pid, os.WNOHANG)
    return status if ended else None


def _read(fd: int, seconds: float) -> bytes:
    """Return what arrives within so many seconds, until the pipe is empty."""
    received = b""
    while select.select([fd], [], [], seconds)[0]:
        chunk = os.read(fd, 65536)
        received, seconds = received + chunk, 0
        if not chunk:
            # All writers have closed it. Do not check again at once whether the child has ended.
            time.sleep(PERIOD)
            break
    return received


def _described(status: int) -> str:
    if os.WIFSIGNALED(status):
        return f"was killed by {signal.Signals(os.WTERMSIG(status)).name}"
    return f"ended with status {os.waitstatus_to_exitcode(status)}"


def _stack(pid: int, stacks: int) -> list[str]:
    """Return the lines of the main program in the stacks of the child; none if it does not write them in time."""
    for number in (STACK_SIGNAL, MAIN_SIGNAL):
        os.kill(pid, number)
        text = _read(stacks, GRACE)
        if not text:
            break
        time.sleep(PERIOD)
        text += _read(stacks, 0)
        for thread in text.decode(errors="replace").split("\n\n"):
            if f'"{__file__}", line' in thread:
                return re.findall(r'^  File (".*", line \d+ in .*)$', thread, re.M)
    return []


def _kill(pid: int) -> None:
    """End the session of the child, and wait for the child."""
    for end in (os.killpg, os.kill):
        try:
            end(pid, signal.SIGKILL)
        except (ProcessLookupError, PermissionError):
            # It has not become the leader of a session, or all have ended.
            continue
    os.waitpid(pid, 0)
