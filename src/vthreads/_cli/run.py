"""`vthreads run`: run a program as Python would, with the runtime started.

The program is the root virtual thread: its blocking calls park, and its background threads are joined before the
process ends. `__main__`, `sys.argv` and `sys.path[0]` are the same as with `python` and the same arguments.
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

from .._core.exceptions import set_traceback, traceback_of
from .._core.runtime import current_thread, run
from .._core.spawn_site import is_own_frame
from .._patching import patch
from ..debug import watch_stalls
from ..debug._server import serve

__all__ = ["code", "execute", "main", "module", "script", "seconds", "show"]

# The exit status by which a shell reports that SIGINT (2) has ended a process.
INTERRUPTED = 128 + 2


class Program(NamedTuple):
    """The code to execute as `__main__`."""

    code: CodeType
    argv0: str
    file: str | None = None
    spec: ModuleSpec | None = None


def main(arguments: Sequence[str]) -> int:
    """Run the program that `arguments` name; return its exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m vthreads run",
        usage="%(prog)s [--threads] [--preempt SECONDS] [--debug] (SCRIPT | -m MODULE | -c CODE) [ARGUMENTS ...]",
        description="Run blocking Python code on virtual threads. All arguments after the program are passed to it.",
    )
    parser.add_argument("--threads", action="store_true", help="make threading.Thread start virtual threads too")
    parser.add_argument(
        "--preempt", type=seconds, metavar="SECONDS", help="interrupt threads that compute for longer; try 0.01 (off)"
    )
    parser.add_argument(
        "--debug",
        action="store_true",
        help="report threads that block others for 0.1 s, and answer `python -m vthreads ps`, `dump` and `top`",
    )
    parser.add_argument("script", metavar="SCRIPT", nargs=argparse.REMAINDER, help="file, directory or zip file to run")
    parser.add_argument("-m", dest="module", metavar="MODULE", nargs=argparse.REMAINDER, help="name of a module to run")
    parser.add_argument("-c", dest="code", metavar="CODE", nargs=argparse.REMAINDER, help="Python code to run")
    options = parser.parse_args(arguments)
    if options.debug:
        watch_stalls()
        serve()
    for load, given in ((module, options.module), (code, options.code), (script, options.script)):
        if given:
            return execute(partial(load, given[0]), given[1:], threads=options.threads, preempt=options.preempt)
    return parser.error("no program given; name a script, a module after -m or code after -c")


def seconds(text: str) -> float:
    """Parse an option: a number of seconds > 0."""
    number = float(text)
    if not 0 < number < inf:
        raise argparse.ArgumentTypeError(f"{text} is not a number of seconds > 0")
    return number


def execute(
    load: Callable[[], Program], arguments: Sequence[str], *, threads: bool = False, preempt: float | None = None
) -> int:
    """Run the program that `load` finds as the root virtual thread; return its exit status. `SystemExit` propagates.

    Args:
        load: finds the program.
        arguments: arguments for the program.
        threads: as for `patch`. The runtime then lasts until the interpreter has shut down the thread pools at exit,
            because their threads would not end before.
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
        # The traceback was printed where the exception left the program.
        if threads:
            current_thread()._scheduler.background.cancel("KeyboardInterrupt in the main program")
        return INTERRUPTED
    except BaseException as error:  # noqa: BLE001  printed: it was raised while the background was joined
        show(error)
        return 1


def _root(load: Callable[[], Program], arguments: Sequence[str]) -> int:
    try:
        program = load()
        exec(program.code, _as_main(program, arguments).__dict__)
    except SystemExit:
        raise
    except BaseException as error:  # printed at once, because background threads may run for long
        show(error)
        if isinstance(error, KeyboardInterrupt):
            # Pass it on: it cancels the background.
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


def show(error: BaseException) -> None:
    """Print `error` as the interpreter would, from the first frame of the program on."""
    traceback = traceback_of(error)
    while traceback is not None and (is_own_frame(traceback.tb_frame) or _is_import_machinery(traceback.tb_frame)):
        traceback = traceback.tb_next
    set_traceback(error, traceback)
    sys.excepthook(type(error), error, traceback)


def _is_import_machinery(frame: Any) -> bool:
    return str(frame.f_globals.get("__name__", "")).partition(".")[0] in ("importlib", "pkgutil")


# --- where programs are found


def script(path: str) -> Program:
    """Find the program in the file, directory or zip file `path`."""
    importer = pkgutil.get_importer(path)
    if importer is not None:
        # A directory or zip file: it becomes `sys.path[0]`, and its `__main__` is executed.
        _import_first_from(path)
        return _found(importer.find_spec("__main__"), f"{path!r} contains no __main__ module", argv0=path)
    file = os.path.abspath(path)
    try:
        with io.open_code(file) as source:
            text = source.read()
    except OSError as error:
        print(f"{sys.executable}: can't open file {file!r}: {error}", file=sys.stderr)
        raise SystemExit(2) from None
    _import_first_from(os.path.dirname(os.path.realpath(path)))
    return Program(compile(text, file, "exec", dont_inherit=True), path, file)


def module(name: str, *, is_imported: bool = False) -> Program:
    """Find the module `name`, or the `__main__` of a package, which it does not need if it `is_imported`."""
    _import_first_from(os.getcwd())
    spec = importlib.util.find_spec(name)
    if spec is not None and spec.submodule_search_locations is not None:
        main = importlib.util.find_spec(f"{name}.__main__")
        if main is None and is_imported:
            return code(f"import {name}")
        spec = main
    return _found(spec, f"No module named {name!r} that can be executed")


def code(text: str) -> Program:
    """Return `text` as the program."""
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
    # With `python -P` there is no such entry in `sys.path`, so there is nothing to replace.
    if not sys.flags.safe_path:
        sys.path[0] = path
