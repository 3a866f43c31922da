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


KNOWN: tuple[Known, ...] = (
    Known(
        "test.test_socket.GeneralModuleTests.testRefCountGetNameInfo",
        "counts references after a C function has failed; here a frame of Python code in the traceback holds one",
    ),
    Known(
        "test.test_threading.ThreadTests.test_disallow_instantiation",
        "the type of a lock can be called, as it can be from Python 3.13 on",
        before=(3, 13),
    ),
    Known(
        "test.test_concurrent_futures.test_process_pool.*.test_idle_process_reuse_one",
        "the executor counts a worker as idle a moment after it has told the result, and whoever waits goes on sooner",
        since=(3, 12),
        sometimes=True,
    ),
)
