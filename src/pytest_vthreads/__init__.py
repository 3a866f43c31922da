"""pytest plugin: a test marked `vthreads` runs as the root virtual thread of a runtime of its own.

The mark takes `clock`, `deadline`, `seed`, `order`, `leaks` and `patch`: see `vthreads.testing.rooted`, which does the
work. Fixtures are set up and torn down outside of the runtime, on the OS thread of pytest.

This module stands outside of the package and imports nothing of it until a test asks, so that it costs nothing where
vthreads is only installed.
"""

from __future__ import annotations

import functools
import inspect
import signal
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
    "vthreads(clock='real', deadline=None, seed=None, order=None, leaks=True, patch=True): run the test as the root "
    "virtual thread of a runtime of its own, with a look for what it leaves behind"
)


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add what the ini file may say."""
    patterns = "ids of tests to run as root virtual threads, as if they were marked: patterns with *, one a line"
    parser.addini("vthreads_tests", patterns, type="linelist", default=[])
    parser.addini("vthreads_clock", "'virtual' or 'real', for tests that do not say it themselves", default="real")
    parser.addini("vthreads_deadline", "seconds on that clock that a test may take; empty for no limit", default="")


def pytest_configure(config: pytest.Config) -> None:
    """Make the mark known."""
    config.addinivalue_line("markers", MARK)


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, object, object]:
    """Have the function of a chosen test called by a root virtual thread."""
    options = _options_of(item) if isinstance(item, pytest.Function) else None
    if options is None:
        return (yield)
    function = item.obj  # type: ignore[attr-defined]  # a function, as was just seen
    # Of a test of Hypothesis each example has a runtime of its own: it calls this attribute, for plugins to replace.
    examples = getattr(function, "hypothesis", None)
    holder, name = (item, "obj") if examples is None else (examples, "inner_test")
    original = getattr(holder, name)
    setattr(holder, name, _rooted(original, options, item))
    try:
        return (yield)
    finally:
        setattr(holder, name, original)


def _options_of(item: pytest.Function) -> dict[str, Any] | None:
    """What the mark says, completed by the ini file; None for a test that was not chosen."""
    mark = item.get_closest_marker("vthreads")
    # A plugin may have put a function around it that runs it on a loop.
    inner = inspect.unwrap(item.obj)
    is_coroutine = inspect.iscoroutinefunction(inner) or inspect.isasyncgenfunction(inner)
    if mark is None:
        patterns = item.config.getini("vthreads_tests")
        if is_coroutine or not any(fnmatch(item.nodeid, pattern) for pattern in patterns):
            return None
    elif is_coroutine:
        pytest.fail(f"{item.nodeid} is a coroutine function, which needs no virtual thread: take the mark off", False)
    elif mark.args:
        pytest.fail(f"@pytest.mark.vthreads takes keyword arguments only, not {mark.args!r}", False)
    options = {} if mark is None else dict(mark.kwargs)
    if "virtual_clock" in item.funcargs:
        options.setdefault("clock", item.funcargs["virtual_clock"])
    options.setdefault("clock", item.config.getini("vthreads_clock"))
    deadline = item.config.getini("vthreads_deadline")
    options.setdefault("deadline", float(deadline) if deadline else None)
    return options


def _rooted(function: Callable[..., object], options: dict[str, Any], item: pytest.Item) -> Callable[..., object]:
    from vthreads.testing.rooted import RootOptions, run_as_root

    try:
        root = RootOptions(**options)
    except (TypeError, ValueError) as error:
        pytest.fail(f"@pytest.mark.vthreads: {error}", False)

    def tell(text: str) -> None:
        item.add_report_section("call", "vthreads", text)

    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> object:
        with _timeout_unparks_nobody():
            return run_as_root(functools.partial(function, *args, **kwargs), root, tell)

    return call


@contextmanager
def _timeout_unparks_nobody() -> Generator[None]:
    """Let a deadlock be found at once: pytest-timeout has a signal handler, which could unpark somebody."""
    from vthreads.signals import quiet_handlers

    handler = signal.getsignal(signal.SIGALRM) if hasattr(signal, "SIGALRM") else None
    if not callable(handler) or handler.__module__ != "pytest_timeout":
        yield
        return
    quiet_handlers.append(handler)
    try:
        yield
    finally:
        quiet_handlers.remove(handler)


@pytest.fixture
def virtual_clock() -> VirtualClock:
    """A virtual clock, which `time.monotonic` and the like follow; a marked test that asks for it runs on it."""
    from vthreads.testing import VirtualClock

    return VirtualClock(patch_time=True)


@pytest.fixture
def explore() -> Any:
    """`vthreads.testing.explore`: run a function under many interleavings."""
    return import_module("vthreads.testing").explore
