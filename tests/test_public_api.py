"""The public names: listed once, documented, with the promised signatures."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
import re
import subprocess
import sys
import typing
from collections import Counter
from pathlib import Path

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
    "standard_threads",
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
    "ThreadGroup": ["spawn", "submit", "try_spawn", "cancel", "close", "shutdown", "as_completed"],
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
    "BoundedSemaphore": ["acquire", "release", "statistics"],
}

# What `help` shows of each class beside what it inherits from the standard library: no method of the machine. Machine
# methods that other modules of the runtime call begin with an underscore.
QUEUE = [
    "empty",
    "full",
    "get",
    "get_nowait",
    "is_shutdown",
    "join",
    "maxsize",
    "put",
    "put_nowait",
    "qsize",
    "shutdown",
    "statistics",
    "task_done",
    "unfinished_tasks",
]
ATTRIBUTES = {
    "BoundedSemaphore": ["acquire", "release", "statistics"],
    "CancelScope": ["cancel", "cancel_called", "cancelled_caught", "deadline", "shield"],
    "Future": ["remove_done_callback", "thread"],
    "Semaphore": ["acquire", "release", "statistics"],
    "VirtualThread": ["cancel", "context", "group", "interrupt", "stack", "state"],
    "Barrier": ["abort", "broken", "n_waiting", "parties", "reset", "statistics", "wait"],
    "Channel": ["close", "closed", "receive", "send", "statistics"],
    "Condition": ["notify", "notify_all", "statistics", "wait", "wait_for"],
    "Event": ["clear", "is_set", "set", "statistics", "wait"],
    "LifoQueue": QUEUE,
    "Lock": ["acquire", "locked", "release", "statistics"],
    "Mutex": ["guard", "lock", "statistics", "try_lock"],
    "PriorityQueue": QUEUE,
    "Queue": QUEUE,
    "RLock": ["acquire", "locked", "release", "statistics"],
    "RwLock": ["read", "statistics", "write"],
    "SimpleQueue": [name for name in QUEUE if name not in ("full", "join", "shutdown", "task_done")],
    "ThreadGroup": ["as_completed", "cancel", "close", "current", "shutdown", "spawn", "submit", "try_spawn"],
    "local": [],
}
# Shown by the compiled queues; the readable ones set them on each instance, which `help` of the class does not see.
FIELDS = {"is_shutdown", "maxsize", "unfinished_tasks"}
# Set on each instance.
OF_INSTANCES = {"ThreadGroup": ["name"]}
MODULES = [
    "vthreads",
    "vthreads.aio",
    "vthreads.debug",
    "vthreads.errors",
    "vthreads.integrations",
    "vthreads.integrations.asgiref",
    "vthreads.integrations.celery",
    "vthreads.integrations.dask",
    "vthreads.integrations.gunicorn",
    "vthreads.integrations.starlette",
    "vthreads.serve",
    "vthreads.testing",
]
# Modules that only the program of one package imports: without the package they cannot be imported.
NEEDING = {"vthreads.integrations.celery": "celery"}

CLASSES = [getattr(vthreads, name) for name in vthreads.__all__ if inspect.isclass(getattr(vthreads, name))]
FUNCTIONS = [getattr(vthreads, name) for name in vthreads.__all__ if inspect.isfunction(getattr(vthreads, name))]
METHODS = [
    method
    for cls in CLASSES
    for base in cls.__mro__
    if base.__module__.startswith("vthreads")
    for name, method in vars(base).items()
    if inspect.isfunction(method) and not name.startswith("_") and name in FOR_USERS.get(cls.__name__, [name])
]
# Modules with a case for each class that threads wait for; `sync/test_waiting.py` has a test for that. A case of the
# base class is enough.
TESTS_OF_WAITS = ["matrix/test_own_waits.py", "properties/test_primitives.py", "test_arguments.py"]
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


# Classes whose objects the runtime creates, with a part of the message that says what a program calls instead.
CREATED_BY_THE_RUNTIME = {
    "vthreads.Future": "for an outcome that the program sets, use concurrent.futures.Future()",
    "vthreads.VirtualThread": "vthreads.spawn(fn, *args) create virtual threads and start them",
    "vthreads.serve.Server": "serve.tcp and serve.wsgi create the server",
    "vthreads.serve.WebSocket": "serve.websocket creates it",
    "vthreads.testing.MemoryListener": "listen() and connect() of a Network create sockets in memory",
    "vthreads.testing.MemorySocket": "memory_socketpair()",
}
# Their functions only call the class, so that a program may call it as well.
CREATED_BY_A_FUNCTION = {"vthreads.debug.Observation", "vthreads.debug.Trace"}


@pytest.mark.parametrize("arguments", [((), {}), ((print,), {}), ((), {"target": print, "args": (1,)})], ids=str)
@pytest.mark.parametrize("name", CREATED_BY_THE_RUNTIME)
def test_a_class_that_the_runtime_creates_says_what_to_call_instead(name, arguments):
    package, _, class_name = name.rpartition(".")
    public = getattr(importlib.import_module(package), class_name)
    positional, keywords = arguments

    class Derived(public):
        pass

    for called in (public, Derived):
        with pytest.raises(TypeError) as caught:
            called(*positional, **keywords)
        assert str(caught.value).startswith(f"{called.__name__}() cannot be called by a program: ")
        assert CREATED_BY_THE_RUNTIME[name] in str(caught.value)


def test_each_class_that_says_what_creates_it_has_such_a_message():
    created = {
        f"{package}.{name}"
        for package in ("vthreads", "vthreads.aio", "vthreads.debug", "vthreads.serve", "vthreads.testing")
        for name, value in inspect.getmembers(importlib.import_module(package), inspect.isclass)
        if name[0] != "_" and "Created by " in (value.__doc__ or "")
    }
    assert {*CREATED_BY_THE_RUNTIME} == created - CREATED_BY_A_FUNCTION


def test_everything_promised_is_there_and_nothing_else():
    promised = sorted([*PROMISED, "errors"])
    assert promised == sorted(vthreads.__all__), "list a public name in `vthreads.__all__` and in PROMISED"


def test_only_the_promised_modules_are_public():
    """As type checkers count it: a module is private if a part of its name begins with an underscore."""
    named = ["vthreads", *(module.name for module in pkgutil.walk_packages(vthreads.__path__, "vthreads."))]
    public = [name for name in named if not any(part.startswith("_") for part in name.split("."))]
    assert sorted(MODULES) == sorted(public)


def attributes_for_users(cls):
    ours = [base for base in cls.__mro__ if base.__module__.partition(".")[0] == "vthreads"]
    stdlib = {name for base in cls.__mro__ if base not in ours for name in vars(base)}
    return {name for base in ours for name in vars(base) if not name.startswith("_") and name not in stdlib}


def test_the_attributes_of_every_class_are_listed():
    plain = {cls.__name__ for cls in CLASSES if not issubclass(cls, BaseException)}
    assert plain == set(ATTRIBUTES), "list in ATTRIBUTES what the class shows to users"


@pytest.mark.parametrize("name", ATTRIBUTES)
def test_a_class_shows_only_what_is_for_users(name):
    shown = attributes_for_users(getattr(vthreads, name))
    assert sorted(set(ATTRIBUTES[name]) - FIELDS) == sorted(shown - FIELDS)
    assert shown <= set(ATTRIBUTES[name])


@pytest.mark.parametrize("module", TESTS_OF_WAITS)
def test_every_primitive_has_a_case_in(module):
    named = set(re.findall(r"\w+", (Path(__file__).parent / module).read_text("utf-8")))
    for cls in CLASSES:
        if hasattr(cls, "statistics"):
            assert named & {base.__name__ for base in cls.__mro__ if base.__module__.startswith("vthreads")}, cls


def test_the_package_shows_only_its_public_names_and_modules():
    shown = {name for name in dir(vthreads) if not name.startswith("_")}
    modules = {name for name in shown if f"vthreads.{name}" in sys.modules}
    assert set(vthreads.__all__) == shown - modules | set(vthreads.__all__) & modules
    assert {"debug", "errors"} <= modules


def test_an_object_shows_only_what_is_for_users():
    """Attributes that `help` of the class does not see, because they are set on the instance."""

    def root():
        with vthreads.ThreadGroup() as group, vthreads.shield(1) as shield, vthreads.fail_after(1) as limit:
            future = group.spawn(vthreads.checkpoint)
            return [(type(one), dir(one)) for one in (group, future, future.thread, limit, shield)]

    for cls, names in vthreads.run(root):
        expected = set(OF_INSTANCES.get(cls.__name__, [])).union(
            *(ATTRIBUTES.get(base.__name__, ()) for base in cls.__mro__)
        )
        stdlib = {
            name for base in cls.__mro__ if base.__module__.partition(".")[0] != "vthreads" for name in vars(base)
        }
        assert sorted(expected) == sorted(name for name in names if name[0] != "_" and name not in stdlib)


def test_the_list_is_sorted_and_true():
    assert list(vthreads.__all__) == sorted(vthreads.__all__)
    assert all(hasattr(vthreads, name) for name in vthreads.__all__)


@pytest.mark.parametrize("name", ["vthreads", "vthreads.aio", "vthreads.debug", "vthreads.serve", "vthreads.testing"])
def test_a_package_lists_all_that_it_offers(name):
    """The reference and `import *` read `__all__`, while an attribute works without it."""
    package = importlib.import_module(name)
    classes_and_functions = {
        attribute
        for attribute, value in vars(package).items()
        if attribute[0] != "_" and getattr(value, "__module__", "").startswith("vthreads.")
    }
    # The module, and its exceptions, of which some are those of the standard library.
    others = {"errors", *vthreads.errors.__all__} if package is vthreads else set()
    assert {*package.__all__} == {*getattr(package, "HOMES", ()), *classes_and_functions, *others}


def test_a_public_module_is_an_attribute_of_the_package():
    """Pages and messages name `vthreads.serve.tcp` and others, which a program may write after `import vthreads`."""
    for name in ("aio.run", "debug.serve", "errors.Full", "integrations.__name__", "serve.tcp", "testing.VirtualClock"):
        subprocess.run([sys.executable, "-c", f"import vthreads; vthreads.{name}"], check=True)


def test_every_module_lists_its_names():
    for module in pkgutil.walk_packages(vthreads.__path__, "vthreads."):
        # Importing it runs the command line; and this one is for a platform that is not ours.
        if module.name not in ("vthreads.__main__", "vthreads._core.engine.pollers.kqueue", *NEEDING):
            loaded = importlib.import_module(module.name)
            assert loaded.__doc__, module.name
            if hasattr(loaded, "__all__"):
                assert all(hasattr(loaded, name) for name in loaded.__all__), module.name


def test_a_constant_or_function_is_exported_for_another_file():
    """One that only its module uses is a detail of it. A class may be exported as the type of another export."""
    files = Counter(name for path in sources() for name in set(re.findall(r"\w+", path.read_text("utf-8"))))
    for module in pkgutil.walk_packages(vthreads.__path__, "vthreads."):
        if "._" in module.name and module.name not in ("vthreads._core.engine.pollers.kqueue", *NEEDING):
            loaded = importlib.import_module(module.name)
            exported = {name: getattr(loaded, name) for name in getattr(loaded, "__all__", ())}
            assert [] == [n for n, value in exported.items() if files[n] == 1 and not inspect.isclass(value)], module


def sources():
    """The files of the repository that may use a name of a private module."""
    root = Path(__file__).parents[1]
    for folder in ("src", "tests", "docs", "benchmarks"):
        yield from (path for path in root.glob(f"{folder}/**/*.*") if path.suffix in (".py", ".pyx", ".pxi", ".md"))


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
            says = ("second", "now()", "See `", "see `", "As `", "as `", "ike `")
            assert any(words in documentation for words in says), name


def annotated(named):
    """Yield what has annotations in a public name: the function itself, or the class with its bases and methods."""
    if not inspect.isclass(named):
        yield named
        return
    for base in named.__mro__:
        if base.__module__.partition(".")[0] == "vthreads":
            yield base
            for name, attribute in vars(base).items():
                method = (
                    attribute.fget if isinstance(attribute, property) else getattr(attribute, "__func__", attribute)
                )
                # The standard library makes `__new__` of a named tuple, in a module of that name.
                if getattr(method, "__module__", None) == f"namedtuple_{base.__name__}":
                    continue
                if inspect.isroutine(method) and (not name.startswith("_") or name.endswith("__")):
                    yield method


@pytest.mark.parametrize("module", MODULES)
def test_every_annotation_of_a_public_name_can_be_resolved(module):
    """Libraries for injection, validation and command lines do that, for functions that they have never seen."""
    if module in NEEDING:
        pytest.importorskip(NEEDING[module], reason=f"{NEEDING[module]} is not installed")
    loaded = importlib.import_module(module)
    publics = [getattr(loaded, name) for name in getattr(loaded, "__all__", dir(loaded)) if name[0] != "_"]
    resolved = 0
    for public in publics:
        if callable(public):
            for one in annotated(public):
                # Methods of compiled classes that have no Python method: Cython adds them.
                if inspect.isclass(one) or hasattr(one, "__annotations__"):
                    typing.get_type_hints(one)
                    resolved += 1
    # Some names are classes of the standard library, depending on the Python version.
    assert resolved


def test_annotations_cost_no_import():
    """`statistics` returns data classes, and `dataclasses` imports much: only a caller or a reader of types pays."""
    program = """
import sys, typing, vthreads
vthreads.Lock, vthreads.Mutex, vthreads.Queue, vthreads.Channel, vthreads.Condition, vthreads.Barrier, vthreads.Event
assert not [name for name in sys.modules if name.startswith("vthreads") and name.endswith(".statistics")]
assert "LockStatistics" == typing.get_type_hints(vthreads.Lock.statistics)["return"].__name__
assert "vthreads._sync.statistics" in sys.modules
"""
    subprocess.run([sys.executable, "-c", program], check=True)
