"""Replace objects that were created before patching: locks, thread-locals, queues, poll and epoll objects.

A C lock would block the carrier; a C RLock sees all virtual threads of a carrier as the same owner; a C thread-local
gives them all the same data. Such an object is replaced only if no thread holds it and all references to it can be
changed: if some of its users got another lock, neither lock would guard anything. A queue or poll object is replaced by
an adapter that uses the original, so each reference that can be changed is changed. Objects that stay are returned, for
a warning.
"""

from __future__ import annotations

import gc
import sys
import threading
import weakref
from collections import defaultdict
from collections.abc import Callable
from types import AsyncGeneratorType, BuiltinFunctionType, BuiltinMethodType, CoroutineType, FrameType, GeneratorType
from typing import Any

from .._calls.net import select as net_select
from .._calls.standard_locks import StandardLock, StandardRLock
from .._calls.standard_queues import OriginalSimpleQueue, SimpleQueueOver
from .._core.originals import LockType, allocate_lock
from .._core.originals import PlainRLock as RLockType
from .._sync.local import OSThreadLocal, local_over
from .below import is_a
from .holders import Survey
from .leftovers import HELD, HIDDEN, Leftover
from .places import Place, is_plain_tuple

__all__ = ["exchange_instances"]

# How many levels of tuples in tuples to search, named ones included.
DEPTH = 3

# Types of holders whose references are found in another way: with the frames, or with the intermediate objects.
# A loop over `iter(queue.get, None)`, as in `multiprocessing.pool`, is one of an OS thread that waits in `get` already.
ELSEWHERE: Any = FrameType | GeneratorType | CoroutineType | AsyncGeneratorType | BuiltinMethodType | type(iter(int, 1))

Successor = Callable[[Any], Any]

# The function that makes the replacement, by exact type: either for all references to an object or for none,
WHOLLY: dict[type, Successor] = {
    LockType: lambda _: StandardLock(),
    RLockType: lambda _: StandardRLock(),
    OSThreadLocal: local_over,
}
# or for each reference that can be changed.
OVER_ORIGINALS: dict[type, Successor] = {
    OriginalSimpleQueue: SimpleQueueOver,
}
# Its objects have a type without a name, so make one; but not with the function of a program that has replaced it.
if isinstance(net_select.original_poll, BuiltinFunctionType):
    OVER_ORIGINALS[type(net_select.original_poll())] = net_select.poll_over
if net_select.original_epoll is not None:
    OVER_ORIGINALS[net_select.original_epoll] = net_select.Epoll.over
if net_select.original_kqueue is not None:
    OVER_ORIGINALS[net_select.original_kqueue] = net_select.Kqueue.over

SUCCESSORS = WHOLLY | OVER_ORIGINALS


def exchange_instances(survey: Survey) -> list[Leftover]:
    """Replace all objects that can be replaced; return the others. Not undone: replacements work on OS threads too."""
    return _Exchange(survey).perform()


class _Exchange:
    """A replacement of all objects at once.

    A reference may go through a bound method or a tuple, which cannot be changed. Such an intermediate object gets a
    replacement too, which is installed where the intermediate object is referred to.
    """

    def __init__(self, survey: Survey) -> None:
        self._survey = survey
        self._objects: dict[int, Any] = {}
        self._held: dict[int, Any] = {}
        for old in self._survey.instances(SUCCESSORS):
            (self._objects if _is_free(old) else self._held)[id(old)] = old
        # An object with no users: its reference count is what the survey adds to each object.
        unused = allocate_lock()
        self._unused = id(unused)
        self._objects[self._unused] = unused
        # Objects to which this package refers; they are not replaced.
        self._own = {self._unused}
        self._between: dict[int, Any] = {}
        self._places: dict[int, list[Place]] = defaultdict(list)
        # For each object, the intermediate objects that refer to it; listed twice if one refers to it twice.
        self._through: dict[int, list[int]] = defaultdict(list)
        # For each object, the name of a type whose instance refers to it and cannot be changed, such as an iterator.
        self._fixed: dict[int, str] = {}
        self._successors: dict[int, Any] = {}
        self._movable: dict[int, bool] = {}
        self._find_places()

    def _find_places(self) -> None:
        for key, old in self._objects.items():
            # A weak reference cannot be changed, and the collector does not list it.
            self._fixed.update((key, type(weak).__name__) for weak in _weak_references(old))
        methods = {id(method): method for method in self._survey.methods(self._objects)}
        for key, method in methods.items():
            self._through[id(method.__self__)].append(key)
        self._between |= methods
        level = self._objects | self._held | methods
        for _ in range(DEPTH):
            tuples = self._find_places_of(level)
            # A tuple may hold an object and a tuple with it. Search for the places of each once: they are counted.
            level = {key: found for key, found in tuples.items() if key not in self._between}
            self._between |= level

    def _find_places_of(self, wanted: dict[int, Any]) -> dict[int, Any]:
        """Record the places that refer to `wanted`; return the tuples among their holders, by id."""
        tuples = {}
        for place in self._survey.local_places(wanted):
            self._places[place.old].append(place)
        for holder in self._survey.holders(wanted):
            if self._survey.is_own(holder):
                # No other object refers to what this package has made.
                self._own.update(map(id, gc.get_referents(holder)))
            places = self._survey.places(holder, wanted)
            for place in places:
                self._places[place.old].append(place)
            if is_plain_tuple(holder):
                tuples[id(holder)] = holder
                for value in tuple.__iter__(holder):
                    if id(value) in wanted:
                        self._through[id(value)].append(id(holder))
            elif not places and not self._survey.is_own(holder) and not is_a(holder, ELSEWHERE):
                self._fixed.update((id(value), type(holder).__name__) for value in gc.get_referents(holder))
        return tuples

    def perform(self) -> list[Leftover]:
        self._survey.forget_objects()
        # Decide for all objects before replacing the first, because replacing changes reference counts.
        exchanged = [key for key in self._objects if self._is_exchanged(key)]
        leftovers = self._find_leftovers()
        for key in exchanged:
            self._exchange(key)
        return leftovers

    def _find_leftovers(self) -> list[Leftover]:
        """Return the objects that stay, and replaced originals that also have references that cannot be changed."""
        for_os_threads = _sentinels() | self._own
        staying = [key for key in self._objects if not self._is_movable(key)]
        return [Leftover(old, HELD) for key, old in self._held.items() if key not in for_os_threads] + [
            Leftover(self._objects[key], HIDDEN, self._fixed_above(key))
            for key in staying
            if for_os_threads.isdisjoint((key, *self._through[key]))
        ]

    def _fixed_above(self, key: int) -> str | None:
        """The name of the type that keeps the program's use of a replaced original, directly or through tuples."""
        if key in self._objects and type(self._objects[key]) not in OVER_ORIGINALS:
            return None
        above = (self._fixed_above(each) for each in self._through[key])
        return self._fixed.get(key) or next(filter(None, above), None)

    def _is_exchanged(self, key: int) -> bool:
        if key in self._objects:
            return type(self._objects[key]) in OVER_ORIGINALS or self._is_movable(key)
        return key in self._between

    def _is_movable(self, key: int) -> bool:
        """Return whether all references can be changed, so that none is held by C code or on a stack."""
        if key not in self._movable:
            # A cycle of references through itself counts as not movable.
            self._movable[key] = False
            known = len(self._places[key]) + sum(map(self._is_movable, self._through[key]))
            self._movable[key] = self._references(key) == known
        return self._movable[key]

    def _references(self, key: int) -> int:
        things = self._objects if key in self._objects else self._between
        # If the old lock went away, a `WeakValueDictionary` of locks would make a second one beside the new lock.
        weak = len(_weak_references(things[key]))
        return sys.getrefcount(things[key]) - sys.getrefcount(self._objects[self._unused]) + weak

    def _exchange(self, key: int) -> None:
        for place in self._places.pop(key, ()):
            place.put(self._successor(key))
        for other in self._through.pop(key, ()):
            self._exchange(other)

    def _successor(self, key: int) -> Any:
        if key not in self._successors:
            self._successors[key] = self._make_successor(key)
        return self._successors[key]

    def _make_successor(self, key: int) -> Any:
        if key in self._objects:
            old = self._objects[key]
            return SUCCESSORS[type(old)](old)
        old = self._between[key]
        if is_a(old, tuple):
            # Not by the class itself: a class of named tuples may define `__new__`.
            parts = (
                self._successor(id(part)) if self._is_exchanged(id(part)) else part for part in tuple.__iter__(old)
            )
            return tuple.__new__(type(old), parts)
        return getattr(self._successor(id(old.__self__)), old.__name__)


def _sentinels() -> set[int]:
    """The locks by which Python 3.11 and 3.12 know that an OS thread has ended."""
    known: dict[int, threading.Thread] = threading._active  # type: ignore[attr-defined]  # not in the type stubs
    sentinels = {id(vars(thread).get("_tstate_lock")) for thread in list(known.values())}
    return sentinels.union(map(id, getattr(threading, "_shutdown_locks", ())))


def _weak_references(old: Any) -> list[Any]:
    """Return the weak references to `old` that other objects hold: a thread-local has one to itself."""
    return weakref.getweakrefs(old)[is_a(old, OSThreadLocal) :]


def _is_free(old: Any) -> bool:
    """Return whether `old` is not a lock, or a lock that no thread holds."""
    if type(old) is RLockType and old._is_owned():  # type: ignore[attr-defined]  # not in the type stubs
        return False
    if type(old) is not RLockType and type(old) is not LockType:
        return True
    if not old.acquire(False):
        return False
    old.release()
    return True
