"""Let what replaces a function look, to a program, like the function that it replaces.

It tells the same name and module, by which it is pickled and documented. In place of a builtin it does not become a
method when a class keeps it (`class Lock: _close = os.close`).
"""

from __future__ import annotations

from types import BuiltinFunctionType, FunctionType
from typing import Any

__all__ = ["stand_in"]


class _Builtin(staticmethod):  # type: ignore[type-arg]  # of any function
    """A callable that is the same wherever it is looked up, as builtin functions are."""

    def __repr__(self) -> str:
        return f"<built-in function {self.__name__}>"

    def __reduce__(self) -> str:
        # By reference, like any function.
        return self.__qualname__


# By function: patching twice puts the same object in place.
_made: dict[FunctionType, _Builtin] = {}


def stand_in(old: Any, new: Any) -> Any:
    """What to put in the place of `old` so that `new` is called: `new` itself, if it is a class."""
    if not isinstance(new, FunctionType):
        return new
    for attribute in ("__module__", "__name__", "__qualname__"):
        value = getattr(old, attribute, None)
        if isinstance(value, str):
            setattr(new, attribute, value)
    if not isinstance(old, BuiltinFunctionType):
        return new
    if new not in _made:
        _made[new] = _Builtin(new)
    return _made[new]
