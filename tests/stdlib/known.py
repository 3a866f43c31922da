"""The deviations that are known, with the reason of each."""

import sys
from dataclasses import dataclass
from fnmatch import fnmatchcase

__all__ = ["KNOWN", "Known"]


@dataclass(frozen=True)
class Known:
    """Tests that pass on plain Python and do not, or `sometimes` do not, in these columns.

    `tests` is a pattern of names, as of files. `since` and `before` bound the versions of Python.
    """

    tests: str
    reason: str
    columns: tuple[str, ...] = ("vthreads", "threads")
    since: tuple[int, int] = (3, 11)
    before: tuple[int, int] = (4, 0)
    sometimes: bool = False

    def covers(self, column: str, name: str) -> bool:
        now = sys.version_info[:2]
        return column in self.columns and self.since <= now < self.before and fnmatchcase(name, self.tests)


KNOWN: tuple[Known, ...] = ()
