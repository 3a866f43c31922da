"""`vthreads top`: how busy the carriers of another process are, again and again."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from contextlib import nullcontext
from typing import Any

try:
    from rich.console import Console, Group
    from rich.live import Live
    from rich.table import Table
    from rich.text import Text
except ImportError as missing:
    sys.exit(f"top uses a library that is not installed ({missing}); install it: pip install 'vthreads[cli]'")

from ..debug.asking import NotServing, ask_process
from ..debug.text import describe_wait, duration
from .looking import answer_of

__all__ = ["main"]

Data = dict[str, Any]

STATES = ("running", "ready", "parked")
# Where the output is no terminal, lines are as long as they need to be, within reason.
WIDTH_ELSEWHERE = 120


def main(arguments: Sequence[str]) -> int:
    """Show the load of a process until Ctrl-C or its end; the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m vthreads top", description="Show how busy the carriers of process PID are."
    )
    parser.add_argument("pid", metavar="PID", type=int, help="the process")
    parser.add_argument("--interval", metavar="SECONDS", type=float, default=1.0, help="between two looks (1)")
    parser.add_argument("--slowest", metavar="N", type=int, default=10, help="how many of the longest waits (10)")
    parser.add_argument("--once", action="store_true", help="print it once, after one interval, and end")
    options = parser.parse_args(arguments)
    console = Console() if sys.stdout.isatty() else Console(width=WIDTH_ELSEWHERE)
    before = answer_of(options.pid, "load", slowest=options.slowest)
    try:
        time.sleep(options.interval)
        if options.once:
            console.print(_screen(before, answer_of(options.pid, "load", slowest=options.slowest)))
        else:
            _watch(console, options, before)
    except KeyboardInterrupt:
        # How one leaves it.
        pass
    return 0


def _watch(console: Console, options: argparse.Namespace, before: Data) -> None:
    # Elsewhere than on a terminal one screen follows the other.
    live = Live(console=console, screen=True, auto_refresh=False) if console.is_terminal else None
    with live or nullcontext():
        while True:
            try:
                after = ask_process(options.pid, "load", slowest=options.slowest)
            except NotServing:
                break
            screen = _screen(before, after)
            if live is not None:
                live.update(screen, refresh=True)
            else:
                console.print(screen)
            before = after
            time.sleep(options.interval)
    console.print(f"process {options.pid} has ended, or answers no more")


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
    lines = [f"carrier {carrier['os_thread']['name']!r} is pinned: it does not switch, and is in"]
    for place in carrier["stack"]:
        lines += [f"  {place['file']}:{place['line']} in {place['function']}", f"    {place['source']}"]
    return Text("\n".join(lines), style="bold red")


def _slowest(carrier: Data) -> Table:
    table = Table(box=None, pad_edge=False)
    table.add_column("parked for", justify="right")
    table.add_column("thread")
    table.add_column("longest waits")
    for thread in carrier["slowest"]:
        # As text: what stands in brackets is not markup.
        table.add_row(duration(thread["parked_for"]), Text(thread["name"]), Text(describe_wait(thread["waits_for"])))
    return table
