"""The standard library's conditions and what is built on them: which of their methods the compiled engine repeats.

The methods stay the standard library's code, wrapped by a rule of `guards`. A compiled version does the same for an
object whose parts are the original ones. For any other object (another lock, a mock), on plain OS threads, and where a
call must wait for the lock itself, it calls the wrapped method before it has changed anything.
"""

from __future__ import annotations

import queue
import sys
import threading
from collections.abc import Callable
from concurrent.futures import _base
from types import FunctionType
from typing import Any

from .._core.engine import quick_condition_call, supply
from .standard_locks import StandardLock, StandardRLock

__all__ = ["quick_version"]

CLASSES = (threading.Condition, threading.Semaphore, threading.Event, queue.Queue, _base.Future)
MODULES = (threading, queue, _base)
# Versions whose methods the compiled ones repeat.
KNOWN = (3, 11) <= sys.version_info[:2] <= (3, 13)

supply(
    __name__,
    condition=threading.Condition,
    lock=StandardLock,
    rlock=StandardRLock,
    namespace=vars(threading),
    make_rlock=threading.RLock,
    is_owned=threading.Condition._is_owned,  # type: ignore[attr-defined]  # not in the type stubs
    release_save=threading.Condition._release_save,  # type: ignore[attr-defined]  # likewise
    size=queue.Queue._qsize,
    put=queue.Queue._put,
    get=queue.Queue._get,
    shut_down=hasattr(queue, "ShutDown"),
    future=_base.Future,
    invoke_callbacks=_base.Future._invoke_callbacks,  # type: ignore[attr-defined]  # likewise
)


def quick_version(cls: type, name: str, rule: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """Return a function like `rule` for the method `name` of `cls`, whose result is compiled if the engine has one."""

    def make(existing: Any) -> Any:
        guarded = rule(existing)
        if cls in CLASSES and KNOWN and _is_of_standard_library(existing):
            return quick_condition_call(f"{cls.__name__}.{name}", guarded)
        return guarded

    return make


def _is_of_standard_library(method: Any) -> bool:
    """Return whether `method` is a function of these modules, and neither of another package nor of a second import."""
    return isinstance(method, FunctionType) and any(method.__globals__ is vars(module) for module in MODULES)
