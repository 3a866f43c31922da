"""Exchange locks and thread-locals that were made before.

A C lock would block the carrier, a C RLock takes all virtual threads of a carrier for one owner, and a C thread-local
gives them all the same data. Exchanged are locks that nobody holds, and what only modules, instances and dicts refer
to. An object that sits in a closure, a tuple or a list stays, and with it all its users: half of them with another lock
would guard nothing. Objects of subclasses of `threading.local` that were made before stay, too.
"""

from __future__ import annotations

import gc
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from types import BuiltinMethodType, ModuleType
from typing import Any

from .._core.originals import LockType
from .._core.originals import PlainRLock as RLockType
from ..local import OSThreadLocal, local_over
from ..standard_locks import StandardLock, StandardRLock

__all__ = ["exchange_instances", "has_frozen"]

PACKAGE = __name__.partition(".")[0]

# Python 3.12 begins with some hundreds of frozen objects of its own; a program that freezes has thousands.
FROZEN_BY_PYTHON = 1000

# What takes the place of an object, by its exact type.
SUCCESSORS: dict[type, Callable[[Any], Any]] = {
    LockType: lambda _: StandardLock(),
    RLockType: lambda _: StandardRLock(),
    OSThreadLocal: local_over,
}


def exchange_instances() -> None:
    """Exchange what can be exchanged. There is no way back, and no need: on OS threads the new ones are as good."""
    with _thawed():
        found = {id(old): old for old in gc.get_objects() if type(old) in SUCCESSORS and _is_free(old)}
        owners = _classes_by_dict()
        for key, referrers in _users_of(found, owners).items():
            old = found[key]
            new = SUCCESSORS[type(old)](old)
            for referrer in referrers:
                _exchange(referrer, owners.get(id(referrer)), old, new)


def has_frozen() -> bool:
    """Whether the program has called `gc.freeze`."""
    return gc.get_freeze_count() > FROZEN_BY_PYTHON


@contextmanager
def _thawed() -> Iterator[None]:
    """While inside, the collector finds what was frozen; afterwards that is frozen again, and what is newer with it."""
    freezes = has_frozen()
    # No collection may come in between: it would write to all pages, which to freeze is to prevent.
    collects = gc.isenabled()
    gc.disable()
    gc.unfreeze()
    try:
        yield
    finally:
        if freezes:
            gc.freeze()
        if collects:
            gc.enable()


def _classes_by_dict() -> dict[int, type]:
    """The classes, by the id of the dict that holds their attributes.

    The interpreter remembers what it found there, without a reference of its own: it has to be told of a change, or it
    goes on using an object that is gone.
    """
    # By the type, since a weak proxy has the class of what it stands for, or raises.
    classes = [found for found in gc.get_objects() if issubclass(type(found), type)]
    return {id(attributes): cls for cls in classes for attributes in gc.get_referents(vars(cls))}


def _users_of(found: dict[int, Any], owners: dict[int, type]) -> dict[int, list[Any]]:
    """What refers to each of them, by id, for those whose every user can be mended."""
    users: dict[int, list[Any]] = {}
    unsure: set[int] = set()
    for referrer in gc.get_referrers(*found.values()):
        # This search refers to them as well: its dict, and its arguments, which are all of them in a tuple.
        if referrer is found or isinstance(referrer, tuple) and len(referrer) == len(found):
            continue
        for old in gc.get_referents(referrer):
            if id(old) in found:
                if _can_be_mended(owners.get(id(referrer), referrer)):
                    users.setdefault(id(old), []).append(referrer)
                elif not _is_bound_method_of(referrer, old):
                    unsure.add(id(old))
    return {key: referrers for key, referrers in users.items() if key not in unsure}


def _is_free(old: Any) -> bool:
    """Whether it is no lock, or one that nobody holds."""
    if type(old) is OSThreadLocal:
        return True
    if type(old) is RLockType and old._is_owned():  # type: ignore[attr-defined]  # not in the type stubs
        return False
    if not old.acquire(False):
        return False
    old.release()
    return True


def _can_be_mended(referrer: Any) -> bool:
    if isinstance(referrer, dict):
        owner = referrer.get("__name__")
        return not (isinstance(owner, str) and _is_ours(owner))
    if isinstance(referrer, type):
        # A dict that holds the attributes of a class; never the class itself, which holds that dict.
        return not _is_ours(referrer.__module__)
    if isinstance(referrer, ModuleType | BuiltinMethodType | tuple | list | set | frozenset):
        return False
    if isinstance(referrer, threading.Condition) and referrer._waiters:  # type: ignore[attr-defined]  # private
        return False
    return hasattr(referrer, "__dict__") and not _is_ours(type(referrer).__module__)


def _is_bound_method_of(referrer: Any, old: Any) -> bool:
    # A Condition keeps the methods of its lock, and is mended with it; a fork handler keeps some, and may do without.
    return isinstance(referrer, BuiltinMethodType) and referrer.__self__ is old


def _is_ours(module: str) -> bool:
    return module == PACKAGE or module.startswith(PACKAGE + ".")


def _exchange(referrer: Any, owner: type | None, old: Any, new: Any) -> None:
    attributes = referrer if isinstance(referrer, dict) else vars(referrer)
    put = attributes.__setitem__ if owner is None else partial(setattr, owner)
    for name, value in list(attributes.items()):
        if value is old:
            put(name, new)
        elif isinstance(value, BuiltinMethodType) and value.__self__ is old:
            put(name, getattr(new, value.__name__))
