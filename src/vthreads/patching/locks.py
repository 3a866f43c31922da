"""Exchange locks that were made before.

A C lock would block the carrier, and a C RLock takes all virtual threads of a carrier for one owner. Exchanged are
locks that nobody holds and that only modules, instances and dicts refer to. A lock that sits in a closure, a tuple or a
list stays, and with it all its users: half of them with another lock would guard nothing.
"""

from __future__ import annotations

import gc
import threading
from types import BuiltinMethodType, ModuleType
from typing import Any

from .._core.originals import LockType
from .._core.originals import PlainRLock as RLockType
from ..sync import StandardLock, StandardRLock

__all__ = ["exchange_locks"]

PACKAGE = __name__.partition(".")[0]


def exchange_locks() -> None:
    """Exchange what can be exchanged. There is no way back, and no need: on OS threads the new ones are as good."""
    locks = {id(lock): lock for lock in gc.get_objects() if type(lock) in (LockType, RLockType) and _is_free(lock)}
    for key, referrers in _users_of(locks).items():
        lock = locks[key]
        new = StandardLock() if type(lock) is LockType else StandardRLock()
        for referrer in referrers:
            _exchange(referrer, lock, new)


def _users_of(locks: dict[int, Any]) -> dict[int, list[Any]]:
    """What refers to each lock, by id, for those locks whose every user can be mended."""
    users: dict[int, list[Any]] = {}
    unsure: set[int] = set()
    for referrer in gc.get_referrers(*locks.values()):
        # This search refers to them as well: its dict, and its arguments, which are all of them in a tuple.
        if referrer is locks or isinstance(referrer, tuple) and len(referrer) == len(locks):
            continue
        for lock in gc.get_referents(referrer):
            if id(lock) in locks:
                if _can_be_mended(referrer):
                    users.setdefault(id(lock), []).append(referrer)
                elif not _is_bound_method_of(referrer, lock):
                    unsure.add(id(lock))
    return {key: referrers for key, referrers in users.items() if key not in unsure}


def _is_free(lock: Any) -> bool:
    if type(lock) is RLockType and lock._is_owned():  # type: ignore[attr-defined]  # not in the type stubs
        return False
    if not lock.acquire(False):
        return False
    lock.release()
    return True


def _can_be_mended(referrer: Any) -> bool:
    if isinstance(referrer, dict):
        owner = referrer.get("__name__")
        return not (isinstance(owner, str) and _is_ours(owner))
    if isinstance(referrer, ModuleType | type | BuiltinMethodType | tuple | list | set | frozenset):
        return False
    if isinstance(referrer, threading.Condition) and referrer._waiters:  # type: ignore[attr-defined]  # private
        return False
    return hasattr(referrer, "__dict__") and not _is_ours(type(referrer).__module__)


def _is_bound_method_of(referrer: Any, lock: Any) -> bool:
    # A Condition keeps the methods of its lock, and is mended with it; a fork handler keeps some, and may do without.
    return isinstance(referrer, BuiltinMethodType) and referrer.__self__ is lock


def _is_ours(module: str) -> bool:
    return module == PACKAGE or module.startswith(PACKAGE + ".")


def _exchange(referrer: Any, lock: Any, new: Any) -> None:
    attributes = referrer if isinstance(referrer, dict) else vars(referrer)
    for name, value in list(attributes.items()):
        if value is lock:
            attributes[name] = new
        elif isinstance(value, BuiltinMethodType) and value.__self__ is lock:
            attributes[name] = getattr(new, value.__name__)
