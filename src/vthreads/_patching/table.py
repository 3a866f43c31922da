"""The table of replacements: which function or method replaces which original.

`functions()`: attributes of modules; all other references to the same original in the process are replaced as well.
`methods()`: attributes of classes, replaced in place, so that existing objects use them.

The rows of modules that a program may never import are in separate modules (`ON_IMPORT`). Each is imported when the
standard library's module is, because importing all of them doubled the time of the first group.
"""

from __future__ import annotations

import _queue
import _thread
import builtins
import concurrent.futures
import fcntl
import io
import linecache
import os
import queue
import select
import signal
import sys
import threading
import time
from collections.abc import Callable, Collection, Iterator
from importlib import import_module
from types import ModuleType
from typing import Any, NamedTuple

from .._calls import file_locks, signal_waits, signals
from .._calls.files import buffer_classes, opening, raw_class, reading, standard_input, transfers, writing
from .._calls.guards import checking_first, checking_if_blocking, never_raising, refusing_nan
from .._calls.net import closing, modes
from .._calls.net import select as net_select
from .._calls.processes import starting, waiting
from .._calls.standard_conditions import quick_version
from .._calls.standard_locks import ConditionWaiterLock, StandardLock, StandardRLock
from .._sync.local import StandardLocal
from .._sync.queues import SimpleQueue
from .._timeouts import sleep_here
from . import identity, imports, threads
from .replacing import MethodRow, always

__all__ = [
    "ON_IMPORT",
    "Replacement",
    "functions",
    "importable",
    "in_copy",
    "in_use",
    "methods",
    "thread_functions",
    "users_of",
]

# By module of the standard library: the module with its rows, and those that define the replacements. They import it,
# and are imported with it.
ON_IMPORT = {
    "socket": ("_patching.socket_table", "_calls.net.socket", "_calls.net.dns"),
    "ssl": ("_patching.ssl_table", "_calls.net.ssl"),
    "subprocess": ("_patching.subprocess_table", "_calls.processes.popen"),
}

PACKAGE = __name__.partition(".")[0]


class Replacement(NamedTuple):
    """`holder.name` becomes `new`. With `everywhere`, all other references to the original are replaced too."""

    holder: Any
    name: str
    new: Any
    everywhere: bool = True


def thread_functions() -> Iterator[Replacement]:
    """Replacements in modules that make the standard library's threads virtual threads."""
    for holder, name, new in THREADS:
        if hasattr(holder, name):
            yield Replacement(holder, name, new)


def functions(imported: Collection[str] = ON_IMPORT) -> Iterator[Replacement]:
    """Replacements in modules; of those in `ON_IMPORT`, only in the `imported` ones."""
    # The lock that the standard library's Condition waits with. The same original object has other names in this module
    # that need another replacement, so it is replaced by name and not by identity.
    yield Replacement(threading, "_allocate_lock", ConditionWaiterLock, everywhere=False)
    for holder, name, new in _module_attributes(imported):
        if hasattr(holder, name):
            yield Replacement(holder, name, new)


def _tables(imported: Collection[str]) -> Iterator[Any]:
    """Import and yield the modules that have the rows of the `imported` ones."""
    for name in sorted(ON_IMPORT.keys() & imported):
        try:
            yield import_module(f"{PACKAGE}.{ON_IMPORT[name][0]}")
        except ModuleNotFoundError:
            # This Python was built without OpenSSL.
            if name != "ssl":
                raise


def _module_attributes(imported: Collection[str]) -> Iterator[tuple[Any, str, Any]]:
    yield from MODULE_ATTRIBUTES
    for table in _tables(imported):
        yield from table.MODULE_ATTRIBUTES


MODULE_ATTRIBUTES: list[tuple[Any, str, Any]] = [
    (time, "sleep", sleep_here),
    # locks and identity
    (_thread, "allocate_lock", StandardLock),
    (_thread, "allocate", StandardLock),
    (threading, "Lock", StandardLock),
    (_thread, "RLock", StandardRLock),
    (threading, "_CRLock", StandardRLock),
    (_thread, "get_ident", identity.get_ident),
    (threading, "get_ident", identity.get_ident),
    (threading, "current_thread", identity.current_thread),
    (_thread, "_count", threads.count),
    (signal, "pthread_kill", identity.pthread_kill),
    (time, "pthread_getcpuclockid", identity.pthread_getcpuclockid),
    (_thread, "_local", StandardLocal),
    (threading, "local", StandardLocal),
    (_queue, "SimpleQueue", SimpleQueue),
    (queue, "SimpleQueue", SimpleQueue),
    # readiness
    (select, "select", net_select.select),
    (select, "poll", net_select.poll),
    (select, "epoll", net_select.Epoll),
    (select, "kqueue", net_select.Kqueue),
    # sockets and descriptors
    (os, "sendfile", transfers.sendfile),
    (io, "open", opening.open),
    (io, "FileIO", raw_class.FileIO),
    (io, "BufferedReader", buffer_classes.BufferedReader),
    (io, "BufferedWriter", buffer_classes.BufferedWriter),
    (io, "BufferedRandom", buffer_classes.BufferedRandom),
    (io, "BufferedRWPair", buffer_classes.BufferedRWPair),
    (builtins, "input", standard_input.input_here),
    (os, "open", opening.open_fd),
    (os, "read", reading.read),
    (os, "readv", reading.readv),
    (os, "pread", reading.pread),
    (os, "preadv", reading.preadv),
    (os, "eventfd_read", reading.eventfd_read),
    (os, "write", writing.write),
    (os, "writev", writing.writev),
    (os, "eventfd_write", writing.eventfd_write),
    (os, "splice", transfers.splice),
    (os, "copy_file_range", transfers.copy_file_range),
    (os, "close", closing.close),
    (os, "closerange", closing.closerange),
    (os, "dup2", closing.dup2),
    # processes
    (os, "wait", waiting.wait),
    (os, "waitpid", waiting.waitpid),
    (os, "wait3", waiting.wait3),
    (os, "wait4", waiting.wait4),
    (os, "waitid", waiting.waitid),
    (os, "system", starting.system),
    (os, "_spawnvef", starting.spawnvef),
    # file locks
    (fcntl, "flock", file_locks.flock),
    (fcntl, "lockf", file_locks.lockf),
    (fcntl, "fcntl", file_locks.fcntl),
    (os, "lockf", file_locks.lockf_from_position),
    # blocking mode
    (fcntl, "ioctl", modes.ioctl),
    (os, "set_blocking", modes.set_blocking),
    # A traceback is formatted with source lines. Reading them must not raise a cancellation, since a failure is also
    # shown in a cancelled thread.
    (linecache, "updatecache", never_raising(linecache.updatecache)),
    (imports.importing, "_lock_unlock_module", imports.lock_unlock_module),
    # signals
    (signal, "signal", signals.set_handler),
    (signal, "getsignal", signals.get_handler),
    (signal, "set_wakeup_fd", signals.set_wakeup_fd),
    (signal, "sigwait", signal_waits.sigwait),
    (signal, "sigwaitinfo", signal_waits.sigwaitinfo),
    (signal, "sigtimedwait", signal_waits.sigtimedwait),
    (signal, "pause", signal_waits.pause),
]

Future, Queue = concurrent.futures.Future, queue.Queue

# The leaves of `threading.Thread`, for `patch(threads=True)`. Python 3.11 and 3.12 use a sentinel, later ones a handle.
THREADS: list[tuple[Any, str, Any]] = [
    (_thread, "start_new_thread", threads.start_new_thread),
    (_thread, "start_new", threads.start_new_thread),
    (_thread, "start_joinable_thread", threads.start_joinable_thread),
    (_thread, "_set_sentinel", threads.set_sentinel),
    (_thread, "_ThreadHandle", threads.ThreadHandle),
]

# Calls that give something back. If they raised a cancellation, what they give back would be lost.
GIVING_BACK: list[tuple[type, str]] = [
    (threading.Semaphore, "release"),
    (threading.Semaphore, "__exit__"),
    (threading.BoundedSemaphore, "release"),
    (threading.Event, "set"),
    (threading.Event, "clear"),
    # After a wait the body of the `with` block must hold the lock, because the end of the block releases it.
    (threading.Condition, "_acquire_restore"),
    (threading.Condition, "notify"),
    (threading.Condition, "notify_all"),
    (threading.Barrier, "abort"),
    (threading.Barrier, "reset"),
    # It waits until the new thread runs. If that wait were cancelled, the caller would have started a thread but got an
    # exception.
    (threading.Thread, "start"),
    (Queue, "task_done"),
    (Future, "set_result"),
    (Future, "set_exception"),
    (Future, "set_running_or_notify_cancel"),
    (Future, "cancel"),
]

# Calls that need no rule. They are here because the compiled engine has versions that cost less.
QUICK: list[tuple[type, str]] = [
    (threading.Condition, "__init__"),
    (threading.Condition, "__enter__"),
    (threading.Condition, "__exit__"),
    (threading.Event, "__init__"),
]

# Calls that may wait. The originals have no checkpoint if they need not wait.
WAITING: list[tuple[type, str]] = [
    (threading.Event, "wait"),
    (threading.Barrier, "wait"),
    (Queue, "join"),
    (Future, "result"),
    (Future, "exception"),
]

# The same for calls with an argument that decides whether they wait: its position and name, and a function of the
# object that returns whether waiting is possible at all; None if it always is.
MAYBE_WAITING: list[tuple[type, str, int, str, Callable[[Any], bool] | None]] = [
    (threading.Semaphore, "acquire", 1, "blocking", None),
    (threading.Semaphore, "__enter__", 1, "blocking", None),
    (Queue, "put", 2, "block", lambda queue: queue.maxsize > 0),
    (Queue, "get", 1, "block", None),
]


def methods(of: Callable[[Any], Any] = lambda cls: cls, imported: Collection[str] = ON_IMPORT) -> Iterator[Replacement]:
    """Replacements in classes; of modules in `ON_IMPORT`, only in the `imported` ones.

    `of` maps each class of the table to the class to patch, or to None to skip it.
    """
    for cls, name, make in _method_makers(imported):
        holder = of(cls)
        if holder is not None and hasattr(holder, name):
            yield Replacement(holder, name, make(vars(holder).get(name)))


def _method_makers(imported: Collection[str]) -> Iterator[MethodRow]:
    """Class, name, and the function that makes the new method from the existing one."""
    for table in _tables(imported):
        yield from table.methods()
    yield threading.Thread, "join", always(identity.join_thread)
    yield threading.Thread, "_delete", identity.unparking_joiners
    for cls, name in QUICK:
        yield cls, name, quick_version(cls, name, _unchanged)
    for cls, name in GIVING_BACK:
        yield cls, name, quick_version(cls, name, never_raising)
    for cls, name in WAITING:
        yield cls, name, quick_version(cls, name, checking_first)
    # All classes of the standard library with a timeout wait with this method, except locks: so it refuses NaN for all.
    yield threading.Condition, "wait", quick_version(threading.Condition, "wait", refusing_nan)
    for cls, name, position, argument, can_wait in MAYBE_WAITING:
        yield cls, name, quick_version(cls, name, checking_if_blocking(position, argument, can_wait))


def _unchanged(existing: Any) -> Any:
    return existing


def in_use() -> set[str]:
    """The names in `ON_IMPORT` whose rows have been used: `sys.modules` may not have the module any more."""
    return {name for name, (table, *_) in ON_IMPORT.items() if f"{PACKAGE}.{table}" in sys.modules}


def users_of(name: str) -> list[ModuleType]:
    """The modules with the rows and replacements of the module `name`, as far as they have been imported."""
    found = [sys.modules.get(f"{PACKAGE}.{user}") for user in ON_IMPORT.get(name, ())]
    return [user for user in found if user is not None]


def importable() -> set[str]:
    """The names of the modules in which something is replaced."""
    modules = {holder.__name__ for holder, _, _ in MODULE_ATTRIBUTES}
    return modules | {cls.__module__ for cls, _, _ in _method_makers(())} | ON_IMPORT.keys()


def _is_in_python(copy: ModuleType, name: str) -> bool:
    """Return whether a copy of `queue` that found no `_queue` has its class in Python there.

    It parks, since it is made of a semaphore, and it raises the `Empty` of its copy, which is another class.
    """
    return name == "SimpleQueue" and vars(copy)[name] is vars(copy).get("_PySimpleQueue")


def in_copy(copy: ModuleType) -> Iterator[Replacement]:
    """Replacements in a module that was imported later or again, and so has its own functions and classes."""
    imported = {copy.__name__} & ON_IMPORT.keys()
    for name in imported:
        # Before its rows: their import would cause that of the module, which looks for the rows at its end.
        import_module(name)
    for holder, name, new in [*_module_attributes(imported), (threading, "_allocate_lock", ConditionWaiterLock)]:
        if holder.__name__ == copy.__name__ and name in vars(copy) and not _is_in_python(copy, name):
            yield Replacement(copy, name, new)

    def there(cls: type) -> Any:
        if cls.__module__ == "ssl":
            # TLS methods call the methods of `SSLSocket` by name, so a copy of `ssl` gets the patched class instead.
            return cls if vars(copy).get(cls.__name__) is cls else None
        return vars(copy).get(cls.__name__) if cls.__module__ == copy.__name__ else None

    yield from methods(there, imported)
