"""Known deviations, each with its reason."""

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


ONE_OS_THREAD = "C code asks for the OS thread, which is the same for all virtual threads of a carrier"
MOCKED_LOOP = "replaces, on a loop that runs, what makes the runtime a guest of it"
DUMMY = "looks for what `threading` keeps of a dummy thread that has ended: nothing, as from Python 3.13 on"

KNOWN: tuple[Known, ...] = (
    # --- in both columns
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
    Known(
        "test.test_io.CBuffered*Test.test_repr",
        "expects the module of the class in its text; the class is found in `io` by pickles, and the text stays `_io.`",
    ),
    Known("test.test_asyncio.test_selector_events.*LoopTests.test_accept_connection_multiple", MOCKED_LOOP),
    Known("test.test_asyncio.test_selector_events.*.test_sock_connect_resolve_using_socket_params", MOCKED_LOOP),
    Known("test.test_asyncio.test_base_events.*LoopWithSelectorTests.test_log_slow_callbacks", MOCKED_LOOP),
    Known(
        "test.test_asyncio.test_futures.*FutureTests.*",
        "has a loop that accepts no timer but those of the test; a guest of the loop has its own",
        ("vthreads",),
        sometimes=True,
    ),
    # --- with patch(threads=True)
    Known(
        "test.test_asyncio.test_base_events.*LoopWithSelectorTests.test_create_connection_service_name",
        MOCKED_LOOP,
        ("threads",),
    ),
    Known(
        "test.test_threading.ThreadJoinOnShutdown.test_clear_threads_states_after_fork",
        "in the child of a fork, too, an OS thread looks who has computed for too long: `preempt`",
        ("threads",),
    ),
    Known("test.test_threading.ThreadTests.test_foreign_thread", DUMMY, ("threads",), before=(3, 13)),
    Known("test.test_threading.ThreadTests.test_ident_of_no_threading_threads", DUMMY, ("threads",), before=(3, 13)),
    Known("test.test_threading.ThreadTests.test_PyThreadState_SetAsyncExc", ONE_OS_THREAD, ("threads",)),
    Known("test.test_threading.ThreadTests.test_various_ops*", f"{ONE_OS_THREAD} (native_id)", ("threads",)),
    Known("test.test_sqlite3.test_dbapi.ThreadTests.*", f"{ONE_OS_THREAD}: sqlite3 lets them all in", ("threads",)),
    Known(
        "test.test_fork1.ForkTest.test_threaded_import_lock_fork",
        f"{ONE_OS_THREAD}: os.fork waits for the import lock of others",
        ("threads",),
    ),
    Known(
        "test.test_thread.ThreadRunningTests.test_unraisable_exception",
        "the failure of a thread that _thread itself started is told by threading.excepthook, with its spawn site",
        ("threads",),
    ),
)
