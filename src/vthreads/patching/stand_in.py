"""Let what replaces a function look, to a program, like the function that it replaces.

It tells the same name and module, by which it is pickled and documented. In place of a builtin it does not become a
method when a class keeps it (`class Lock: _close = os.close`).
"""

from __future__ import annotations

import sys
from types import BuiltinFunctionType, FunctionType, ModuleType
from typing import Any, NoReturn

__all__ = ["stand_in"]

# Where the replacement is found, for the module that keeps the original (see `references`).
PUBLIC = {"_io": "io"}


class _Builtin(staticmethod):  # type: ignore[type-arg]  # of any function
    """A callable that is the same wherever it is looked up, as builtin functions are."""

    @property  # type: ignore[misc]  # nobody assigns it: it is what `isinstance` is told, and with it `inspect`
    def __class__(self) -> type:
        return BuiltinFunctionType

    @property
    def __self__(self) -> ModuleType:
        # Builtin functions are methods of their module.
        return sys.modules[self.__module__]

    @property
    def __dict__(self) -> NoReturn:  # type: ignore[override]  # serializers tell builtins by that they have none
        raise AttributeError(f"'builtin_function_or_method' object {self.__name__!r} has no attribute '__dict__'")

    def __repr__(self) -> str:
        return f"<built-in function {self.__name__}>"

    def __reduce__(self) -> str:
        # By reference, like any function.
        return self.__qualname__


# By function: patching twice puts the same object in place.
_made: dict[FunctionType, _Builtin] = {}


def stand_in(old: Any, new: Any) -> Any:
    """What to put in the place of `old` so that `new` is called: `new` itself, if it is a class."""
    if not hasattr(new, "__code__"):
        return new
    for attribute in ("__module__", "__name__", "__qualname__"):
        value = getattr(old, attribute, None)
        if isinstance(value, str):
            setattr(new, attribute, PUBLIC.get(value, value))
    if not isinstance(old, BuiltinFunctionType):
        return new
    if new not in _made:
        _made[new] = _Builtin(new)
    return _made[new]
