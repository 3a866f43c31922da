"""The replacement of each original that patching has replaced, for calls that were looked up before.

`spawn(time.sleep, 1)` looks `time.sleep` up before it starts the runtime, and a closure or tuple keeps such an original
for longer. So a virtual thread looks up the replacement of the function that it was given.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from types import BuiltinMethodType, FunctionType, MethodType
from typing import Any

__all__ = ["latest", "note_replaced", "note_replaced_method"]

# By id of the original, which the undo function of the patch keeps alive.
_successors: dict[int, Any] = {}
# Replaced methods: class and name, by id of the original function; and the classes, by name of the method. Most calls
# of C code have another name, so one look-up is all that they cost.
_methods: dict[int, tuple[type, str]] = {}
_classes: dict[str, list[type]] = {}

# The getters of `type` itself, which a metaclass cannot override.
_names_of: Any = vars(type)["__dict__"].__get__
_mro_of: Any = vars(type)["__mro__"].__get__


def latest(call: Any) -> Any:
    """Return the current replacement of `call`, which usually is `call` itself."""
    successor = _successors.get(id(call))
    if successor is not None:
        return successor
    kind = type(call)
    if kind is MethodType:
        place = _methods.get(id(call.__func__))
    elif kind is BuiltinMethodType:
        place = _place_of(call)
    elif kind is partial:
        return _latest_partial(call)
    else:
        return call
    if place is None:
        return call
    cls, name = place
    return _names_of(cls)[name].__get__(call.__self__, type(call.__self__))


def _place_of(method: Any) -> tuple[type, str] | None:
    """Return the class and name of a method of C code that was bound to an object before it was replaced."""
    name = method.__name__
    classes = _classes.get(name)
    if not classes:
        return None
    return next(((cls, name) for cls in _mro_of(type(method.__self__)) if cls in classes), None)


def _latest_partial(call: Any) -> Any:
    function = latest(call.func)
    return call if function is call.func else partial(function, *call.args, **call.keywords)


def note_replaced_method(old: Any, cls: type, name: str) -> Callable[[], None]:
    """Record that the method `old` of `cls` has been replaced; return the function that undoes it."""
    _methods[id(old)] = cls, name
    _classes.setdefault(name, []).append(cls)

    def undo() -> None:
        _methods.pop(id(old), None)
        _classes[name].remove(cls)

    return undo


def note_replaced(old: Any, new: Any) -> list[Callable[[], None]]:
    """Record `new` as the replacement of `old`; return the functions that undo it.

    Python functions are left out: the blocking calls inside them are replaced, and a compiled engine does not look them
    up.
    """
    if type(old) is FunctionType:
        return []
    _successors[id(old)] = new
    return [partial(_forget, id(old))]


def _forget(key: int) -> None:
    # An original with two names is recorded twice, so it may be removed already.
    _successors.pop(key, None)
