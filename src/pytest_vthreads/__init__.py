"""pytest plugin: runs a test that is marked `vthreads` as the root virtual thread of a new runtime.

The mark accepts `clock`, `deadline`, `seed`, `order`, `leaks`, `patch` and `carriers`: see `vthreads.testing._root`,
which runs the test. Fixtures are set up and torn down outside the runtime, on the OS thread of pytest.

This module is not part of the package, and imports the package only for a test that needs it, so that it costs nothing
where vthreads is installed and not used.
"""

from __future__ import annotations

import functools
import inspect
import signal
import sys
import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager
from fnmatch import fnmatch
from importlib import import_module
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from vthreads.testing import VirtualClock

__all__ = ["explore", "virtual_clock"]

MARK = (
    "vthreads(clock='real', deadline=None, seed=None, order=None, leaks=True, patch=True, carriers=1): run the "
    "test as the root virtual thread of a new runtime, and check that it leaves nothing behind"
)


def pytest_addoption(parser: pytest.Parser) -> None:
    """Register the options of the ini file."""
    patterns = "ids of tests to run as root virtual threads, as if they were marked: patterns with *, one per line"
    parser.addini("vthreads_tests", patterns, type="linelist", default=[])
    parser.addini("vthreads_clock", "'virtual' or 'real', for tests whose mark does not set it", default="real")
    parser.addini("vthreads_deadline", "seconds on that clock that a test may take; empty for no limit", default="")


# The OS threads of pytest-xdist in this worker, by ident; empty outside a worker.
RUNNER_THREADS = pytest.StashKey[set[int]]()


def pytest_configure(config: pytest.Config) -> None:
    """Register the mark, and record the OS threads that a pytest-xdist worker has before the first test."""
    config.addinivalue_line("markers", MARK)
    in_worker = hasattr(config, "workerinput")
    config.stash[RUNNER_THREADS] = set(sys._current_frames()) - {threading.get_ident()} if in_worker else set()


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, object, object]:
    """Run the function of a selected test in a root virtual thread."""
    options = _options_of(item) if isinstance(item, pytest.Function) else None
    if options is None:
        return (yield)
    function = item.obj  # type: ignore[attr-defined]  # pytest.Function has it
    # Hypothesis calls the attribute `inner_test` for each example, so each example gets a new runtime.
    examples = getattr(function, "hypothesis", None)
    holder, name = (item, "obj") if examples is None else (examples, "inner_test")
    original = getattr(holder, name)
    setattr(holder, name, _rooted(original, options, item))
    try:
        return (yield)
    finally:
        setattr(holder, name, original)


def _options_of(item: pytest.Function) -> dict[str, Any] | None:
    """Return the options of the mark, completed by the ini file; None for a test that was not selected."""
    mark = item.get_closest_marker("vthreads")
    # Another plugin may have wrapped the function, to run it on an event loop.
    inner = inspect.unwrap(item.obj)
    is_coroutine = inspect.iscoroutinefunction(inner) or inspect.isasyncgenfunction(inner)
    if mark is None:
        patterns = item.config.getini("vthreads_tests")
        if is_coroutine or not any(fnmatch(item.nodeid, pattern) for pattern in patterns):
            return None
    elif is_coroutine:
        pytest.fail(f"{item.nodeid} is a coroutine function, which runs on an event loop: remove the mark", False)
    elif mark.args:
        pytest.fail(f"@pytest.mark.vthreads accepts keyword arguments only, got {mark.args!r}", False)
    options = {} if mark is None else dict(mark.kwargs)
    if "virtual_clock" in item.funcargs:
        options.setdefault("clock", item.funcargs["virtual_clock"])
    options.setdefault("clock", item.config.getini("vthreads_clock"))
    deadline = item.config.getini("vthreads_deadline")
    options.setdefault("deadline", float(deadline) if deadline else None)
    return options


def _rooted(function: Callable[..., object], options: dict[str, Any], item: pytest.Item) -> Callable[..., object]:
    from vthreads.testing._root import RootOptions, run_as_root

    try:
        root = RootOptions(**options)
    except (TypeError, ValueError) as error:
        pytest.fail(f"@pytest.mark.vthreads: {error}", False)

    def report(text: str) -> None:
        item.add_report_section("call", "vthreads", text)

    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> object:
        with _timeout_unparks_no_thread(), _runner_unparks_no_thread(item.config.stash[RUNNER_THREADS]):
            return run_as_root(functools.partial(function, *args, **kwargs), root, report)

    return call


@contextmanager
def _timeout_unparks_no_thread() -> Generator[None]:
    """Make deadlocks detectable: the signal handler of pytest-timeout counts as one that could unpark a thread."""
    from vthreads._calls.signals import quiet_handlers

    handler = signal.getsignal(signal.SIGALRM) if hasattr(signal, "SIGALRM") else None
    if not callable(handler) or handler.__module__ != "pytest_timeout":
        yield
        return
    quiet_handlers.append(handler)
    try:
        yield
    finally:
        quiet_handlers.remove(handler)


@contextmanager
def _runner_unparks_no_thread(idents: set[int]) -> Generator[None]:
    """Make deadlocks detectable in a pytest-xdist worker, whose receiving OS thread runs all the time."""
    from vthreads._core.os_thread_kinds import quiet_os_threads

    quiet_os_threads.update(idents)
    try:
        yield
    finally:
        quiet_os_threads.difference_update(idents)


@pytest.fixture
def virtual_clock() -> VirtualClock:
    """A virtual clock, which `time.monotonic` and similar functions follow; a marked test that uses it runs on it."""
    from vthreads.testing import VirtualClock

    return VirtualClock(patch_time=True)


@pytest.fixture
def explore() -> Any:
    """`vthreads.testing.explore`: run a function under many interleavings."""
    return import_module("vthreads.testing").explore
