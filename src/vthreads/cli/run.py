"""`vthreads run`: a program as Python would run it, with the runtime started.

The program is the root virtual thread: its blocking calls park, and what it spawned in the background is joined before
the process ends. `__main__`, `sys.argv` and `sys.path[0]` are what `python` with the same arguments would make them.
"""

from __future__ import annotations

import argparse
import builtins
import importlib.util
import io
import os
import pkgutil
import sys
from collections.abc import Callable, Sequence
from functools import partial
from importlib.machinery import ModuleSpec
from math import inf
from types import CodeType, ModuleType
from typing import Any, NamedTuple

from .._core.runtime import current_thread, run
from .._core.spawn_site import is_own_frame
from ..debug import watch_stalls
from ..debug.serving import serve
from ..patching import patch

__all__ = ["code", "execute", "main", "module", "script"]

# What a shell reports of a process that SIGINT (2) has ended.
INTERRUPTED = 128 + 2


class Program(NamedTuple):
    """What is to be executed as `__main__`."""

    code: CodeType
    argv0: str
    file: str | None = None
    spec: ModuleSpec | None = None


def main(arguments: Sequence[str]) -> int:
    """Run the program that `arguments` name; its exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m vthreads run",
        usage="%(prog)s [--threads] [--preempt SECONDS] [--debug] (SCRIPT | -m MODULE | -c CODE) [ARGUMENTS ...]",
        description="Run blocking Python code on virtual threads. Everything after the program is given to it.",
    )
    parser.add_argument("--threads", action="store_true", help="threading.Thread starts virtual threads, too")
    parser.add_argument(
        "--preempt", type=_seconds, metavar="SECONDS", help="let others run when one has computed for so long (0.01)"
    )
    parser.add_argument(
        "--debug",
        action="store_true",
        help="report what keeps others waiting for 0.1 s, and let `vthreads top` and its like look into the process",
    )
    parser.add_argument("script", metavar="SCRIPT", nargs=argparse.REMAINDER, help="a file, directory or zip file")
    parser.add_argument("-m", dest="module", metavar="MODULE", nargs=argparse.REMAINDER, help="a module, by its name")
    parser.add_argument("-c", dest="code", metavar="CODE", nargs=argparse.REMAINDER, help="the program itself")
    options = parser.parse_args(arguments)
    if options.debug:
        watch_stalls()
        serve()
    for load, given in ((module, options.module), (code, options.code), (script, options.script)):
        if given:
            return execute(partial(load, given[0]), given[1:], threads=options.threads, preempt=options.preempt)
    return parser.error("name a script, a module after -m or code after -c")


def _seconds(text: str) -> float:
    seconds = float(text)
    if not 0 < seconds < inf:
        raise argparse.ArgumentTypeError(f"{text} is no number of seconds above 0")
    return seconds


def execute(
    load: Callable[[], Program], arguments: Sequence[str], *, threads: bool = False, preempt: float | None = None
) -> int:
    """Run the program that `load` finds as the root virtual thread; the exit status. `SystemExit` is let through.

    Args:
        load: finds the program.
        arguments: what the program is given.
        threads: as for `patch`. The runtime then lasts until the interpreter's exit has told the pools to end, whose
            threads would never end otherwise.
        preempt: as for `run`.
    """
    try:
        if not threads:
            return run(_root, load, arguments, preempt=preempt)
        patch(threads=True, preempt=preempt)
        current_thread()
        return _root(load, arguments)
    except SystemExit:
        raise
    except KeyboardInterrupt:
        # The traceback has been shown where it came out of the program.
        if threads:
            current_thread().scheduler.background.cancel("KeyboardInterrupt in the main program")
        return INTERRUPTED
    except BaseException as error:  # noqa: BLE001  shown: it came while the background was joined
        _show(error)
        return 1


def _root(load: Callable[[], Program], arguments: Sequence[str]) -> int:
    try:
        program = load()
        exec(program.code, _as_main(program, arguments).__dict__)
    except SystemExit:
        raise
    except BaseException as error:  # shown at once, and not after a background thread that may run for long
        _show(error)
        if isinstance(error, KeyboardInterrupt):
            # It cancels the background.
            raise
        return 1
    return 0


def _as_main(program: Program, arguments: Sequence[str]) -> ModuleType:
    main_module = ModuleType("__main__")
    spec = program.spec
    attributes: dict[str, Any] = {
        "__builtins__": builtins,
        "__loader__": None if spec is None else spec.loader,
        "__package__": None if spec is None else spec.parent,
        "__spec__": spec,
    }
    if program.file is not None:
        attributes |= {"__file__": program.file, "__cached__": None if spec is None else spec.cached}
    vars(main_module).update(attributes)
    sys.modules["__main__"] = main_module
    sys.argv[:] = [program.argv0, *arguments]
    return main_module


def _show(error: BaseException) -> None:
    """Report `error` as the interpreter would, from the program's first frame on."""
    traceback = error.__traceback__
    while traceback is not None and (is_own_frame(traceback.tb_frame) or _is_import_machinery(traceback.tb_frame)):
        traceback = traceback.tb_next
    error.__traceback__ = traceback
    sys.excepthook(type(error), error, traceback)


def _is_import_machinery(frame: Any) -> bool:
    return str(frame.f_globals.get("__name__", "")).partition(".")[0] in ("importlib", "pkgutil")


# --- where programs come from


def script(path: str) -> Program:
    """Find the program in the file, directory or zip file `path`."""
    importer = pkgutil.get_importer(path)
    if importer is not None:
        # A directory or zip file: it is put on the path itself, and its `__main__` runs.
        _import_first_from(path)
        return _found(importer.find_spec("__main__"), f"{path!r} holds no __main__ module", argv0=path)
    file = os.path.abspath(path)
    try:
        with io.open_code(file) as source:
            text = source.read()
    except OSError as error:
        print(f"{sys.executable}: can't open file {file!r}: {error}", file=sys.stderr)
        raise SystemExit(2) from None
    _import_first_from(os.path.dirname(os.path.realpath(path)))
    return Program(compile(text, file, "exec", dont_inherit=True), path, file)


def module(name: str) -> Program:
    """Find the module `name`, of a package its `__main__`."""
    _import_first_from(os.getcwd())
    spec = importlib.util.find_spec(name)
    if spec is not None and spec.submodule_search_locations is not None:
        spec = importlib.util.find_spec(f"{name}.__main__")
    return _found(spec, f"No module named {name!r} that can be executed")


def code(text: str) -> Program:
    """Take `text` as the program."""
    _import_first_from("")
    return Program(compile(text, "<string>", "exec", dont_inherit=True), "-c")


def _found(spec: ModuleSpec | None, complaint: str, argv0: str | None = None) -> Program:
    get_code = getattr(spec and spec.loader, "get_code", None)
    found = None if spec is None or get_code is None else get_code(spec.name)
    if spec is None or found is None:
        print(f"{sys.executable}: {complaint}", file=sys.stderr)
        raise SystemExit(1)
    return Program(found, argv0 or spec.origin or spec.name, spec.origin, spec)


def _import_first_from(path: str) -> None:
    # With `python -P` nothing of the kind is put on the path, so there is nothing to exchange.
    if not sys.flags.safe_path:
        sys.path[0] = path
