"""Refuse copies of objects that must be shared, such as locks: what waits for a copy waits for nothing."""

from __future__ import annotations

from typing import NoReturn

__all__ = ["refuse_copy"]


def refuse_copy(self: object) -> NoReturn:
    """Raise TypeError; the `__reduce__` of a class whose objects can be neither copied nor pickled."""
    raise TypeError(
        f"cannot copy or pickle a {type(self).__name__}, because all that use it must share one object; "
        "pass the object itself, and to another process pass data"
    )
