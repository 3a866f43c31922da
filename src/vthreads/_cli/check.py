"""`vthreads check`: import a program, and report what of it will not park on virtual threads.

The program is imported, not run: `__name__` is not "__main__". Then the standard library is patched. Findings are
objects that the patch cannot exchange, originals inside tuples, calls that the program or another library has replaced,
drivers that wait in C, and event loops that cannot share a carrier. Modules that the program imports later, and the
calls that it makes, are not seen.

All of this happens in a child process, which is killed afterwards: a program may start at its import what never ends.
"""

from __future__ import annotations

import argparse
import ast
import linecache
import os
import re
import sys
import traceback
import warnings
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import chain
from pathlib import Path
from types import CodeType, ModuleType
from typing import Any

from .._core.exceptions import traceback_of
from .._core.replaced import latest
from .._patching import leftovers, patch
from .._patching.foreign import derived_classes, is_foreign, monkey_patches, refuse_foreign
from . import run
from .supervised import Outcome, supervise

__all__ = ["main"]

PATCH_FIRST = "call vthreads.patch() before it is"

# Modules whose C code waits by itself, by the name that a program imports, with the remedy.
OFFLOAD = "call it with vthreads.offload(fn, *args)"
PINNING = {
    "MySQLdb": f"mysqlclient waits in C: {OFFLOAD}, or use PyMySQL",
    "_mysql_connector": f"the C extension of mysql-connector waits in C: {OFFLOAD}, or connect with use_pure=True",
    "confluent_kafka": f"librdkafka waits in C: {OFFLOAD}, or poll with timeout 0",
    "cx_Oracle": f"cx_Oracle waits in C: {OFFLOAD}, or use oracledb in its thin mode",
    "duckdb": f"queries compute in C: {OFFLOAD}",
    "grpc": f"gRPC waits in C: {OFFLOAD}",
    "ibm_db": f"ibm_db waits in C: {OFFLOAD}",
    "pycurl": f"Curl.perform waits in C: {OFFLOAD}, or use requests or httpx",
    "pymssql": f"FreeTDS waits in C: {OFFLOAD}",
    "pyodbc": f"ODBC drivers wait in C: {OFFLOAD}",
    "rocksdb": f"RocksDB reads files in C: {OFFLOAD}",
    "sqlite3": f"SQLite waits for locks and reads files in C: {OFFLOAD}, with cancel=connection.interrupt",
    "zmq": f"libzmq waits in C: {OFFLOAD}, or wait for the descriptor of the socket",
}

# Event loops, schedulers and patches that want the OS thread, or the standard library, for themselves.
LOOPS = {
    "PyQt5.QtCore": "the loop of Qt cannot share a carrier: run virtual threads on another OS thread",
    "PyQt6.QtCore": "the loop of Qt cannot share a carrier: run virtual threads on another OS thread",
    "PySide6.QtCore": "the loop of Qt cannot share a carrier: run virtual threads on another OS thread",
    "eventlet.hubs": "the hub of eventlet cannot share a carrier: replace the calls of eventlet",
    "gevent.hub": "the hub of gevent cannot share a carrier: replace the calls of gevent",
    "tkinter": "the loop of Tk cannot share a carrier: run virtual threads on another OS thread",
    "trio": "the loop of Trio cannot share a carrier: run it on another OS thread, with vthreads.offload",
    "twisted.internet.reactor": "only the reactor of asyncio can share a carrier: call asyncioreactor.install() first",
}
# A reactor that runs on a loop of asyncio is a guest as that loop is.
GUEST_REACTOR = "twisted.internet.asyncioreactor"


# Folders of modules that others import when they first use them: this package, and the standard library.
PACKAGE_FOLDER = os.path.join(os.path.dirname(os.path.dirname(__file__)), "")
STANDARD_FOLDER, INSTALLED_FOLDER = os.path.join(os.path.dirname(os.__file__), ""), f"{os.sep}site-packages{os.sep}"

# The exit statuses: nothing found, something found, and not completely checked.
CLEAN, FOUND, INCOMPLETE = 0, 1, 2

# For failures of the import with a common cause: what to do.
UNDER_MAIN = 'move it under `if __name__ == "__main__":`'
REMEDIES: dict[type[BaseException], str] = {
    ModuleNotFoundError: "install it into this environment",
    ImportError: "for a module of a package use -m, as in -m package.module",
    EOFError: f"standard input is empty during the check; {UNDER_MAIN}",
    SystemExit: UNDER_MAIN,
}


def main(arguments: Sequence[str]) -> int:
    """Check the program that `arguments` name; return the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m vthreads check",
        usage="%(prog)s [--timeout SECONDS] (SCRIPT | -m MODULE)",
        description="Import a program and report what of it will not park on virtual threads. The program is imported "
        "with a __name__ other than __main__, so its main part does not run. It gets no input, its output goes to "
        "standard error, and what it has started ends with the check. The exit status is 0 if nothing was found, 1 for "
        "a finding, and 2 if the program could not be checked completely, for example because its import failed.",
    )
    parser.add_argument(
        "--timeout", type=run.seconds, metavar="SECONDS", default=60.0, help="the longest time for the import (60)"
    )
    program = parser.add_mutually_exclusive_group(required=True)
    program.add_argument("script", metavar="SCRIPT", nargs="?", help="file, directory or zip file to import")
    program.add_argument("-m", dest="module", metavar="MODULE", help="name of a module to import")
    options = parser.parse_args(arguments)
    if options.module is None:
        load, name = partial(run.script, options.script), Path(options.script).resolve().stem
    else:
        load, name = partial(run.module, options.module, is_imported=True), options.module
    try:
        return _report(supervise(partial(_check, load, name), options.timeout), options.timeout)
    except KeyboardInterrupt:
        return run.INTERRUPTED


def _report(outcome: Outcome, seconds: float) -> int:
    """Print what the child process has sent, and how it ended; return the exit status."""
    findings, modules, incomplete = 0, None, outcome.failure is not None
    for kind, value in outcome.sent:
        if kind == "not found":
            return INCOMPLETE
        if kind == "imported":
            modules = value
            continue
        print(value)
        findings += kind == "finding"
        incomplete = incomplete or kind == "failed"
    if outcome.failure is not None:
        print(_ending(outcome, seconds, "import" if modules is None else "search"))
    number = "1 finding" if findings == 1 else f"{findings} findings"
    where = "the program" if modules is None else "1 imported module" if modules == 1 else f"{modules} imported modules"
    print(f"{number} in {where}" + ("; the check is not complete" if incomplete else ""))
    return INCOMPLETE if incomplete else FOUND if findings else CLEAN


def _ending(outcome: Outcome, seconds: float, step: str) -> str:
    """Why there is no complete report."""
    if outcome.failure != "over time":
        return f"{step} ended: the process of the program {outcome.failure} during the {step}"
    limit = f"{step} not finished after {seconds:g} s"
    for entry in outcome.stack:
        place = re.fullmatch(r'"(.*)", line (\d+) in <module>', entry)
        if place is not None and step == "import" and _is_of_program(place[1]):
            line = linecache.getline(place[1], int(place[2])).strip()
            return f"{limit}: {_short(place[1])}:{place[2]}: `{line}`; {UNDER_MAIN}, or allow more time with --timeout"
    advice = f"; if it never ends, {UNDER_MAIN}" if step == "import" else ""
    return f"{limit}; allow more time with --timeout{advice}"


def _is_of_program(path: str) -> bool:
    is_standard = path.startswith(STANDARD_FOLDER) and INSTALLED_FOLDER not in path
    return not is_standard and not path.startswith((PACKAGE_FOLDER, "<"))


# --- in the child process


# The name of the program's module during the check. Messages have the name of the program instead.
CHECKED = "__checked__"


def _check(load: Callable[[], run.Program], name: str, send: Callable[[Any], None]) -> None:
    """Import and search the program. Send findings, a failure of the import, and the number of modules."""

    def say(kind: str, text: str) -> None:
        send([kind, text.replace(CHECKED, name)])

    leftovers.most_shown = sys.maxsize
    captured = _captured_early()
    # The modules that the commands themselves have imported are not the program's.
    before, replaced = dict(sys.modules), list[str]()
    try:
        try:
            _import(load())
        finally:
            # First, because a failure is shown with modules that are imported then.
            replaced.extend(_restored(before))
    except BaseException as error:  # noqa: BLE001  shown; what was imported until then is searched
        place = _place_of(error)
        if place is None and isinstance(error, SystemExit):
            # There is no such program; the message was printed.
            send(["not found", error.code])
            return
        say("failed", _failure(error, place or "import"))
    imported = set(sys.modules) - before.keys()
    send(["imported", len(imported)])
    for finding in chain(replaced, _patched(imported)):
        say("finding", finding)
    for finding in [*captured, *_in_tuples(imported), *_known(imported)]:
        say("finding", finding)


def _import(program: run.Program) -> None:
    """Execute the top level of the program as a module with a name that no other one has."""
    module = ModuleType(CHECKED)
    module.__spec__ = program.spec
    module.__package__ = None if program.spec is None else program.spec.parent
    if program.file is not None:
        module.__file__ = program.file
    sys.modules[CHECKED] = module
    sys.argv[:] = [program.argv0]
    exec(program.code, module.__dict__)


def _failure(error: BaseException, place: str) -> str:
    """Print the traceback of a failed import; return its last line with what to do."""
    if not isinstance(error, SystemExit):
        run.show(error)
    last = traceback.format_exception_only(type(error), error)[-1].strip()
    remedy = next((f"; {remedy}" for kind, remedy in REMEDIES.items() if isinstance(error, kind)), "")
    if type(error) is ImportError and "relative import" not in str(error):
        remedy = ""
    return f"import failed: {place}: {last}{remedy}"


def _place_of(error: BaseException) -> str | None:
    """The statement at the top level of a module that has failed; None if there is none."""
    if isinstance(error, SyntaxError) and error.filename is not None:
        return f"{_short(error.filename)}:{error.lineno}"
    place, entry = None, traceback_of(error)
    while entry is not None:
        code = entry.tb_frame.f_code
        if code.co_name == "<module>":
            place = f"{_short(code.co_filename)}:{entry.tb_lineno}"
        entry = entry.tb_next
    return place


def _short(file: str) -> str:
    """`file` relative to the current folder, if it is inside."""
    try:
        return str(Path(file).relative_to(Path.cwd()))
    except (ValueError, OSError):
        return file


# --- findings


def _captured_early() -> list[str]:
    """Return a list of findings that grows by the objects of each warning about those that a patch did not exchange.

    The program may have started the runtime, and so patched, at its import.
    """
    findings: list[str] = []
    show = warnings.showwarning

    def show_or_keep(message: Warning | str, category: type[Warning], *place: Any, **options: Any) -> None:
        heading, *things = str(message).splitlines() or [""]
        if not issubclass(category, RuntimeWarning) or "vthreads could not exchange" not in heading:
            show(message, category, *place, **options)
        else:
            findings.extend(f"captured early: {thing.strip()}; {PATCH_FIRST} made" for thing in things)

    warnings.showwarning = show_or_keep
    return findings


def _restored(before: dict[str, ModuleType]) -> Iterator[str]:
    """Restore the standard library's modules that were imported before; yield those that the program has replaced.

    The search and the patch import them again by name.
    """
    for name, module in before.items():
        now = sys.modules.get(name, module)
        if now is not module and name.partition(".")[0] in sys.stdlib_module_names:
            sys.modules[name] = module
            yield f"replaced by the program: sys.modules[{name!r}] is {now!r}; {PATCH_FIRST} replaced"


def _patched(modules: set[str]) -> Iterator[str]:
    """Patch the standard library; yield what the program or another library has put into it before."""
    libraries = list(monkey_patches())
    for library, changed, call in libraries:
        places = ", ".join(_places_of_patch(library, modules))
        yield (
            f"patched by another library: {library} has patched {', '.join(changed)}: remove the call of {call}"
            f"{f' in {places}' if places else ''}, then check again"
        )
    if libraries:
        return
    try:
        refuse_foreign()
    except RuntimeError as error:
        yield f"cannot be patched: {error}"
        return
    yield from _replaced()
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        patch()


def _places_of_patch(library: str, modules: set[str]) -> Iterator[str]:
    """Yield the places of calls such as `patch_all()` in the imported modules that use the library."""
    for name in sorted(modules):
        file = getattr(sys.modules.get(name), "__file__", None)
        if not file or name.partition(".")[0] == library:
            continue
        try:
            text = Path(file).read_text()
            tree = ast.parse(text) if library in text else ast.Module([], [])
        except (OSError, ValueError, SyntaxError):
            # It is not Python, or in an archive.
            continue
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and re.search(r"\b(patch_\w+|monkey_patch)$", ast.unparse(node.func)):
                yield f"{_short(file)}:{node.lineno}"


def _replaced() -> Iterator[str]:
    """Yield the calls and classes of the standard library that are replaced."""
    from .._patching.table import functions, importable

    found = [(each.holder.__name__, each.name) for each in functions(importable() & sys.modules.keys())]
    for module, name in found:
        call = getattr(sys.modules.get(module), name, None)
        if callable(call) and is_foreign(call, module):
            code = getattr(call, "__code__", None)
            place = f" of {_short(code.co_filename)}:{code.co_firstlineno}" if isinstance(code, CodeType) else ""
            yield f"replaced by the program: {module}.{name} is {call!r}{place}, which is lost; {PATCH_FIRST} replaced"
    for module, name, cls in derived_classes():
        yield f"replaced by the program: {module}.{name} is {cls!r}; {PATCH_FIRST} replaced"


def _in_tuples(modules: set[str]) -> Iterator[str]:
    """Yield the originals in tuples and frozensets of modules and classes, which cannot be changed."""
    for name in sorted(modules):
        module = sys.modules.get(name)
        if not isinstance(module, ModuleType) or name.partition(".")[0] in sys.stdlib_module_names:
            continue
        for key, value in list(vars(module).items()):
            yield from _in_value(f"{name}.{key}", value)
            if isinstance(value, type) and value.__module__ == name:
                for attribute, inner in list(vars(value).items()):
                    yield from _in_value(f"{name}.{key}.{attribute}", inner)


def _in_value(where: str, value: Any, depth: int = 3) -> Iterator[str]:
    """Yield the originals in tuples inside `value`, which may be a container of containers."""
    is_fixed = type(value) in (tuple, frozenset)
    if depth == 0 or not is_fixed and type(value) not in (dict, list, set):
        return
    for item in list(value.values() if type(value) is dict else value):
        if is_fixed and latest(item) is not item:
            yield f"captured early: {where} contains the original {item!r}; {PATCH_FIRST} made"
        yield from _in_value(where, item, depth - 1)


def _known(modules: set[str]) -> Iterator[str]:
    """Yield what the tables say about the imported modules."""
    for name in sorted(modules & PINNING.keys()):
        yield f"pins its carrier: {name}: {PINNING[name]}"
    for name in sorted(modules & LOOPS.keys()):
        if name != "twisted.internet.reactor" or GUEST_REACTOR not in modules:
            yield f"cannot be shared: {name}: {LOOPS[name]}"
