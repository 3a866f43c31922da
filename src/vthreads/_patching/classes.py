"""Replace the base of classes that were created before patching and inherit from a replaced C type.

An object of such a class cannot be replaced by one with another memory layout. But the class accepts another base with
the same layout, and through it all its objects, including existing ones, get the methods that park.
"""

from __future__ import annotations

from typing import Any

from .._calls.standard_queues import AdoptedSimpleQueue, OriginalSimpleQueue
from .._sync.local import AdoptedLocal, OSThreadLocal
from .below import module_of

__all__ = ["adopt_classes"]

PACKAGE = __name__.partition(".")[0]

# The new base, by original base.
BASES: dict[type, type] = {
    OSThreadLocal: AdoptedLocal,
    OriginalSimpleQueue: AdoptedSimpleQueue,
}

# The descriptor of `type` itself, because a metaclass may have an attribute of this name.
_bases: Any = vars(type)["__bases__"]


def adopt_classes() -> list[type]:
    """Replace the bases; return the classes that refused it. Not undone: the new bases work on OS threads too."""
    refused: list[type] = []
    for original, adopter in BASES.items():
        subclasses: list[type] = type.__subclasses__(original)
        for cls in subclasses:
            if module_of(cls).partition(".")[0] == PACKAGE:
                continue
            try:
                _bases.__set__(cls, tuple(adopter if base is original else base for base in _bases.__get__(cls)))
            except TypeError:
                # A class of C code refuses to change its bases.
                refused.append(cls)
    return refused
