"""Heads that were accepted before, by their bytes: what a client repeats is parsed and checked once.

All rules of a head depend on its bytes alone, so equal bytes have an equal outcome. Most clients repeat all fields and
change the target, so the lines of the fields are known apart from the request line:

- The whole head is known: it is used again as it is.
- The lines of the fields are known, and the request line has a common form: a head of these two. In that form (see
  `COMMON_LINE`) no rule depends on the request line. Only heads of that form are kept, so that the rules which depend
  on the version have had the same version before.

Fields are kept when they occur for the second time: cookies and tokens often make them unique, and a kept head with its
environment fills caches and burdens the garbage collector until others replace it.

A head with a field that only a trusted proxy may set is not kept: the connection decides about those.
"""

from __future__ import annotations

import re

from .heads import Head
from .recent import Recent

__all__ = ["KnownHeads"]

# RFC 3986, 3.3 and 3.4: a path and a query in origin form, without "#". Fewer methods than llhttp knows.
COMMON_LINE = re.compile(
    rb"(GET|HEAD|POST|PUT|PATCH|DELETE) (/[A-Za-z0-9\-._~!$&'()*+,;=:@/?%]{0,2000}) HTTP/1\.1", re.ASCII
)
# Together with the longest head, the bound of the memory.
MOST_KEPT = 128
LONGEST_KEPT = 2 << 10
# Hashes that are remembered. Equal ones of different fields only cause that one of them is kept too early.
MOST_SEEN = 1 << 10


class KnownHeads:
    """The known heads of one server."""

    __slots__ = ("_by_fields", "_seen", "_whole")

    def __init__(self) -> None:
        self._whole = Recent(MOST_KEPT)
        self._by_fields = Recent(MOST_KEPT)
        # The hashes of fields that have occurred.
        self._seen = Recent(MOST_SEEN)

    def find(self, raw: bytes) -> Head | None:
        """Return the head with the bytes `raw`, if it is known; treat it as immutable."""
        head: Head | None = self._whole.get(raw)
        if head is None:
            end = raw.find(b"\r\n")
            similar: Head | None = self._by_fields.get(raw[end:])
            if similar is not None and (line := COMMON_LINE.fullmatch(raw, 0, end)) is not None:
                method, target = line.groups()
                head = similar.with_line(method.decode("ascii"), target)
                self._whole.add(raw, head)
        return head

    def keep(self, raw: bytes, head: Head) -> None:
        """Keep `head`, which is parsed from `raw` and was accepted by all rules, if it is likely to be used again."""
        if len(raw) > LONGEST_KEPT or head.is_forwarded:
            return
        end = raw.find(b"\r\n")
        key = hash(raw[end:])
        if self._seen.get(key) is None:
            self._seen.add(key, True)
            return
        if COMMON_LINE.fullmatch(raw, 0, end) is not None:
            head.is_kept = True
            self._whole.add(raw, head)
            self._by_fields.add(raw[end:], head)
