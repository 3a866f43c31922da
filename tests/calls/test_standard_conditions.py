"""Conditions, semaphores, events, queues and futures of the standard library: they stay what they are.

Subclasses, mocks and foreign locks are used as by the original methods, and a cancellation at any moment loses nothing.
"""

from __future__ import annotations

import ast
import concurrent.futures
import io
import queue
import sys
import textwrap
import threading
import tokenize
from collections import deque
from concurrent.futures import _base
from hashlib import sha256
from pathlib import Path
from unittest import mock

import pytest

import vthreads
from vthreads import ThreadGroup, checkpoint
from vthreads._calls.standard_conditions import CLASSES, KNOWN
from vthreads._core.engine import engine_name

pytestmark = pytest.mark.unpatched

# --- the code that is repeated

# Digests of the bodies without docstrings, comments and layout, one for each variant in the known versions of Python.
REPEATED = {
    "Condition.__init__": {"ffbeb63e", "ec549303"},
    "Condition.__enter__": {"5d1ad869"},
    "Condition.__exit__": {"3fd35eeb"},
    "Condition._release_save": {"d6bafa6c"},
    "Condition._is_owned": {"1fb48cb0"},
    "Condition.wait": {"e0f10e22"},
    "Condition.notify": {"21801f34"},
    "Condition.notify_all": {"0397b285"},
    "Semaphore.acquire": {"62b89714"},
    "Semaphore.release": {"7e6f9229", "daa7d946"},
    "Event.__init__": {"b77a4fea"},
    "Event.set": {"4010f09a"},
    "Event.wait": {"aef2bf7b"},
    "Queue.put": {"b325bff2", "19b33d54"},
    "Queue.get": {"5f3b8e66", "f65f528f"},
    "Queue._qsize": {"4996e9f9"},
    "Queue._put": {"8e1fa53d"},
    "Queue._get": {"6caa670d"},
    "Future._invoke_callbacks": {"e842084a"},
    "Future.cancel": {"46f25abc"},
    "Future.result": {"7e93b716"},
    "Future.set_running_or_notify_cancel": {"9058fa84"},
    "Future.set_result": {"bd93974b"},
}


def bodies_of(module):
    """Name and digest of each method of a module."""
    text = Path(module.__file__).read_text(encoding="utf-8")
    lines = text.split("\n")
    for node in ast.parse(text).body:
        for method in getattr(node, "body", ()):
            if isinstance(method, ast.FunctionDef) and method.body:
                body = method.body[1:] if ast.get_docstring(method) is not None else method.body
                code = textwrap.dedent("\n".join(lines[body[0].lineno - 1 : method.end_lineno]) if body else "")
                tokens = tokenize.generate_tokens(io.StringIO(code + "\n").readline)
                kept = [token.string for token in tokens if token.type != tokenize.COMMENT and token.string.strip()]
                yield f"{getattr(node, 'name', '')}.{method.name}", sha256(" ".join(kept).encode()).hexdigest()[:8]


@pytest.mark.skipif(not KNOWN, reason="on this version of Python no method of the standard library is repeated")
def test_the_standard_library_has_the_code_that_is_repeated():
    found = {name: digest for module in (threading, queue, _base) for name, digest in bodies_of(module)}
    assert [] == [name for name, digests in REPEATED.items() if found[name] not in digests]


@pytest.mark.parametrize("cls", CLASSES)
def test_the_classes_stay_those_of_the_standard_library(cls):
    before = sys.modules[cls.__module__].__dict__[cls.__name__]
    vthreads.patch()
    assert before is sys.modules[cls.__module__].__dict__[cls.__name__]


@pytest.mark.skipif(engine_name != "accelerated" or not KNOWN, reason="only the compiled engine repeats methods")
@pytest.mark.parametrize("name", [name for name in REPEATED if not name.rpartition(".")[2].startswith("_")])
def test_the_repeated_methods_are_compiled(name):
    vthreads.patch()
    kind, _, method = name.partition(".")
    [cls] = [cls for cls in CLASSES if cls.__name__ == kind]
    assert type(vars(cls)[method]).__name__ == "cython_function_or_method"


# --- parts that a program replaces


def patched(virtual, root):
    return virtual(root, patch=True)


def test_methods_of_a_subclass_are_called(virtual):
    log = []

    class Logged(queue.Queue):
        def _init(self, maxsize):
            self.items = []

        def _qsize(self):
            log.append("size")
            return len(self.items)

        def _put(self, item):
            log.append("put")
            self.items.append(item)

        def _get(self):
            log.append("get")
            return self.items.pop()

    def root():
        logged = Logged(2)
        logged.put(1)
        logged.put(2)
        return logged.get()

    assert (2, ["size", "put", "size", "put", "size", "get"]) == (patched(virtual, root), log)


@pytest.mark.parametrize("kind", [queue.PriorityQueue, queue.LifoQueue])
def test_other_queues_keep_their_order(virtual, kind):
    def root():
        one = kind()
        for item in (2, 3, 1):
            one.put(item)
        return [one.get() for _ in range(3)]

    assert {queue.PriorityQueue: [1, 2, 3], queue.LifoQueue: [1, 3, 2]}[kind] == patched(virtual, root)


def test_mocks_of_methods_are_called(virtual):
    def root():
        one = queue.Queue()
        with mock.patch.object(threading.Condition, "notify") as of_class:
            one.put(1)
        with mock.patch.object(one.not_full, "notify") as of_object:
            one.get()
        event, semaphore = threading.Event(), threading.Semaphore()
        with mock.patch.object(event._cond, "notify_all") as of_event:
            event.set()
        with mock.patch.object(semaphore._cond, "notify") as of_semaphore:
            semaphore.release()
        return [each.call_count for each in (of_class, of_object, of_event, of_semaphore)]

    assert [1, 1, 1, 1] == patched(virtual, root)


@pytest.mark.parametrize("call", [(threading.Event, "set"), (queue.Queue, "get"), (threading.Condition, "notify_all")])
def test_a_mock_with_the_signature_of_a_method_gets_its_object(virtual, call):
    cls, name = call

    def root():
        one = cls()
        with mock.patch.object(cls, name, autospec=True) as method:
            getattr(one, name)()
            with pytest.raises(TypeError):
                getattr(one, name)(no_such_argument=1)
        return method.call_args == mock.call(one)

    assert patched(virtual, root)


def test_a_mocked_wait_is_called(virtual):
    def root():
        semaphore, one = threading.Semaphore(0), queue.Queue()
        # `release` inside `wait` needs the lock once more.
        semaphore._cond = threading.Condition(threading.RLock())
        with mock.patch.object(semaphore._cond, "wait", side_effect=lambda _: semaphore.release()):
            semaphore.acquire()
        with mock.patch.object(one.not_empty, "wait", side_effect=lambda: one.queue.append("item")):
            return one.get()

    assert "item" == patched(virtual, root)


def test_a_subclass_of_condition_is_used(virtual):
    waits = []

    class Counting(threading.Condition):
        def wait(self, timeout=None):
            waits.append(timeout)
            return super().wait(timeout)

    def root():
        with mock.patch.object(threading, "Condition", Counting):
            event, semaphore = threading.Event(), threading.Semaphore(0)
        assert type(event._cond) is type(semaphore._cond) is Counting
        with ThreadGroup() as group:
            group.spawn(event.wait, 5)
            group.spawn(semaphore.acquire)
            checkpoint()
            event.set()
            semaphore.release()
        return waits

    assert [5, None] == patched(virtual, root)


class Items:
    """A container that is no deque, and counts the calls of its methods."""

    def __init__(self):
        self.items, self.calls = [], 0

    def __len__(self):
        return len(self.items)

    def append(self, item):
        self.calls += 1
        self.items.append(item)

    def popleft(self):
        self.calls += 1
        return self.items.pop(0)


class CountingDeque(deque):
    calls = 0

    def append(self, item):
        self.calls += 1
        super().append(item)

    def popleft(self):
        self.calls += 1
        return super().popleft()


@pytest.mark.parametrize("container", [Items, CountingDeque])
def test_a_queue_uses_the_methods_of_its_container(virtual, container):
    class Own(queue.Queue):
        def _init(self, maxsize):
            self.queue = container()

    def root():
        own = Own()
        own.put("item")
        return own.get(), own.queue.calls

    assert ("item", 2) == patched(virtual, root)


def refuse(*_):
    raise LookupError("refused")


PARTS = ["_is_owned", "_release_save", "_acquire_restore"]


@pytest.mark.parametrize("of_class", [False, True])
@pytest.mark.parametrize("part", PARTS)
@pytest.mark.parametrize("kind", ["event", "semaphore", "put", "get"])
def test_a_wait_whose_part_raises_frees_the_lock(virtual, kind, part, of_class):
    def root():
        waits = Waits(kind)
        if part == "_acquire_restore":
            # It is called at the end of the wait, and like that of the library it leaves the lock held.
            def replaced(*_):
                waits.lock._lock.acquire()
                refuse()

        else:
            replaced = refuse
        with mock.patch.object(threading.Condition if of_class else waits.lock, part, replaced):
            with ThreadGroup() as group:
                group.spawn(fails, waits.call)
                checkpoint()
                if part == "_acquire_restore":
                    waits.lock._waiters[0].release()
        assert not waits.lock._lock.locked()

    def fails(call):
        with pytest.raises(LookupError):
            call()

    patched(virtual, root)


@pytest.mark.parametrize("sizes", [(1, 0), (0, 1)])
def test_put_uses_the_size_that_its_queue_has_after_the_checkpoint(virtual, sizes):
    reads = []

    class Changing(queue.Queue):
        @property
        def maxsize(self):
            reads.append(self)
            return sizes[min(len(reads) - 1, 1)]

        @maxsize.setter
        def maxsize(self, size):
            pass

    def root():
        one = Changing()
        one.queue.append("old")
        with ThreadGroup() as group:
            group.spawn(one.put, "new")
            checkpoint()
            items = list(one.queue)
            one.get()
        return items

    assert (["old", "new"] if sizes[1] == 0 else ["old"]) == patched(virtual, root)


@pytest.mark.parametrize("call", ["put", "get", "release", "set", "notify"])
def test_an_owner_check_is_called_even_if_nobody_waits(virtual, call):
    def root():
        one, semaphore, event = queue.Queue(), threading.Semaphore(0), threading.Event()
        one.queue.append("item")
        condition, method = {
            "put": (one.not_empty, lambda: one.put("item")),
            "get": (one.not_full, one.get),
            "release": (semaphore._cond, semaphore.release),
            "set": (event._cond, event.set),
            "notify": (event._cond, event._cond.notify),
        }[call]
        with mock.patch.object(condition, "_is_owned", return_value=True) as owner_check:
            method()
        return owner_check.call_count

    assert 1 == patched(virtual, root)


def test_a_replaced_wait_gets_the_arguments_of_the_library(virtual):
    calls = []

    def root():
        semaphore, one, event = threading.Semaphore(0), queue.Queue(1), threading.Event()
        with mock.patch.object(semaphore._cond, "wait") as wait:
            wait.side_effect = lambda *arguments: (calls.append(arguments), setattr(semaphore, "_value", 1))
            semaphore.acquire()
        with mock.patch.object(one.not_empty, "wait") as wait:
            wait.side_effect = lambda *arguments: (calls.append(arguments), one.queue.append("item"))
            one.get()
        with mock.patch.object(event._cond, "wait") as wait:
            wait.side_effect = lambda *arguments: calls.append(arguments)
            event.wait(3)

    patched(virtual, root)
    assert [(None,), (), (3,)] == calls


@pytest.mark.parametrize("call", ["release", "set"])
def test_giving_back_does_not_raise_if_a_replaced_notify_has_checkpoints(virtual, call):
    def root():
        given = []

        def gives():
            semaphore, event = threading.Semaphore(0), threading.Event()
            condition = {"release": semaphore._cond, "set": event._cond}[call]
            vthreads.current_thread()._future.cancel()
            name = {"release": "notify", "set": "notify_all"}[call]
            with mock.patch.object(condition, name, side_effect=lambda *_: checkpoint()):
                {"release": semaphore.release, "set": event.set}[call]()
                given.append(call)

        with ThreadGroup() as group:
            group.spawn(gives)
        return given

    assert [call] == patched(virtual, root)


@pytest.mark.parametrize("make", [vthreads.Lock, vthreads.RLock])
def test_a_condition_on_a_foreign_lock_works(virtual, make):
    def root():
        condition, log = threading.Condition(make()), []

        def waits():
            with condition:
                log.append(condition.wait())

        with ThreadGroup() as group:
            group.spawn(waits)
            with condition:
                condition.notify()
        return log

    assert [True] == patched(virtual, root)


@pytest.mark.parametrize("call", ["wait", "notify", "notify_all"])
@pytest.mark.parametrize("lock", ["Lock", "RLock"])
def test_a_condition_must_be_owned(virtual, call, lock):
    def root():
        condition = threading.Condition(getattr(threading, lock)())
        with pytest.raises(RuntimeError, match="un-acquired lock"):
            getattr(condition, call)()

    patched(virtual, root)


@pytest.mark.parametrize("call", ["put", "get"])
def test_a_queue_that_is_shut_down_refuses_its_waiter(virtual, call):
    if not hasattr(queue, "ShutDown"):
        pytest.skip("queues of this version of Python cannot be shut down")

    def root():
        one = queue.Queue(1)
        if call == "put":
            one.put(0)
        with ThreadGroup(on_failure="continue") as group:
            waiting = group.spawn(one.put, 1) if call == "put" else group.spawn(one.get)
            checkpoint()
            one.shutdown()
            assert isinstance(waiting.exception(), queue.ShutDown)
        assert not one.mutex.locked()

    patched(virtual, root)


# --- cancellation


class Waits:
    """A call that waits, what ends the wait, and the lock that must be free afterwards."""

    def __init__(self, kind):
        self.event, self.semaphore = threading.Event(), threading.Semaphore(0)
        self.full, self.empty = queue.Queue(1), queue.Queue(1)
        self.condition, self.reentrant = threading.Condition(threading.Lock()), threading.Condition()
        self.full.put("old")
        self.call, self.end, self.lock, self.is_as_before = {
            "event": (self.event.wait, self.event.set, self.event._cond, lambda: True),
            "semaphore": (
                self.semaphore.acquire, self.semaphore.release, self.semaphore._cond, lambda: self.semaphore._value == 1
            ),
            "put": (lambda: self.full.put("new"), self.full.get, self.full.not_full, self.full.empty),
            "get": (self.empty.get, lambda: self.empty.put("item"), self.empty.not_empty, self.empty.full),
            "condition": (*self._of(self.condition), self.condition, lambda: True),
            "reentrant": (*self._of(self.reentrant), self.reentrant, lambda: True),
        }[kind]  # fmt: skip

    @staticmethod
    def _of(condition):
        def wait():
            with condition:
                return condition.wait()

        def notify():
            with condition:
                condition.notify()

        return wait, notify


KINDS = ["event", "semaphore", "put", "get", "condition", "reentrant"]
MOMENTS = ["before", "parked", "parked, then ended", "ended, then before it runs", "elsewhere"]


@pytest.mark.parametrize("moment", MOMENTS)
@pytest.mark.parametrize("kind", KINDS)
def test_a_cancelled_wait_loses_nothing(virtual, kind, moment):
    def root():
        waits = Waits(kind)
        with ThreadGroup() as group:
            future = group.spawn(waits.call)
            if moment == "before":
                # It has parked already, so cancel another one that has not begun.
                future.cancel()
                checkpoint()
                future = group.spawn(lambda: (vthreads.current_thread()._future.cancel(), waits.call()))
            elif moment == "ended, then before it runs":
                waits.end()
                future.cancel()
            elif moment == "elsewhere":
                helper = threading.Thread(target=future.cancel)
                helper.start()
                helper.join()
            else:
                future.cancel()
                if moment == "parked, then ended":
                    waits.end()
        if moment == "ended, then before it runs":
            # The wait was granted, so it ends with its result, or gives back what it was granted.
            assert not future.cancelled() or waits.is_as_before()
        else:
            assert future.cancelled()
            if moment != "parked, then ended":
                waits.end()
            assert waits.is_as_before()
        assert not waits.lock._waiters
        assert waits.lock.acquire(blocking=False)

    patched(virtual, root)


@pytest.mark.parametrize("kind", KINDS)
def test_a_wait_is_ended_by_an_os_thread(virtual, kind):
    def root():
        waits = Waits(kind)
        with ThreadGroup() as group:
            future = group.spawn(waits.call)
            helper = threading.Thread(target=waits.end)
            helper.start()
            helper.join()
        assert not future.cancelled()
        assert not waits.lock._waiters

    patched(virtual, root)


# The timeout of a semaphore above 0 is in seconds of the real clock.
@pytest.mark.parametrize(
    ("kind", "timeout"),
    [*((kind, timeout) for kind in ("condition", "event") for timeout in (0, 0.0, 1, 2.5)), ("semaphore", 0)],
)
def test_a_wait_ends_at_its_timeout(virtual, kind, timeout):
    def root():
        waits = Waits(kind)
        started = vthreads.now()
        if kind == "condition":
            with waits.condition:
                answer = waits.condition.wait(timeout)
        else:
            answer = waits.call(timeout=timeout)
        assert not waits.lock._waiters
        return answer, vthreads.now() - started

    assert (False, timeout) == patched(virtual, root)


# --- futures


def test_a_future_calls_its_callbacks_and_wakes_its_waiters(virtual):
    def root():
        log = []
        future = concurrent.futures.Future()
        future.add_done_callback(lambda future: log.append(future.result()))
        with ThreadGroup() as group:
            waiting = group.spawn(future.result)
            assert future.set_running_or_notify_cancel()
            assert not future.cancel()
            future.set_result("done")
            with pytest.raises(concurrent.futures.InvalidStateError):
                future.set_result("twice")
        return log, waiting.result(), future.cancel()

    assert (["done"], "done", False) == patched(virtual, root)


def test_a_future_that_was_cancelled_does_not_run(virtual):
    def root():
        future = concurrent.futures.Future()
        assert future.cancel()
        assert not future.set_running_or_notify_cancel()
        with pytest.raises(concurrent.futures.CancelledError):
            future.result()

    patched(virtual, root)


def test_a_failed_future_raises(virtual):
    def root():
        future = concurrent.futures.Future()
        future.set_running_or_notify_cancel()
        future.set_exception(KeyError(1))
        with pytest.raises(KeyError):
            future.result()

    patched(virtual, root)
