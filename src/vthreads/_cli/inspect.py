"""`vthreads ps`, `pstree` and `dump`: print once what the virtual threads of another process do."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from functools import wraps
from pathlib import Path
from typing import Any

from ..debug._client import HOW_TO_ANSWER, NotServing, ask_process
from ..debug._socket_path import forget_dead, pids
from ..debug._text import describe_wait, duration, render

__all__ = ["answer_of", "dump", "for_pipes", "ps", "pstree"]

Data = dict[str, Any]
Command = Callable[[Sequence[str]], int]


def for_pipes(command: Command) -> Command:
    """Wrap `command` to end without an error message if the reader of its output ends first, as `head` does."""

    @wraps(command)
    def run(arguments: Sequence[str]) -> int:
        try:
            status = command(arguments)
            sys.stdout.flush()
        except BrokenPipeError:
            # Redirect stdout, because flushing the rest of the buffer at exit would raise again.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return 1
        return status

    return run


def answer_of(pid: int, ask: str, **options: Any) -> Any:
    """Return the answer of process `pid`; end this process with a message if there is none."""
    try:
        return ask_process(pid, ask, **options)
    except NotServing as refusal:
        sys.exit(f"vthreads: {refusal}")


def _parser(name: str, description: str) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog=f"python -m vthreads {name}", description=description)
    parser.add_argument("pid", metavar="PID", type=int, nargs="?" if name == "ps" else None, help="process to inspect")
    parser.add_argument(
        "--limit", metavar="N", type=_positive, help="show at most N threads, scopes and groups per carrier (all)"
    )
    return parser


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text} is not a number >= 1")
    return number


@for_pipes
def ps(arguments: Sequence[str]) -> int:
    """List the virtual threads of a process, or the processes that can be inspected; return the exit status."""
    parser = _parser("ps", "List the virtual threads of process PID; without PID, the processes that can be inspected.")
    options = parser.parse_args(arguments)
    if options.pid is None:
        rows = list(_processes())
        if len(rows) == 1:
            # Scripts that read the list get its heading and nothing else.
            print(
                f"vthreads: no process of this user answers ps, dump and top. To inspect a process, {HOW_TO_ANSWER}",
                file=sys.stderr,
            )
    else:
        rows = list(_threads(answer_of(options.pid, "dump", stacks=False, limit=options.limit)))
    for line in _columns(rows):
        print(line)
    return 0


@for_pipes
def pstree(arguments: Sequence[str]) -> int:
    """Print the tree of threads, scopes and groups of a process; return the exit status."""
    options = _parser("pstree", "Print the tree of threads, scopes and groups of process PID.").parse_args(arguments)
    data = answer_of(options.pid, "dump", stacks=False, fold=True, limit=options.limit)
    print(render(data, stacks=False), end="")
    return 0


@for_pipes
def dump(arguments: Sequence[str]) -> int:
    """Print the result of `vthreads.dump` in a process; return the exit status."""
    parser = _parser("dump", "Print the tree of process PID with all stacks, like vthreads.dump() in that process.")
    parser.add_argument("--json", action="store_true", help="print JSON (see docs/reference/dump.md)")
    options = parser.parse_args(arguments)
    data = answer_of(options.pid, "dump", fold=not options.json, limit=options.limit)
    print(json.dumps(data, indent=1) if options.json else render(data), end="\n" if options.json else "")
    return 0


def _processes() -> Iterator[list[str]]:
    forget_dead()
    yield ["PID", "COMMAND"]
    for pid in sorted(pids()):
        try:
            command = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
        except OSError:
            # The process has just ended, or this system has no /proc.
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
        if carrier["left_out"]:
            yield [name, "", "", "", f"{carrier['left_out']} more", "", "beyond the limit"]


def _columns(rows: list[list[str]]) -> Iterator[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        yield "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
