"""The places in an object that refer to other objects, and functions that change what each place refers to.

The type of the holder decides where to look. Only changeable places count: a tuple, or the object of a bound method,
cannot be changed. This module does not know how the holders were found.
"""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from types import (
    AsyncGeneratorType,
    BuiltinMethodType,
    CellType,
    CoroutineType,
    FrameType,
    FunctionType,
    GeneratorType,
    MemberDescriptorType,
)
from typing import Any, NamedTuple

from .below import attributes_of, class_dict, classes_of, is_a

__all__ = ["Place", "Wanted", "is_plain_tuple", "places_in", "put_local"]

# Objects by id.
Wanted = Mapping[int, Any]


class Place(NamedTuple):
    """A reference to the object with the id `old` (the place itself does not hold it); `put(new)` replaces it.

    `key` is the dict key of the reference, if it is in a dict, to find the place again.
    """

    old: int
    put: Callable[[Any], object]
    key: Any = None


def is_plain_tuple(holder: Any) -> bool:
    """Return whether `holder` is a tuple or a named one, which another one with the same values can replace.

    Not one with further attributes: the program may change them, and keep it where it cannot be replaced. Not one of
    the sequences that C code makes, such as `time.struct_time`: they refuse `tuple.__new__`.
    """
    return (
        is_a(holder, tuple)
        and attributes_of(holder) is None
        and all("n_sequence_fields" not in class_dict(cls) for cls in classes_of(holder))
    )


def places_in(holder: Any, wanted: Wanted, cls: type | None) -> list[Place]:
    """Return the changeable places in `holder` (the dict of the class `cls`, if given) that refer to `wanted`."""
    for kind, look in LOOKS:
        if is_a(holder, kind):
            return list(look(holder, wanted, cls))
    return list(_in_instance(holder, wanted, cls))


def _in_dict(holder: Any, wanted: Wanted, cls: type | None) -> Iterator[Place]:
    # For a class, use `type.__setattr__`: the interpreter caches attributes of classes and must see the change.
    put = partial(dict.__setitem__, holder) if cls is None else partial(type.__setattr__, cls)
    for key, value in list(dict.items(holder)):
        if id(value) in wanted:
            yield Place(id(value), partial(put, key), key)
        if id(key) in wanted:
            yield Place(id(key), partial(_put_key, holder, id(key)))


def _put_key(holder: Any, old: int, new: Any) -> None:
    for key in [key for key in dict.keys(holder) if id(key) == old]:
        dict.__setitem__(holder, new, dict.pop(holder, key))


def _in_list(holder: Any, wanted: Wanted, cls: type | None) -> Iterator[Place]:
    for index, value in enumerate(list.copy(holder)):
        if id(value) in wanted:
            yield Place(id(value), partial(list.__setitem__, holder, index))


def _in_deque(holder: Any, wanted: Wanted, cls: type | None) -> Iterator[Place]:
    for index, value in enumerate(deque.copy(holder)):
        if id(value) in wanted:
            yield Place(id(value), partial(deque.__setitem__, holder, index))


def _in_set(holder: Any, wanted: Wanted, cls: type | None) -> Iterator[Place]:
    for value in set.copy(holder):
        if id(value) in wanted:
            yield Place(id(value), partial(_put_member, holder, id(value)))


def _put_member(holder: Any, old: int, new: Any) -> None:
    for value in [value for value in set.copy(holder) if id(value) == old]:
        set.discard(holder, value)
        set.add(holder, new)


def _in_cell(holder: Any, wanted: Wanted, cls: type | None) -> Iterator[Place]:
    yield Place(id(holder.cell_contents), partial(setattr, holder, "cell_contents"))


def _in_function(holder: Any, wanted: Wanted, cls: type | None) -> Iterator[Place]:
    if id(holder.__defaults__) in wanted:
        yield Place(id(holder.__defaults__), partial(setattr, holder, "__defaults__"))


# The getters of `partial` itself: a subclass may override the access to attributes.
function_of, arguments_of, keywords_of = (vars(partial)[name].__get__ for name in ("func", "args", "keywords"))
restore: Any = vars(partial)["__setstate__"]


def _in_partial(holder: Any, wanted: Wanted, cls: type | None) -> Iterator[Place]:
    def put(function: Any, arguments: Any) -> None:
        restore(holder, (function, arguments, keywords_of(holder), attributes_of(holder)))

    if id(function_of(holder)) in wanted:
        yield Place(id(function_of(holder)), lambda new: put(new, arguments_of(holder)))
    if id(arguments_of(holder)) in wanted:
        yield Place(id(arguments_of(holder)), lambda new: put(function_of(holder), new))


def _in_wrapper(holder: Any, wanted: Wanted, cls: type | None) -> Iterator[Place]:
    yield Place(id(holder.__func__), holder.__init__)


def _nowhere(holder: Any, wanted: Wanted, cls: type | None) -> Iterator[Place]:
    yield from ()


def _in_suspended(holder: Any, wanted: Wanted, cls: type | None) -> Iterator[Place]:
    """The local variables of a generator or coroutine. Those of a running one are found with the frames."""
    prefix = next(prefix for kind, prefix in SUSPENDABLE if is_a(holder, kind))
    frame = getattr(holder, prefix + "_frame")
    if frame is None or getattr(holder, prefix + "_running"):
        return
    names = frame.f_locals
    for name in frame.f_code.co_varnames:
        if name not in frame.f_code.co_cellvars and id(names.get(name)) in wanted:
            yield Place(id(names[name]), partial(put_local, frame, name))
            if type(names) is dict:
                # Up to Python 3.12 reading `f_locals` has made this dict, which the frame keeps: a second reference.
                yield Place(id(names[name]), partial(dict.__setitem__, names, name))


def _in_instance(holder: Any, wanted: Wanted, cls: type | None) -> Iterator[Place]:
    attributes = attributes_of(holder)
    if attributes is not None:
        yield from _in_dict(attributes, wanted, None)
    for base in classes_of(holder):
        for slot in class_dict(base).values():
            if type(slot) is MemberDescriptorType and _is_settable(slot, holder, wanted):
                yield Place(id(slot.__get__(holder)), partial(slot.__set__, holder))


def _is_settable(slot: Any, holder: Any, wanted: Wanted) -> bool:
    try:
        value = slot.__get__(holder)
        if id(value) not in wanted:
            return False
        # Store the same value as a test: a slot of C code may be read-only.
        slot.__set__(holder, value)
    except (AttributeError, TypeError):
        return False
    return True


# How the attributes of each kind begin.
SUSPENDABLE: tuple[tuple[type, str], ...] = ((GeneratorType, "gi"), (CoroutineType, "cr"), (AsyncGeneratorType, "ag"))

# The first matching type counts; any other object is searched as an instance with attributes and slots.
LOOKS: list[tuple[type, Callable[[Any, Wanted, type | None], Iterator[Place]]]] = [
    (dict, _in_dict),
    (list, _in_list),
    (deque, _in_deque),
    (set, _in_set),
    (CellType, _in_cell),
    (FunctionType, _in_function),
    (partial, _in_partial),
    (staticmethod, _in_wrapper),
    (classmethod, _in_wrapper),
    (GeneratorType, _in_suspended),
    (CoroutineType, _in_suspended),
    (AsyncGeneratorType, _in_suspended),
    (type, _nowhere),
    (tuple, _nowhere),
    (BuiltinMethodType, _nowhere),
]


def put_local(frame: FrameType, name: str, new: Any) -> None:
    """Assign a local variable of a running function."""
    # From 3.13 on this writes through. Before, it writes to a copy, which the call below writes back.
    frame.f_locals[name] = new
    if sys.version_info < (3, 13):
        import ctypes

        ctypes.pythonapi.PyFrame_LocalsToFast(ctypes.py_object(frame), ctypes.c_int(0))
