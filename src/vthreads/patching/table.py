"""What replaces what, as data.

`functions()`: attributes of modules; whatever else in the process refers to the same original is mended as well.
`methods()`: attributes of classes, in place, so that existing objects take part.
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
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from .. import file_locks, signal_waits, signals
from ..checkpoints import checking_first, checking_if_blocking, never_raising, shielded
from ..files import opening, reading, standard_input, transfers, writing
from ..local import StandardLocal
from ..net import closing, dns
from ..net import select as net_select
from ..net import socket as net_socket
from ..processes import popen, starting, waiting
from ..queues import SimpleQueue
from ..standard_locks import ConditionWaiterLock, StandardLock, StandardRLock
from ..timeouts import sleep_here
from . import identity, imports, threads

__all__ = ["Replacement", "functions", "methods", "thread_functions"]


class Replacement(NamedTuple):
    """`holder.name` becomes `new`. With `everywhere`, so does every other reference to the original."""

    holder: Any
    name: str
    new: Any
    everywhere: bool = True


def thread_functions() -> Iterator[Replacement]:
    """Replacements in modules by which the standard library's threads become virtual ones."""
    for holder, name, new in THREADS:
        if hasattr(holder, name):
            yield Replacement(holder, name, new)


def functions() -> Iterator[Replacement]:
    """Replacements in modules."""
    # The lock by which the standard library's Condition waits; the same object as others in this module, so not
    # replaced by identity.
    yield Replacement(threading, "_allocate_lock", ConditionWaiterLock, everywhere=False)
    for holder, name, new in MODULE_ATTRIBUTES:
        if hasattr(holder, name):
            yield Replacement(holder, name, new)


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
    (socket, "create_connection", net_socket.create_connection),
    (os, "sendfile", transfers.sendfile),
    (io, "open", opening.open_file),
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
    (socket, "close", closing.close_socket),
    # names
    (socket, "getaddrinfo", dns.getaddrinfo),
    (socket, "gethostbyname", dns.gethostbyname),
    (socket, "gethostbyname_ex", dns.gethostbyname_ex),
    (socket, "gethostbyaddr", dns.gethostbyaddr),
    (socket, "getnameinfo", dns.getnameinfo),
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
    # What a traceback is shown by reads source files: a failure is shown in a cancelled thread as well.
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

# The leaves of `threading.Thread`, for `patch(threads=True)`. 3.11 and 3.12 have a sentinel, later versions a handle.
THREADS: list[tuple[Any, str, Any]] = [
    (_thread, "start_new_thread", threads.start_new_thread),
    (_thread, "start_new", threads.start_new_thread),
    (_thread, "start_joinable_thread", threads.start_joinable_thread),
    (_thread, "_set_sentinel", threads.set_sentinel),
    (_thread, "_ThreadHandle", threads.ThreadHandle),
]

# Calls that give back: a cancellation that came out of them would lose what they carry.
GIVING_BACK: list[tuple[type, str]] = [
    (threading.Semaphore, "release"),
    (threading.Semaphore, "__exit__"),
    (threading.BoundedSemaphore, "release"),
    (threading.Event, "set"),
    (threading.Event, "clear"),
    # After a wait: whoever is in the block holds the lock, and its end releases it.
    (threading.Condition, "_acquire_restore"),
    (threading.Condition, "notify"),
    (threading.Condition, "notify_all"),
    (threading.Barrier, "abort"),
    (threading.Barrier, "reset"),
    # It waits for the new thread to say that it runs; not waited for, that thread would run with nobody knowing.
    (threading.Thread, "start"),
    (Queue, "task_done"),
    (Future, "set_result"),
    (Future, "set_exception"),
    (Future, "set_running_or_notify_cancel"),
    (Future, "cancel"),
]

# Calls that cannot be undone in the middle: a child would stay that nobody knows. They may wait, so they check first.
SHIELDED: list[tuple[type, str]] = [
    (subprocess.Popen, "__init__"),
]

# Calls that may wait and would otherwise return without a checkpoint when they need not.
WAITING: list[tuple[type, str]] = [
    (threading.Event, "wait"),
    (threading.Condition, "wait"),
    (threading.Barrier, "wait"),
    (Queue, "join"),
    (Future, "result"),
    (Future, "exception"),
]

# The same, with the position and name of the argument that says whether they wait, and what tells whether they ever
# can. None: they can.
MAYBE_WAITING: list[tuple[type, str, int, str, Callable[[Any], bool] | None]] = [
    (threading.Semaphore, "acquire", 1, "blocking", None),
    (threading.Semaphore, "__enter__", 1, "blocking", None),
    (Queue, "put", 2, "block", lambda queue: queue.maxsize > 0),
    (Queue, "get", 1, "block", None),
]


def methods() -> Iterator[Replacement]:
    """Replacements in classes."""
    for name, new in net_socket.METHODS.items():
        if hasattr(socket.socket, name):
            yield Replacement(socket.socket, name, new)
    try:
        from ..net import ssl as net_ssl
    except ImportError:
        # This Python was built without OpenSSL.
        pass
    else:
        for name, new in net_ssl.METHODS.items():
            yield Replacement(net_ssl.TLS, name, new)
    yield Replacement(threading.Thread, "join", identity.join_thread)
    yield Replacement(threading.Thread, "_delete", identity.delete_thread)
    yield Replacement(subprocess.Popen, "_wait", popen.wait)
    yield Replacement(subprocess.Popen, "send_signal", popen.send_signal)
    for cls, name in SHIELDED:
        yield Replacement(cls, name, shielded(vars(cls)[name]))
    for cls, name in GIVING_BACK:
        yield Replacement(cls, name, never_raising(vars(cls)[name]))
    for cls, name in WAITING:
        yield Replacement(cls, name, checking_first(vars(cls)[name]))
    for cls, name, position, argument, can_wait in MAYBE_WAITING:
        yield Replacement(cls, name, checking_if_blocking(position, argument, can_wait)(vars(cls)[name]))
