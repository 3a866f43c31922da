"""Objects from before patching that could not be replaced: which of them can block a carrier, and the warning.

A leftover is reported with the places that refer to it. Locks that `threading` makes for a single OS thread are not
reported: no virtual thread waits for them.
"""

from __future__ import annotations

import gc
import sys
import warnings
from collections import deque
from collections.abc import Iterator
from types import BuiltinMethodType, CellType, FrameType, FunctionType, MemberDescriptorType, ModuleType
from typing import Any, NamedTuple

from .._core.spawn_site import first_frame_outside, is_own_frame
from .below import attributes_of, class_dict, classes_of, is_a, module_of
from .holders import is_own_class, thawed

__all__ = ["CLASS_OF_C", "HELD", "HIDDEN", "OPENED", "Leftover", "place_of_caller", "warn_of_leftovers"]

# Packages that hold their locks for a few instructions, never while a virtual thread parks: this one, and what traces;
# and one that reads its pipes on OS threads: that of pytest-xdist.
HARMLESS = {__name__.partition(".")[0], "coverage", "execnet"}

# Referrers of referrers that are followed up to the name of a module.
DEPTH = 5
# How many places of a leftover are written out.
MOST_PLACES = 5
# How many leftovers a warning writes out. `vthreads check` writes all.
most_shown = 10
# The attributes that hold locks of single OS threads: those that wait for a condition, and the ends of OS threads.
OF_OS_THREADS = {"_waiters", "_tstate_lock", "_shutdown_locks"}
# Attributes of a `threading.Condition` that refer to its lock, beside `_lock` itself.
OF_CONDITION = {"acquire", "release"}

# The getter of `type`, which no metaclass overrides.
_qualified: Any = vars(type)["__qualname__"].__get__

# Why it stays.
HELD = "held by a thread"
HIDDEN = "referred to by what cannot be changed"
CLASS_OF_C = "a class of C code"
OPENED = "a file of a pipe, a socket or a terminal"

# Where it is, if no name refers to it.
UNNAMED = "in C code or on the stack of a call"

# A place that concerns no virtual thread.
NO_USER = ""


class Leftover(NamedTuple):
    """An object that stays, and the reason.

    `holder` is the name of a type, if an instance of it keeps the program's reference to a replaced original.
    """

    thing: Any
    reason: str
    holder: str | None = None


# An object to which only a leftover refers: its reference count is the smallest possible one.
_GONE = Leftover(object(), "")


def warn_of_leftovers(leftovers: list[Leftover]) -> None:
    """Issue one RuntimeWarning for all leftovers that a virtual thread can wait for."""
    # The collector neither frees nor lists frozen objects: their leftovers would be reported without their place.
    with thawed():
        # Locks in unreachable cycles are among the leftovers. Free them first: the search for the places of one
        # leftover takes as long as a collection or longer.
        gc.collect()
        places = _Places()
        lines = [line for leftover in leftovers for line in places.lines(leftover)]
        del places
    if not lines:
        return
    if len(lines) > most_shown:
        lines[most_shown:] = [f"  and {len(lines) - most_shown} more"]
    text = (
        "vthreads could not exchange these objects, which were made before it started. A virtual thread that waits "
        "for one blocks its carrier; virtual threads share the data of a thread-local. Call vthreads.patch() before "
        "they are made:\n" + "\n".join(lines)
    )
    warnings.warn_explicit(text, RuntimeWarning, *place_of_caller())


def place_of_caller() -> tuple[str, int]:
    """Return the file name and line to which a warning is attributed: where the program called this package."""
    frame = first_frame_outside(sys._getframe())
    # Patching in a `contextmanager` of this package is called by `contextlib`, which the package has called.
    while frame is not None and frame.f_globals.get("__name__") == "contextlib":
        frame = first_frame_outside(frame.f_back)
    # An OS thread whose function is one of this package has no such frame.
    return ("vthreads", 0) if frame is None else (frame.f_code.co_filename, frame.f_lineno)


class _Places:
    """The places of objects, by name. Only the collector and the running frames are read, no code of objects runs."""

    def __init__(self) -> None:
        self._frames = [
            (frame, frame.f_locals)
            for innermost in sys._current_frames().values()
            for frame in _callers(innermost)
            if frame.f_locals is not frame.f_globals
        ]
        # Exclude objects created for this search, and the dict that a frame keeps up to Python 3.12.
        frame_dicts = {id(names) for _, names in self._frames}
        self._holders = {id(holder) for holder in gc.get_objects() if type(holder) is not Leftover} - frame_dicts
        self._modules = {
            id(attributes_of(module)): name
            # By the first name: `multiprocessing` adds a second one of the main module.
            for name, module in reversed(list(sys.modules.items()))
            if is_a(module, ModuleType) and type(name) is str
        }

    def lines(self, leftover: Leftover) -> Iterator[str]:
        """Yield the line of the warning, if there is one."""
        thing = leftover.thing
        if is_a(thing, type):
            yield f"  class {_class_name(thing)}: {leftover.reason}"
            return
        if sys.getrefcount(leftover.thing) <= sys.getrefcount(_GONE.thing) + 1:
            # An OS thread that used it has ended since.
            return
        places = {*self._locals_of(thing), *(self._name(holder, thing, DEPTH) for holder in self._referrers(thing))}
        named = sorted(name for name in places if name and not _is_of_condition(name, places))
        if leftover.reason == OPENED:
            # A program can do something about a file that it has a name for.
            named = [name for name in named if not name.startswith("a ")]
            if not named:
                return
        # Skip objects that OS threads wait for in C, or hold on their stacks: virtual threads do not use them.
        if named or leftover.holder or NO_USER not in places and leftover.reason != HELD:
            where = "in " + ", ".join(named[:MOST_PLACES]) if named else UNNAMED
            if not named and leftover.holder:
                where = f"in a {leftover.holder}"
            # Not its own `__repr__`, which may be code of the program.
            yield f"  {object.__repr__(thing)}: {leftover.reason}; {where}"

    def _referrers(self, thing: Any) -> list[Any]:
        found = gc.get_referrers(thing)
        return [holder for holder in found if id(holder) in self._holders and type(holder) is not FrameType]

    def _locals_of(self, thing: Any) -> Iterator[str]:
        for frame, names in self._frames:
            module = str(frame.f_globals.get("__name__"))
            for name, value in list(names.items()):
                if value is thing:
                    is_harmless = is_own_frame(frame) or module.partition(".")[0] in sys.stdlib_module_names
                    yield NO_USER if is_harmless else f"{name!r} in {module}.{frame.f_code.co_qualname}()"

    def _name(self, holder: Any, held: Any, depth: int) -> str | None:
        """Return the name of the place in `holder` that refers to `held`; None if only C code or a stack does."""
        if id(holder) in self._modules:
            module, key = self._modules[id(holder)], _key(holder, held)
            is_harmless = _is_harmless(module) or module == "threading" and key in OF_OS_THREADS
            return NO_USER if is_harmless else f"{module}.{key}"
        if is_a(holder, dict):
            return self._name_in_dict(holder, _key(holder, held), depth)
        if is_a(holder, FunctionType):
            return NO_USER if _is_harmless(holder.__module__) else f"{holder.__module__}.{holder.__qualname__}()"
        if is_a(holder, type):
            return NO_USER if _is_of_harmless_class(holder) else _class_name(holder)
        if is_a(holder, CONTAINERS):
            return self._name_of(holder, depth, "" if is_a(holder, WRAPPERS) else f" (a {type(holder).__name__})")
        return self._name_in_instance(holder, _attribute(holder, held), depth)

    def _name_in_dict(self, holder: Any, key: Any, depth: int) -> str | None:
        for above in self._referrers(holder):
            if attributes_of(above) is holder:
                return self._name_in_instance(above, key, depth)
            if is_a(above, type):
                return NO_USER if _is_of_harmless_class(above) else f"{_class_name(above)}.{key}"
        return self._name_of(holder, depth, f"[{key!r}]" if type(key) is str else " (a dict)")

    def _name_in_instance(self, owner: Any, attribute: Any, depth: int) -> str | None:
        cls = type(owner)
        if _is_of_harmless_class(cls) or module_of(cls) == "threading" and attribute in OF_OS_THREADS:
            return NO_USER
        step = f".{attribute}" if type(attribute) is str else ""
        name = self._name_of(owner, depth, step)
        # An object of C code that nothing refers to is on the stack of a call.
        return f"a {_class_name(cls)}{step}" if name is None and step else name

    def _name_of(self, thing: Any, depth: int, step: str) -> str | None:
        """Return the name of `thing` itself, followed by `step`."""
        names = list(self._locals_of(thing))
        for holder in self._referrers(thing) if depth and not any(names) else ():
            name = self._name(holder, thing, depth - 1)
            if name is not None:
                names.append(name)
            if name:
                break
        return next((name + step for name in names if name), NO_USER) if names else None


# Types of objects without a name; a name that refers to one is used instead. WRAPPERS are not shown as a step.
WRAPPERS: Any = CellType | BuiltinMethodType
CONTAINERS: Any = WRAPPERS | list | tuple | set | frozenset | deque


def _key(holder: Any, held: Any) -> Any:
    return next((key for key, value in dict.items(holder) if value is held), None)


def _attribute(owner: Any, held: Any) -> str | None:
    attributes = attributes_of(owner)
    if attributes is not None:
        for key, value in dict.items(attributes):
            if value is held:
                return str(key)
    for cls in classes_of(owner):
        for name, slot in class_dict(cls).items():
            if type(slot) is MemberDescriptorType and _value(slot, owner) is held:
                return name
    return None


def _is_of_condition(name: str, places: set[str | None]) -> bool:
    """Whether the attribute is a method of the lock of a condition, which is among the places by its own name."""
    owner, _, attribute = name.rpartition(".")
    return attribute in OF_CONDITION and f"{owner}._lock" in places


def _value(slot: MemberDescriptorType, owner: Any) -> Any:
    try:
        return slot.__get__(owner)
    except AttributeError:
        # The slot has no value.
        return None


def _class_name(cls: type) -> str:
    return f"{module_of(cls)}.{_qualified(cls)}"


def _is_harmless(module: Any) -> bool:
    return type(module) is str and module.partition(".")[0] in HARMLESS


def _is_of_harmless_class(cls: type) -> bool:
    return is_own_class(cls) or _is_harmless(module_of(cls))


def _callers(frame: FrameType | None) -> Iterator[FrameType]:
    while frame is not None:
        yield frame
        frame = frame.f_back
