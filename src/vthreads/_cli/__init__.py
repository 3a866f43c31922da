"""The command `vthreads`, also `python -m vthreads`: a table of subcommands.

A subcommand gets the arguments that follow its name, parses them itself, and returns an exit status.
"""

from __future__ import annotations

import argparse
import os
import platform
import signal
import sys
import threading
from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

from .._core.carrier_end import finish_process
from .._core.engine import engine_name
from . import inspect as looking
from . import run

__all__ = ["COMMANDS", "main"]


class Command(NamedTuple):
    """A subcommand: its summary for `--help`, and its function."""

    summary: str
    main: Callable[[Sequence[str]], int]


def _demo(arguments: Sequence[str]) -> int:
    # Run it as a main program, not as a part of this package: its `spawn` calls then count as user code in dumps.
    return run.execute(partial(run.module, "vthreads._cli.demo"), arguments)


def _top(arguments: Sequence[str]) -> int:
    # `top` needs an optional library, which the other commands do not need.
    from . import top

    return top.main(arguments)


def _serve(arguments: Sequence[str]) -> int:
    # `serve` needs optional libraries too, and most programs do not serve.
    from . import serve

    return serve.main(arguments)


def _check(arguments: Sequence[str]) -> int:
    # Programs that are only run need not import it.
    from . import check

    return check.main(arguments)


COMMANDS = {
    "run": Command("run a script, module or piece of code on virtual threads", run.main),
    "check": Command("import a program, and report what of it will not park", _check),
    "serve": Command("serve a WSGI application over HTTP", _serve),
    "ps": Command("list the virtual threads of a running process", looking.ps),
    "pstree": Command("print the tree of threads and groups of a running process", looking.pstree),
    "dump": Command("print the tree of a running process with all stacks, or as JSON", looking.dump),
    "top": Command("show the load of a running process, refreshed regularly", _top),
    "demo": Command("download 1,000 URLs at once, then again with one that fails", _demo),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run the subcommand that `argv` (None: the arguments of this process) names; return its exit status.

    Without arguments, print the help.
    """
    width = max(map(len, COMMANDS))
    rows = (f"  {name:{width}}  {command.summary}" for name, command in COMMANDS.items())
    parser = argparse.ArgumentParser(
        prog="python -m vthreads",
        usage="%(prog)s COMMAND [ARGUMENTS ...]",
        description="Virtual threads for Python.",
        epilog="\n".join(["commands:", *rows]),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action=_Version, help="print the versions of vthreads, its engine and Python")
    parser.add_argument("command", metavar="COMMAND", choices=COMMANDS, help="one of the commands below")
    parser.add_argument("arguments", metavar="ARGUMENTS", nargs=argparse.REMAINDER, help="see COMMAND --help")
    given = sys.argv[1:] if argv is None else argv
    if not given:
        parser.print_help()
        return 0
    options = parser.parse_args(given)
    status = COMMANDS[options.command].main(options.arguments)
    if status == run.INTERRUPTED and sys.platform != "win32":
        _die_of_interrupt()
    return status


class _Version(argparse.Action):
    """Print the versions and exit. They are determined here, because no other command needs them."""

    def __init__(self, option_strings: Sequence[str], dest: str, help: str) -> None:
        super().__init__(option_strings, dest, nargs=0, help=help)

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        from .. import __version__

        print(f"vthreads {__version__}, {engine_name} engine, Python {platform.python_version()}")
        parser.exit()


def _die_of_interrupt() -> None:
    """End by SIGINT, as Python does after a `KeyboardInterrupt`, so that a shell stops a loop that runs the command."""
    threading._shutdown()  # type: ignore[attr-defined]  # not in the type stubs
    finish_process()
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    os.kill(os.getpid(), signal.SIGINT)
