"""multiprocessing and process pools: semaphores, which wait in C, and calls that must not be left half done.

What waits for descriptors and for children parks already. A call to a manager that was given up may have been carried
out in the manager's process all the same: what it returned, an item of a queue for example, is lost with it.
"""

from __future__ import annotations

import functools
import gc
import threading
from collections.abc import Callable
from functools import partial
from types import ModuleType
from typing import Any

from .._core.current import running
from .._core.delivery import deferred_delivery
from .._core.fork import begin_anew
from ..checkpoints import never_raising, shielded
from ..local import local
from ..net.readiness import READ, WRITE
from ..processes.messages import whole_message

__all__ = ["FITTED_BY"]

Undo = Callable[[], None]
Method = Callable[..., Any]

# Calls that would leave a child that nobody knows, or work that nobody waits for: by module, class and name.
SHIELDED = {
    "multiprocessing.process": [("BaseProcess", "start")],
    "multiprocessing.managers": [("BaseManager", "start")],
    "concurrent.futures.process": [("ProcessPoolExecutor", "submit")],
}

# Calls that give something back, end something or do not wait.
NEVER_RAISING = {
    "multiprocessing.synchronize": [
        ("Condition", "notify"),
        ("Condition", "notify_all"),
        ("Event", "is_set"),
        ("Event", "set"),
        ("Event", "clear"),
    ],
    "multiprocessing.queues": [("JoinableQueue", "task_done")],
    "multiprocessing.resource_tracker": [("ResourceTracker", "ensure_running"), ("ResourceTracker", "_send")],
    "multiprocessing.managers": [("BaseProxy", "_decref"), ("BaseManager", "_finalize_manager")],
    # A pool that was not made whole would be left with its workers.
    "multiprocessing.pool": [("Pool", "__init__"), ("Pool", "_terminate_pool")],
    "concurrent.futures.process": [("_ThreadWakeup", "wakeup"), ("_ThreadWakeup", "clear"), ("_ThreadWakeup", "close")],
}

# What a child by fork lives in, inside the call that started it; it never returns to that.
CHILDS_LIFE = {"multiprocessing.process": [("BaseProcess", "_bootstrap")]}

# Calls that may be given up while they acquire one attribute, and not further on.
GIVEN_UP_AT = {
    # It acquires its lock again in any case.
    "multiprocessing.synchronize": [("Condition", "wait", "_wait_semaphore")],
    # Of a bounded queue; an item is put, or no place for it is taken.
    "multiprocessing.queues": [("Queue", "put", "_sem"), ("JoinableQueue", "put", "_sem")],
}


def _fit(module: ModuleType) -> list[Undo]:
    """Fit the calls listed above, and what the module needs of its own."""
    name = module.__name__
    undo = [_wrap(getattr(module, cls), method, shielded) for cls, method in SHIELDED.get(name, ())]
    undo += [_wrap(getattr(module, cls), method, never_raising) for cls, method in NEVER_RAISING.get(name, ())]
    undo += [_wrap(getattr(module, cls), method, _child_of_its_own) for cls, method in CHILDS_LIFE.get(name, ())]
    for cls, method, semaphore in GIVEN_UP_AT.get(name, ()):
        undo.append(_wrap(getattr(module, cls), method, partial(_given_up_at, semaphore)))
    return undo + FURTHER.get(name, _nothing)(module)


def _nothing(module: ModuleType) -> list[Undo]:
    return []


def _wrap(cls: type, name: str, wrap: Callable[[Method], Method]) -> Undo:
    old = vars(cls)[name]
    if isinstance(old, staticmethod | classmethod):
        return _set(cls, name, type(old)(wrap(old.__func__)))
    return _set(cls, name, wrap(old))


def _set(holder: Any, name: str, new: Any) -> Undo:
    old = vars(holder)[name]
    setattr(holder, name, new)
    return partial(setattr, holder, name, old)


def _child_of_its_own(method: Method) -> Method:
    """`method` outside what the parent was in: its deadlines, and what it must not leave half done."""

    @functools.wraps(method)
    def call(*args: Any, **kwargs: Any) -> Any:
        thread = running()
        if thread is not None:
            begin_anew(thread)
        return method(*args, **kwargs)

    return call


def _given_up_at(semaphore: str, method: Method) -> Method:
    from ..processes.semaphores import SemLock

    @functools.wraps(method)
    def call(self: Any, *args: Any, **kwargs: Any) -> Any:
        semlock = getattr(self, semaphore)._semlock
        if running() is None or not isinstance(semlock, SemLock):
            return method(self, *args, **kwargs)
        semlock.may_be_given_up = True
        with deferred_delivery():
            return method(self, *args, **kwargs)

    return call


# --- semaphores


def _fit_synchronize(synchronize: Any) -> list[Undo]:
    """Let locks and semaphores park; those that were made before and that nobody holds, too."""
    from ..processes.semaphores import OriginalSemLock, SemLock, successor_of

    undo = [_set(synchronize._multiprocessing, "SemLock", SemLock)]
    made_before = gc.get_objects()
    for lock in made_before:
        if isinstance(lock, synchronize.SemLock):
            old = vars(lock).get("_semlock")
            if type(old) is OriginalSemLock and not old._count():
                lock._semlock = successor_of(old)
                lock._make_methods()
    for condition in made_before:
        if isinstance(condition, synchronize.Condition) and "_lock" in vars(condition):
            condition._make_methods()
    return undo


# --- connections


def _fit_connection(connection: Any) -> list[Undo]:
    cls = connection.Connection
    return [
        _wrap(cls, "_send_bytes", lambda method: whole_message(method, WRITE)),
        _wrap(cls, "_recv_bytes", lambda method: whole_message(method, READ)),
    ]


# --- managers


def _fit_util(util: Any) -> list[Undo]:
    """Let a manager's connections be per virtual thread, as they were per OS thread."""
    original = util.ForkAwareLocal
    if issubclass(original, local):
        # Made after `threading.local` was replaced.
        return []
    members = {name: getattr(original, name) for name in ("__module__", "__qualname__", "__init__", "__reduce__")}
    return [_set(util, "ForkAwareLocal", type(original.__name__, (local,), members))]


def _fit_managers(managers: Any) -> list[Undo]:
    # Sent to the manager's process by its name, which is not that of the original any more.
    registry = managers.SyncManager._registry
    former = registry["Lock"]
    registry["Lock"] = (new_lock, *former[1:])
    proxies = managers.BaseProxy
    by_address = proxies._address_to_local
    for address, (_, idset) in list(by_address.items()):
        by_address[address] = (managers.util.ForkAwareLocal(), idset)
    for proxy in gc.get_objects():
        # By the type: a weak proxy of something that is gone raises when it is asked for its class.
        if issubclass(type(proxy), proxies) and "_tls" in vars(proxy):
            proxy._tls = by_address[proxy._token.address][0]
    return [
        partial(registry.__setitem__, "Lock", former),
        _wrap(proxies, "_callmethod", _dropping_the_connection),
    ]


def new_lock() -> Any:
    """Make a `threading.Lock`, whatever that is."""
    return threading.Lock()


def _dropping_the_connection(method: Method) -> Method:
    """`BaseProxy._callmethod`: an answer that nobody waited for must not be taken for that of the next call."""

    @functools.wraps(method)
    def call(self: Any, *args: Any, **kwargs: Any) -> Any:
        try:
            return method(self, *args, **kwargs)
        except BaseException as error:
            if not _is_the_answer(error):
                _drop_connection(self)
            raise

    return call


def _is_the_answer(error: BaseException) -> bool:
    """Whether `error` came from the manager, and so was raised by `_callmethod` itself."""
    here = error.__traceback__
    return here is not None and here.tb_next is not None and here.tb_next.tb_next is None


def _drop_connection(proxy: Any) -> None:
    connection = getattr(proxy._tls, "connection", None)
    if connection is not None:
        del proxy._tls.connection
        connection.close()


FURTHER: dict[str, Callable[[Any], list[Undo]]] = {
    "multiprocessing.synchronize": _fit_synchronize,
    "multiprocessing.connection": _fit_connection,
    "multiprocessing.util": _fit_util,
    "multiprocessing.managers": _fit_managers,
}

# "util" first: "managers" makes use of what it has become.
FITTED_BY = dict.fromkeys(["multiprocessing.util", *SHIELDED, *NEVER_RAISING, *GIVEN_UP_AT, *FURTHER], _fit)
