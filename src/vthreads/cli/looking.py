"""`vthreads ps`, `pstree` and `dump`: what the virtual threads of another process do, once."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from ..debug.asking import NotServing, ask_process
from ..debug.meeting import forget_dead, pids
from ..debug.text import describe_wait, duration, render

__all__ = ["answer_of", "dump", "ps", "pstree"]

Data = dict[str, Any]


def answer_of(pid: int, ask: str, **options: Any) -> Any:
    """What process `pid` answers; ends this one with a message if it does not."""
    try:
        return ask_process(pid, ask, **options)
    except NotServing as refusal:
        sys.exit(f"vthreads: {refusal}")


def _parser(name: str, description: str) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog=f"python -m vthreads {name}", description=description)
    parser.add_argument("pid", metavar="PID", type=int, nargs="?" if name == "ps" else None, help="the process")
    return parser


def ps(arguments: Sequence[str]) -> int:
    """List the virtual threads of a process, or the processes that can be asked; the exit status."""
    parser = _parser("ps", "List the virtual threads of process PID; without one, the processes that can be asked.")
    options = parser.parse_args(arguments)
    rows = _processes() if options.pid is None else _threads(answer_of(options.pid, "dump", stacks=False))
    for line in _columns(list(rows)):
        print(line)
    return 0


def pstree(arguments: Sequence[str]) -> int:
    """Print the tree of threads, scopes and groups of a process; the exit status."""
    options = _parser("pstree", "Print the tree of threads, scopes and groups of process PID.").parse_args(arguments)
    print(render(answer_of(options.pid, "dump", stacks=False), stacks=False), end="")
    return 0


def dump(arguments: Sequence[str]) -> int:
    """Print what `vthreads.dump` returns in a process; the exit status."""
    parser = _parser("dump", "Print the tree of process PID, with the stacks: vthreads.dump() of that process.")
    parser.add_argument("--json", action="store_true", help="as JSON: docs/reference/dump.md")
    options = parser.parse_args(arguments)
    data = answer_of(options.pid, "dump")
    print(json.dumps(data, indent=1) if options.json else render(data), end="\n" if options.json else "")
    return 0


def _processes() -> Iterator[list[str]]:
    forget_dead()
    yield ["PID", "COMMAND"]
    for pid in sorted(pids()):
        try:
            command = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
        except OSError:
            # It has just ended, or this system has no such files.
            command = "?"
        yield [str(pid), command]


def _threads(data: Data) -> Iterator[list[str]]:
    yield ["CARRIER", "IDENT", "STATE", "FOR", "NAME", "FUNCTION", "WHAT"]
    for carrier in data["carriers"]:
        name = carrier["os_thread"]["name"] + (" (pinned)" if carrier["pinned"] else "")
        for node in carrier["tree"]:
            if node["type"] == "thread":
                parked_for, wait = node["parked_for"], node["waits_for"]
                yield [
                    name,
                    str(node["ident"]),
                    node["state"],
                    "" if parked_for is None else duration(parked_for),
                    node["name"],
                    node["function"] or "",
                    "" if wait is None else describe_wait(wait),
                ]


def _columns(rows: list[list[str]]) -> Iterator[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        yield "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
