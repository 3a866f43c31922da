"""Calls and classes of the standard library that another library or the program replaced before the patch.

gevent and eventlet replace the classes that the patch is made for, so it refuses to work on top of them. A single call
that the program has replaced is replaced in its module only: the same object may be in use elsewhere for another
purpose (`os.system = print`).
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from types import FunctionType
from typing import Any

__all__ = ["derived_classes", "is_foreign", "monkey_patches", "refuse_foreign"]

# Classes whose internals the patch uses.
CLASSES = {
    "queue": ("Queue",),
    "socket": ("socket",),
    "ssl": ("SSLContext", "SSLSocket"),
    "subprocess": ("Popen",),
    "threading": ("Barrier", "Condition", "Event", "Semaphore", "Thread"),
}

# By the module of a library that patches: its function that returns whether a module is patched, the call to remove.
LIBRARIES = {
    "gevent.monkey": ("is_module_patched", "gevent.monkey.patch_all()"),
    "eventlet.patcher": ("is_monkey_patched", "eventlet.monkey_patch()"),
}
# The names by which these libraries know what they can patch.
PATCHED = ("socket", "ssl", "select", "thread", "threading", "time", "os", "subprocess", "queue", "signal", "builtins")

PACKAGE = __name__.partition(".")[0]

# Modules that have calls of a module of C code with another name.
IMPORTED_FROM = {"os": os.open.__module__, "threading": "_thread"}


def monkey_patches() -> Iterator[tuple[str, list[str], str]]:
    """Yield each library that has patched: its name, the modules that it has patched, and the call to remove."""
    for name, (question, call) in LIBRARIES.items():
        is_patched = getattr(sys.modules.get(name), question, None)
        if is_patched is not None:
            modules = [module for module in PATCHED if is_patched(module)]
            if modules:
                yield name.partition(".")[0], modules, call


def refuse_foreign() -> None:
    """Raise if the standard library is not in a state that can be patched.

    Raises:
        RuntimeError: gevent or eventlet has patched it, or a class was replaced by an unrelated one.
    """
    for library, modules, call in monkey_patches():
        raise RuntimeError(
            f"{library} has patched {', '.join(modules)}, and two libraries cannot patch one process: "
            f"remove the call of {call}, or run the program without vthreads"
        )
    for module, name, found in _replaced_classes():
        if not _descends_from(found, module):
            raise RuntimeError(
                f"{module}.{name} is {found!r}, which is not derived from the class of the standard library: "
                "call vthreads.patch() before the program replaces that class"
            )


def derived_classes() -> Iterator[tuple[str, str, type]]:
    """Yield the classes that were replaced by derived ones: their modules, their names, and the derived classes."""
    return (each for each in _replaced_classes() if _descends_from(each[2], each[0]))


def _replaced_classes() -> Iterator[tuple[str, str, Any]]:
    for module, names in CLASSES.items():
        for name in names:
            found = getattr(sys.modules.get(module), name, None)
            if found is not None and getattr(found, "__module__", None) != module:
                yield module, name, found


def _descends_from(cls: Any, module: str) -> bool:
    return isinstance(cls, type) and any(base.__module__ == module for base in cls.__mro__)


def is_foreign(call: Any, module: str) -> bool:
    """Return whether `call`, found in this module of the standard library, comes from another module."""
    # A decorator copies `__module__` of the function that it wraps.
    home = call.__globals__.get("__name__") if type(call) is FunctionType else getattr(call, "__module__", None)
    if str(home).partition(".")[0] == PACKAGE:
        # A replacement by this package.
        return False
    return home not in (module, f"_{module}", IMPORTED_FROM.get(module))
