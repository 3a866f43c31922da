"""multiprocessing and process pools: semaphores that wait in C, and calls that must not be interrupted half-way.

Waits for descriptors and child processes park already. A call to a manager that was cancelled may still have been
executed in the manager's process. Its result, an item of a queue for example, is then lost.
"""

from __future__ import annotations

import functools
import gc
import threading
import warnings
from collections.abc import Callable
from functools import partial
from types import ModuleType
from typing import Any

from .._calls.guards import never_raising, shielded
from .._calls.net.readiness import READ, WRITE
from .._calls.processes.messages import whole_message
from .._core.current import running
from .._core.delivery import deferred_delivery
from .._core.exceptions import traceback_of
from .._core.fork import begin_anew

__all__ = ["fit"]

Undo = Callable[[], None]
Method = Callable[..., Any]

# Calls that would leave a child process or a task without an owner. By module: class and name.
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
    # A pool that was not completed would leave its worker processes behind.
    "multiprocessing.pool": [("Pool", "__init__"), ("Pool", "_terminate_pool")],
    "concurrent.futures.process": [("_ThreadWakeup", "wakeup"), ("_ThreadWakeup", "clear"), ("_ThreadWakeup", "close")],
}

# The function in which a forked child spends its life, inside the call that started it; it never returns there.
CHILDS_LIFE = {"multiprocessing.process": [("BaseProcess", "_bootstrap")]}

# Calls that can be cancelled while they acquire one attribute, and not later.
GIVEN_UP_AT = {
    # It acquires its lock again in any case.
    "multiprocessing.synchronize": [("Condition", "wait", "_wait_semaphore")],
    # The semaphore of a bounded queue: either the item is put, or no permit is acquired.
    "multiprocessing.queues": [("Queue", "put", "_sem"), ("JoinableQueue", "put", "_sem")],
}


def fit(module: ModuleType) -> list[Undo]:
    """Adapt the calls listed above, and what else the module needs."""
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
    """Wrap `method`, the life of a forked child, to run outside the parent's scopes: its deadlines and shields."""

    @functools.wraps(method)
    def call(*args: Any, **kwargs: Any) -> Any:
        thread = running()
        if thread is not None:
            begin_anew(thread)
        return method(*args, **kwargs)

    return call


def _given_up_at(semaphore: str, method: Method) -> Method:
    from .._calls.processes.semaphores import SemLock

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
    """Make locks and semaphores park, including those from before patching."""
    from .._calls.processes.semaphores import OriginalSemLock, SemLock, successor_of

    undo = [_set(synchronize._multiprocessing, "SemLock", SemLock)]
    made_before = gc.get_objects()
    for lock in made_before:
        # Check the type, here and below: `isinstance` would run code of a proxy, which may raise.
        if issubclass(type(lock), synchronize.SemLock):
            old = vars(lock).get("_semlock")
            if type(old) is not OriginalSemLock:
                continue
            new = successor_of(old)
            if new is not None:
                lock._semlock = new
                lock._make_methods()
            else:
                warnings.warn(
                    f"vthreads could not exchange {lock!r}, which another OS thread holds: a virtual thread that waits "
                    "for it blocks its carrier. Call vthreads.patch() before it is acquired",
                    RuntimeWarning,
                    stacklevel=2,
                )
    for condition in made_before:
        if issubclass(type(condition), synchronize.Condition) and "_lock" in vars(condition):
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


def _fit_managers(managers: Any) -> list[Undo]:
    # The function is sent to the manager's process by its name, and patching has changed the name of the original.
    registry = managers.SyncManager._registry
    former = registry["Lock"]
    registry["Lock"] = (new_lock, *former[1:])
    return [
        partial(registry.__setitem__, "Lock", former),
        _wrap(managers.BaseProxy, "_callmethod", _dropping_the_connection),
    ]


def new_lock() -> Any:
    """Return a `threading.Lock`, patched or not."""
    return threading.Lock()


def _dropping_the_connection(method: Method) -> Method:
    """Wrap `BaseProxy._callmethod`: if a call is interrupted, drop the connection, on which its answer would follow."""

    @functools.wraps(method)
    def call(self: Any, *args: Any, **kwargs: Any) -> Any:
        try:
            return method(self, *args, **kwargs)
        except BaseException as error:
            # The answer of an interrupted call may still arrive, and the next call would take it for its own answer.
            if not _is_the_answer(error):
                _drop_connection(self)
            raise

    return call


def _is_the_answer(error: BaseException) -> bool:
    """Return whether `error` came from the manager: then `_callmethod` itself has raised it."""
    here = traceback_of(error)
    return here is not None and here.tb_next is not None and here.tb_next.tb_next is None


def _drop_connection(proxy: Any) -> None:
    connection = getattr(proxy._tls, "connection", None)
    if connection is not None:
        del proxy._tls.connection
        connection.close()


FURTHER: dict[str, Callable[[Any], list[Undo]]] = {
    "multiprocessing.synchronize": _fit_synchronize,
    "multiprocessing.connection": _fit_connection,
    "multiprocessing.managers": _fit_managers,
}
