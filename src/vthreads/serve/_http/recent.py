"""A bounded table that keeps what was used lately."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any

__all__ = ["Recent"]


class Recent:
    """A table of at most `2 * most` entries.

    Two dictionaries: a full one becomes the older one, and the older one is dropped. An entry that is used meanwhile
    returns to the newer one. That costs two lookups for an unknown key, where an order of use would cost an update for
    each known one.
    """

    __slots__ = ("_most", "_newer", "_older")

    def __init__(self, most: int) -> None:
        self._most = most
        self._newer: dict[Hashable, Any] = {}
        self._older: dict[Hashable, Any] = {}

    def __len__(self) -> int:
        return len(self._newer) + len(self._older)

    def get(self, key: Hashable) -> Any:
        """Return the value of `key`, or None."""
        value = self._newer.get(key)
        if value is None:
            value = self._older.get(key)
            if value is not None:
                self.add(key, value)
        return value

    def add(self, key: Hashable, value: Any) -> None:
        """Add an entry."""
        if len(self._newer) >= self._most:
            self._older = self._newer
            self._newer = {}
        self._newer[key] = value
