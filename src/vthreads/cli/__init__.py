"""The command `vthreads`, also `python -m vthreads`: a table of subcommands.

A subcommand takes the arguments that follow its name and answers with an exit status; it parses them by itself.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

from . import bench, looking, run

__all__ = ["COMMANDS", "main"]


class Command(NamedTuple):
    """What a subcommand does, in a few words, and the function that does it."""

    summary: str
    main: Callable[[Sequence[str]], int]


def _demo(arguments: Sequence[str]) -> int:
    # As the main program and not as a part of this package: its calls of `spawn` are the user's, and shown as such.
    return run.execute(partial(run.module, "vthreads.cli.demo"), arguments)


def _top(arguments: Sequence[str]) -> int:
    # Its library is an extra, which the other commands do without.
    from . import top

    return top.main(arguments)


COMMANDS = {
    "run": Command("run a script, module or piece of code on virtual threads", run.main),
    "bench": Command(
        "measure what operations cost, beside asyncio, uvloop, trio, gevent, OS threads and C", bench.main
    ),
    "ps": Command("list the virtual threads of a running process", looking.ps),
    "pstree": Command("print the tree of threads and groups of a running process", looking.pstree),
    "dump": Command("print the tree of a running process with all stacks, or as JSON", looking.dump),
    "top": Command("show how busy a running process is, again and again", _top),
    "demo": Command("download 1,000 URLs at once, then again with one that fails", _demo),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run the subcommand that `argv` (None: the arguments of this process) begins with; its exit status."""
    width = max(map(len, COMMANDS))
    rows = (f"  {name:{width}}  {command.summary}" for name, command in COMMANDS.items())
    parser = argparse.ArgumentParser(
        prog="python -m vthreads",
        usage="%(prog)s COMMAND [ARGUMENTS ...]",
        description="Virtual threads for Python.",
        epilog="\n".join(["commands:", *rows]),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("command", metavar="COMMAND", choices=COMMANDS, help="one of those below")
    parser.add_argument("arguments", metavar="ARGUMENTS", nargs=argparse.REMAINDER, help="told by COMMAND --help")
    options = parser.parse_args(argv)
    return COMMANDS[options.command].main(options.arguments)
