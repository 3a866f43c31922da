"""The public names: listed once, documented, and what design promises of them."""

from __future__ import annotations

import importlib
import inspect
import pkgutil

import pytest

import vthreads

PROMISED = [
    "ThreadGroup",
    "VirtualThread",
    "Future",
    "spawn",
    "run",
    "sleep",
    "checkpoint",
    "current_thread",
    "stopping",
    "remaining",
    "now",
    "CancelScope",
    "move_on_after",
    "move_on_at",
    "fail_after",
    "fail_at",
    "shield",
    "offload",
    "wait",
    "as_completed",
    "map",
    "gather",
    "race",
    "first_completed",
    "Lock",
    "RLock",
    "Condition",
    "Event",
    "Semaphore",
    "BoundedSemaphore",
    "Barrier",
    "Queue",
    "LifoQueue",
    "PriorityQueue",
    "SimpleQueue",
    "Mutex",
    "RwLock",
    "Channel",
    "receive_any",
    "local",
    "patch",
    "unpatch",
    "trace",
    "dump",
    "Cancelled",
    "Interrupted",
    "GroupClosed",
    "GroupFull",
    "ScopeMisuse",
    "DeadlockError",
    "ChannelClosed",
    "ShutDown",
    "Empty",
    "Full",
]

# Of these classes other modules of the runtime use more than users do.
FOR_USERS = {
    "VirtualThread": ["name", "ident", "is_alive", "join", "cancel", "interrupt", "stack"],
    "ThreadGroup": ["spawn", "try_spawn", "cancel", "close", "shutdown", "as_completed"],
    "CancelScope": ["cancel"],
    "Future": [
        "result",
        "exception",
        "done",
        "running",
        "cancelled",
        "cancel",
        "add_done_callback",
        "remove_done_callback",
    ],
    "Semaphore": ["acquire", "release", "statistics"],
}

CLASSES = [getattr(vthreads, name) for name in vthreads.__all__ if inspect.isclass(getattr(vthreads, name))]
FUNCTIONS = [getattr(vthreads, name) for name in vthreads.__all__ if inspect.isfunction(getattr(vthreads, name))]
METHODS = [
    method
    for cls in CLASSES
    for name, method in vars(cls).items()
    if inspect.isfunction(method) and not name.startswith("_") and name in FOR_USERS.get(cls.__name__, [name])
]
# Blocks say it of entering and leaving; what only hands on to a method that says it need not repeat it.
SAYS_WHETHER_IT_WAITS = ("checkpoint", "`spawn`", "`move_on_after`", "`fail_after`", "`lock`", "See `", "As `", "as `")


@pytest.mark.parametrize("name", PROMISED)
def test_every_public_name_tells_where_it_is_and_how_it_is_called(name):
    """On the compiled engine as well."""
    public = getattr(vthreads, name)
    if not inspect.ismodule(public):
        assert public is getattr(importlib.import_module(public.__module__), public.__name__)
        # An exception without arguments of its own has no signature anywhere.
        assert inspect.isclass(public) and issubclass(public, BaseException) or inspect.signature(public)


def test_everything_promised_is_there_and_nothing_else():
    assert sorted([*PROMISED, "errors"]) == sorted(vthreads.__all__)


def test_the_list_is_sorted_and_true():
    assert list(vthreads.__all__) == sorted(vthreads.__all__)
    assert all(hasattr(vthreads, name) for name in vthreads.__all__)


def test_every_module_lists_its_names():
    for module in pkgutil.walk_packages(vthreads.__path__, "vthreads."):
        # Importing it runs the command line; and this one is for a platform that is not ours.
        if module.name not in ("vthreads.__main__", "vthreads._core.engine.pollers.kqueue"):
            loaded = importlib.import_module(module.name)
            assert loaded.__doc__, module.name
            if hasattr(loaded, "__all__"):
                assert all(hasattr(loaded, name) for name in loaded.__all__), module.name


@pytest.mark.parametrize("named", CLASSES + FUNCTIONS, ids=lambda named: named.__name__)
def test_every_public_name_is_documented(named):
    assert inspect.getdoc(named)


@pytest.mark.parametrize("function", FUNCTIONS + METHODS, ids=lambda function: function.__qualname__)
def test_every_callable_says_whether_it_is_a_checkpoint(function):
    documentation = inspect.getdoc(function)
    assert documentation, function
    assert any(words in documentation for words in SAYS_WHETHER_IT_WAITS), documentation


@pytest.mark.parametrize("function", FUNCTIONS + METHODS, ids=lambda function: function.__qualname__)
def test_every_time_has_its_unit(function):
    documentation = inspect.getdoc(function)
    for name in inspect.signature(function).parameters:
        if name in ("timeout", "seconds", "deadline", "grace") and "ignored" not in documentation:
            assert any(words in documentation for words in ("second", "now()", "See `", "As `", "as `", "`lock`")), name
