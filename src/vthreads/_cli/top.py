"""`vthreads top`: show the load of another process, refreshed regularly, until `q`, Ctrl-C or its end."""

from __future__ import annotations

import argparse
import os
import select
import sys
import termios
import time
import tty
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from functools import partial
from typing import Any

try:
    from rich.console import Console, Group
    from rich.live import Live
    from rich.table import Table
    from rich.text import Text
except ImportError as missing:
    # Not an exit here: `--help` needs no library.
    ABSENT = f"top uses a library that is not installed ({missing}); install it: pip install 'vthreads[cli]'"
else:
    ABSENT = ""

from ..debug._client import NotServing, ask_process
from ..debug._text import describe_wait, duration
from .inspect import answer_of, for_pipes

__all__ = ["main"]

Data = dict[str, Any]

STATES = ("running", "ready", "parked")
# Line width if the output is not a terminal.
WIDTH_ELSEWHERE = 120


@for_pipes
def main(arguments: Sequence[str]) -> int:
    """Show the load of a process until `q`, Ctrl-C or its end; return the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m vthreads top", description="Show the load of the carriers of process PID. Press q to quit."
    )
    parser.add_argument("pid", metavar="PID", type=int, help="process to inspect")
    parser.add_argument("--interval", metavar="SECONDS", type=float, default=1.0, help="time between two updates (1)")
    parser.add_argument("--slowest", metavar="N", type=int, default=10, help="number of longest waits to show (10)")
    parser.add_argument("--once", action="store_true", help="print once, after one interval, and exit")
    options = parser.parse_args(arguments)
    if ABSENT:
        sys.exit(ABSENT)
    console = Console() if sys.stdout.isatty() else Console(width=WIDTH_ELSEWHERE)
    before = answer_of(options.pid, "load", slowest=options.slowest)
    try:
        if options.once:
            time.sleep(options.interval)
            console.print(_screen(before, answer_of(options.pid, "load", slowest=options.slowest)))
        else:
            _watch(console, options, before)
    except KeyboardInterrupt:
        # The normal way to quit.
        pass
    return 0


def _watch(console: Console, options: argparse.Namespace, before: Data) -> None:
    # If the output is not a terminal, print one screen after the other.
    live = Live(console=console, screen=True, auto_refresh=False) if console.is_terminal else None
    with live or nullcontext(), _keys() as quits_within:
        while not quits_within(options.interval):
            try:
                after = ask_process(options.pid, "load", slowest=options.slowest)
            except NotServing:
                console.print(f"process {options.pid} has ended, or does not answer any more")
                return
            screen = _screen(before, after)
            if live is not None:
                live.update(screen, refresh=True)
            else:
                console.print(screen)
            before = after


@contextmanager
def _keys() -> Iterator[Callable[[float], bool]]:
    """Yield a function that waits for a number of seconds and returns whether the key q was pressed.

    If standard input is not a terminal, it only waits.
    """
    if not sys.stdin.isatty():
        yield _sleep
        return
    fd = sys.stdin.fileno()
    before = termios.tcgetattr(fd)
    # Deliver each key at once, without echo; Ctrl-C still interrupts.
    tty.setcbreak(fd)
    try:
        yield partial(_reads_q, fd)
    finally:
        termios.tcsetattr(fd, termios.TCSADRAIN, before)


def _sleep(seconds: float) -> bool:
    time.sleep(seconds)
    return False


def _reads_q(fd: int, seconds: float) -> bool:
    ends_at = time.monotonic() + seconds
    while (left := ends_at - time.monotonic()) > 0:
        if select.select([fd], [], [], left)[0]:
            key = os.read(fd, 1)
            if key in (b"q", b"Q"):
                return True
            if not key:
                # The terminal was closed, and would be readable all the time.
                return _sleep(left)
    return False


def _screen(before: Data, after: Data) -> Group:
    parts: list[Any] = [f"process {after['pid']}, {after['engine']} engine, {after['calls']} calls on OS threads", ""]
    earlier = {carrier["os_thread"]["ident"]: carrier for carrier in before["carriers"]}
    parts.append(_carriers(after["carriers"], earlier, after["at"] - before["at"]))
    for carrier in after["carriers"]:
        if carrier["pinned"]:
            parts += ["", _pinned(carrier)]
        parts += ["", _slowest(carrier)]
    return Group(*parts)


def _carriers(carriers: list[Data], earlier: dict[int, Data], seconds: float) -> Table:
    table = Table(box=None, pad_edge=False)
    table.add_column("carrier")
    for column in (*STATES, "switches/s", "queue delay", "timers", "fd waits"):
        table.add_column(column, justify="right")
    for carrier in carriers:
        past = earlier.get(carrier["os_thread"]["ident"])
        switches = "" if past is None else f"{(carrier['switches'] - past['switches']) / seconds:,.0f}"
        table.add_row(
            carrier["os_thread"]["name"],
            *(f"{carrier['threads'].get(state, 0):,}" for state in STATES),
            switches,
            "PINNED" if carrier["pinned"] else f"{carrier['delay'] * 1000:.2f} ms",
            str(carrier["timers"]),
            str(carrier["descriptors"]),
        )
    return table


def _pinned(carrier: Data) -> Text:
    lines = [f"carrier {carrier['os_thread']['name']!r} is pinned: it does not switch. Its stack:"]
    for place in carrier["stack"]:
        lines += [f"  {place['file']}:{place['line']} in {place['function']}", f"    {place['source']}"]
    return Text("\n".join(lines), style="bold red")


def _slowest(carrier: Data) -> Table:
    table = Table(box=None, pad_edge=False)
    table.add_column("parked for", justify="right")
    table.add_column("thread")
    table.add_column("longest waits")
    for thread in carrier["slowest"]:
        # As `Text`, so that brackets are not parsed as markup.
        table.add_row(duration(thread["parked_for"]), Text(thread["name"]), Text(describe_wait(thread["waits_for"])))
    return table
