"""Refuse objects that a program makes by itself, where this has no meaning.

A copy of an object that must be shared, such as a lock: what waits for a copy waits for nothing. An object that only
the runtime can create, such as a future: nothing would ever happen to it.
"""

from __future__ import annotations

from typing import NoReturn

__all__ = ["refuse_copy", "refuse_creation"]


def refuse_copy(self: object) -> NoReturn:
    """Raise TypeError; the `__reduce__` of a class whose objects can be neither copied nor pickled."""
    raise TypeError(
        f"cannot copy or pickle a {type(self).__name__}, because all that use it must share one object; "
        "pass the object itself, and to another process pass data"
    )


def refuse_creation(self: object, remedy: str) -> NoReturn:
    """Raise TypeError; the `__init__` of a class whose objects the runtime creates.

    Args:
        remedy: what creates the objects, and what the caller may have meant.
    """
    raise TypeError(f"{type(self).__name__}() cannot be called by a program: {remedy}")
