"""`vthreads check`: import a program, and report what of it will not park on virtual threads.

The program is imported, not run: `__name__` is not "__main__". Then the standard library is patched. Findings are
objects that the patch cannot exchange, originals inside tuples, drivers that wait in C, and event loops that cannot
share a carrier. Modules that the program imports later, and the calls that it makes, are not seen.
"""

from __future__ import annotations

import argparse
import sys
import warnings
from collections.abc import Iterator, Sequence
from types import ModuleType
from typing import Any

from .._core.replaced import latest
from .._patching import patch
from . import run

__all__ = ["main"]

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
    "eventlet.hubs": "the hub of eventlet cannot share a carrier: remove eventlet.monkey_patch()",
    "gevent.hub": "the hub of gevent cannot share a carrier: remove gevent.monkey.patch_all()",
    "tkinter": "the loop of Tk cannot share a carrier: run virtual threads on another OS thread",
    "trio": "the loop of Trio cannot share a carrier: run it on another OS thread, with vthreads.offload",
    "twisted.internet.reactor": "only the reactor of asyncio can share a carrier: call asyncioreactor.install() first",
}
# A reactor that runs on a loop of asyncio is a guest as that loop is.
GUEST_REACTOR = "twisted.internet.asyncioreactor"


def main(arguments: Sequence[str]) -> int:
    """Check the program that `arguments` name; return 0 if nothing was found, 1 otherwise."""
    parser = argparse.ArgumentParser(
        prog="python -m vthreads check",
        usage="%(prog)s (SCRIPT | -m MODULE)",
        description="Import a program and report what of it will not park on virtual threads. The program is imported "
        "with a __name__ other than __main__, so its main part does not run. The exit status is 1 for a finding.",
    )
    program = parser.add_mutually_exclusive_group(required=True)
    program.add_argument("script", metavar="SCRIPT", nargs="?", help="file, directory or zip file to import")
    program.add_argument("-m", dest="module", metavar="MODULE", help="name of a module to import")
    options = parser.parse_args(arguments)
    # The modules that the commands themselves have imported are not the program's.
    before = set(sys.modules)
    _import(run.script(options.script) if options.module is None else run.module(options.module))
    imported = set(sys.modules) - before
    findings = [*_not_exchanged(), *_in_tuples(imported), *_known(imported)]
    for finding in findings:
        print(finding)
    modules = "1 finding" if len(findings) == 1 else f"{len(findings)} findings"
    print(f"{modules} in {len(imported)} imported modules")
    return 1 if findings else 0


def _import(program: run.Program) -> None:
    """Execute the top level of the program as the module `__checked__`."""
    module = ModuleType("__checked__")
    module.__spec__ = program.spec
    module.__package__ = None if program.spec is None else program.spec.parent
    if program.file is not None:
        module.__file__ = program.file
    sys.modules["__checked__"] = module
    sys.argv[:] = [program.argv0]
    exec(program.code, module.__dict__)


def _not_exchanged() -> Iterator[str]:
    """Patch, and yield the objects of the warning about those that the patch could not exchange."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        patch()
    for warning in caught:
        if issubclass(warning.category, RuntimeWarning) and "vthreads could not exchange" in str(warning.message):
            for line in str(warning.message).splitlines()[1:]:
                yield f"captured early: {line.strip()}; call vthreads.patch() before it is made"


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


def _in_value(where: str, value: Any) -> Iterator[str]:
    if type(value) in (tuple, frozenset):
        for item in value:
            if latest(item) is not item:
                yield f"captured early: {where} contains the original {item!r}; call vthreads.patch() before it is made"


def _known(modules: set[str]) -> Iterator[str]:
    """Yield what the tables say about the imported modules."""
    for name in sorted(modules & PINNING.keys()):
        yield f"pins its carrier: {name}: {PINNING[name]}"
    for name in sorted(modules & LOOPS.keys()):
        if name != "twisted.internet.reactor" or GUEST_REACTOR not in modules:
            yield f"cannot be shared: {name}: {LOOPS[name]}"
