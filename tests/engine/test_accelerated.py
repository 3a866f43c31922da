"""The accelerated engine: it is compiled, it is the default, and random programs behave the same on both engines."""

from __future__ import annotations

import ast
import functools
import gc
import importlib
import inspect
import os
import socket
import subprocess
import sys
import weakref
from contextlib import suppress
from importlib.machinery import EXTENSION_SUFFIXES
from math import inf
from types import FunctionType

import pytest
from hypothesis import given
from hypothesis import strategies as st

import vthreads._calls.net.socket
import vthreads._timeouts  # looked up by name
from vthreads._core.clock import VirtualClock
from vthreads._core.delivery import Recipient
from vthreads._core.engine import engine_name, make_poller, reference
from vthreads._core.order import FifoOrder, SeededOrder

pytestmark = pytest.mark.unpatched

try:
    accelerated = importlib.import_module("vthreads._core.engine.accelerated")
except ModuleNotFoundError:
    accelerated = None

needs_it = pytest.mark.skipif(accelerated is None, reason="installed without a C compiler: there is no compiled engine")


@needs_it
@pytest.mark.parametrize(
    "name", ["Fiber._check", "Fiber._park", "Fiber._unpark", "Scheduler.park", "Scheduler.start", "running"]
)
def test_the_hot_path_is_compiled(name):
    compiled, readable = accelerated, reference
    for part in name.split("."):
        compiled, readable = getattr(compiled, part), getattr(readable, part)
    assert isinstance(readable, FunctionType)
    assert not isinstance(compiled, FunctionType)
    assert not hasattr(compiled, "__code__")
    assert accelerated.__file__.endswith(tuple(EXTENSION_SUFFIXES))


# The compiled parts of the layers above, by module and name.
COMPILED_PARTS = [
    "vthreads._calls.standard_locks.ConditionWaiterLock",
    "vthreads._core.current.check_here",
    "vthreads._core.current.give_way",
    "vthreads._core.current.instruction_here",
    "vthreads._core.future.Future.result",
    "vthreads._core.future.FutureFields",
    "vthreads._core.group.ThreadGroup.spawn",
    "vthreads._core.members.MemberFields",
    "vthreads._core.members.Members._add",
    "vthreads._core.members.Members.spawn",
    "vthreads._core.members.sites_here",
    "vthreads._core.runtime.checkpoint",
    "vthreads._core.semaphore.Semaphore",
    "vthreads._core.thread.ThreadFields",
    "vthreads._core.thread.VirtualThread.run",
    "vthreads._core.wait_queue.WaitQueue",
    "vthreads._sync.locks.Lock",
    "vthreads._sync.locks.RLock",
    "vthreads._sync.queues.Queue.get",
    "vthreads._sync.queues.Queue.put",
    "vthreads._sync.queues.SimpleQueue.get",
    "vthreads._sync.queues.SimpleQueue.put",
    "vthreads._sync.queues._Exchange",
    "vthreads._timeouts.sleep",
    "vthreads._timeouts.sleep_here",
]
COMPILED_SOCKET_CALLS = ["_accept", "connect", "recv", "recv_into", "recvfrom", "send", "sendall", "sendto"]

# In `type.__flags__`: made by a class statement (Py_TPFLAGS_HEAPTYPE).
HEAP_TYPE = 1 << 9


def found(name):
    """The module that `name` begins with, and what the rest of the name leads to."""
    module = next(module for module in sorted(sys.modules, reverse=True) if name.startswith(f"{module}."))
    return functools.reduce(getattr, name.removeprefix(f"{module}.").split("."), sys.modules[module])


@needs_it
@pytest.mark.skipif(engine_name != "accelerated", reason="tests the compiled engine")
@pytest.mark.parametrize(
    "name", [*COMPILED_PARTS, *(f"vthreads._calls.net.socket.{name}" for name in COMPILED_SOCKET_CALLS)]
)
def test_what_is_hot_above_the_engine_is_compiled(name):
    module, _, call = name.rpartition(".")
    part = found(f"{module}.METHODS")[call] if call in COMPILED_SOCKET_CALLS else found(name)
    assert not isinstance(part, FunctionType)
    if isinstance(part, type):
        # A class of the extension is not made by a class statement, and its methods are not functions.
        assert not any(isinstance(method, FunctionType) for method in vars(part).values())
        assert not part.__flags__ & HEAP_TYPE
    else:
        assert type(part).__name__ in ("cython_function_or_method", "builtin_function_or_method")


@needs_it
@pytest.mark.skipif(engine_name != "accelerated", reason="tests the compiled engine")
@pytest.mark.parametrize("name", ["future.FutureFields", "members.MemberFields", "thread.ThreadFields"])
def test_compiled_fields_are_those_of_the_readable_class(name):
    module, kind = name.split(".")
    compiled = getattr(importlib.import_module(f"vthreads._core.{module}"), kind)
    source = ast.parse(inspect.getsource(importlib.import_module(f"vthreads._core.{module}")))
    [readable] = [node for node in source.body if isinstance(node, ast.ClassDef) and node.name == kind]
    slots = {constant.value for constant in ast.walk(readable.body[1]) if isinstance(constant, ast.Constant)}
    if kind == "ThreadFields":
        slots.update(Recipient._DELIVERY_SLOTS)
    assert slots == {name for name, member in vars(compiled).items() if inspect.isdatadescriptor(member)}


def fill(sock):
    """Send until it would block."""
    with suppress(BlockingIOError):
        while True:
            sock.send(bytes(1 << 16), socket.MSG_DONTWAIT)


# The call that would block, the kind of socket, and the Python of the standard library that makes it.
WOULD_BLOCK = [
    ("recv", socket.SOCK_STREAM, []),
    ("recv_into", socket.SOCK_STREAM, []),
    ("recvfrom", socket.SOCK_DGRAM, []),
    ("sendall", socket.SOCK_STREAM, []),
    ("accept", socket.SOCK_STREAM, [("call", "socket.accept")]),
]
ARGUMENTS = {"recv": (10,), "recv_into": (bytearray(10),), "recvfrom": (10,), "sendall": (b"x",), "accept": ()}


@pytest.fixture
def no_collection():
    """No run of the garbage collector, whose finalizers are Python code at any allocation."""
    gc.disable()
    yield
    gc.enable()


@needs_it
@pytest.mark.skipif(engine_name != "accelerated", reason="the readable engine was asked for, whose calls are Python")
@pytest.mark.real
@pytest.mark.usefixtures("no_collection")
@pytest.mark.parametrize(
    "family", [socket.AF_INET, pytest.param(socket.AF_INET6, marks=pytest.mark.ipv6), socket.AF_UNIX]
)
@pytest.mark.parametrize(("call", "kind", "expected"), WOULD_BLOCK)
def test_no_python_runs_and_nothing_is_raised_between_would_block_and_the_next_thread(
    call, kind, expected, family, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    name = {socket.AF_INET: ("127.0.0.1", 0), socket.AF_INET6: ("::1", 0), socket.AF_UNIX: "bound"}[family]
    events = []

    def wait(sock):
        method, arguments = getattr(sock, call), ARGUMENTS[call]
        sys.setprofile(lambda frame, event, _: events.append((event, frame.f_code.co_qualname)))
        method(*arguments)

    def next_one():
        sys.setprofile(None)

    def root():
        with vthreads.ThreadGroup() as group, socket.socket(family, kind) as bound, socket.socket(family, kind) as peer:
            bound.bind(name)
            sock = bound
            if kind == socket.SOCK_STREAM:
                bound.listen()
                peer.connect(bound.getsockname())
                if call == "accept":
                    # The first one is readable Python: from then on the listener is kept non-blocking.
                    bound.accept()[0].close()
                else:
                    sock = peer
            if call == "sendall":
                fill(peer)
            waiting = group.spawn(wait, sock)
            group.spawn(next_one).result()
            waiting.cancel()

    vthreads.run(root)
    del events[events.index(("call", next_one.__qualname__)) :]
    assert expected == events


@needs_it
def test_it_is_chosen_unless_the_other_is_asked_for():
    assert os.environ.get("VTHREADS_ENGINE", "accelerated") == engine_name


def engine_of_a_process(name):
    program = "from vthreads._core.engine import engine_name; print(engine_name)"
    environment = {**os.environ, "VTHREADS_ENGINE": name}
    return subprocess.run(
        [sys.executable, "-c", program], check=False, capture_output=True, text=True, timeout=60, env=environment
    )


def test_the_readable_one_can_be_asked_for():
    assert "reference\n" == engine_of_a_process("reference").stdout


def test_an_engine_that_does_not_exist_is_an_error():
    done = engine_of_a_process("warp")
    assert 1 == done.returncode
    assert "VTHREADS_ENGINE='warp': there is no such engine" in done.stderr


def test_the_compiled_engine_asked_for_and_missing_is_an_error():
    program = """
import sys
sys.modules["vthreads._core.engine.accelerated"] = None
import vthreads
"""
    environment = {**os.environ, "VTHREADS_ENGINE": "accelerated"}
    done = subprocess.run(
        [sys.executable, "-c", program], check=False, capture_output=True, text=True, timeout=60, env=environment
    )
    assert 1 == done.returncode
    assert "the compiled engine is not part of this installation" in done.stderr


def test_missing_and_not_asked_for_the_readable_one_runs():
    program = """
import sys
sys.modules["vthreads._core.engine.accelerated"] = None
import vthreads
from vthreads._core.engine import engine_name
print(engine_name, vthreads.spawn(lambda: 42).result())
"""
    environment = {name: value for name, value in os.environ.items() if name != "VTHREADS_ENGINE"}
    done = subprocess.run(
        [sys.executable, "-c", program], check=False, capture_output=True, text=True, timeout=60, env=environment
    )
    assert ("reference 42\n", "") == (done.stdout, done.stderr)


# --- random programs

# The steps of a fiber: numbers are of other fibers, or tenths of a second. In a flat list, each
# is one choice of hypothesis.
ACTIONS = st.sampled_from(
    [
        ("yield", 0),
        ("park", None),
        *(("park", tenths) for tenths in range(21)),
        *(("park, cannot be aborted", tenths) for tenths in range(21)),
        *((what, number) for what in ("unpark", "rouse", "start", "post an unpark") for number in range(10)),
        ("give way", 0),
    ]
)
PROGRAMS = st.lists(st.lists(ACTIONS, max_size=8), min_size=1, max_size=10)


class Performance:
    """One run of a program on one engine, and what was seen of it."""

    def __init__(self, engine, program, order, ends_deadlocked):
        self.log = []
        self.program = program
        self.ends_deadlocked = ends_deadlocked
        self.clock = VirtualClock()
        self.scheduler = engine.Scheduler(
            make_poller("select"), self.clock, order,
            is_deadlocked=lambda: ends_deadlocked, when_deadlocked=self.end_of_waiting, when_signalled=self.log.append,
        )  # fmt: skip
        performance = self

        class Fiber(engine.Fiber):
            def __init__(self, number):
                super().__init__(performance.scheduler, None)
                self.number = number

            def run(self):
                performance.perform(self, program[self.number])

        class Root(engine.Fiber):
            def run(self):
                raise AssertionError("the root runs already")

        self.fibers = [Fiber(number) for number in range(len(program))]
        self.started = set()
        self.root = Root(self.scheduler, None)

    def run(self):
        self.scheduler.adopt(self.root)
        for number in range(len(self.fibers)):
            self.start(number)
            self.scheduler._yield_now()
        while any(fiber.state.value != "ended" for fiber in self.fibers):
            # Longer than any wait that ends.
            self.log.append(("root", str(self.scheduler.park(None, inf if self.ends_deadlocked else 1_000))))
            if not self.ends_deadlocked:
                self.end_of_waiting()
        self.log.append(("over", self.clock.now(), len(self.scheduler.timers)))
        self.scheduler.close()
        return self.log

    def end_of_waiting(self):
        """Wake all that are parked, in order; the root last, if it is."""
        for fiber in (*self.fibers, self.root):
            if fiber.state.value == "parked":
                self.log.append(("deadlock", fiber._unpark("deadlock")))

    def start(self, number):
        if number not in self.started:
            self.started.add(number)
            self.scheduler.start(self.fibers[number])

    def perform(self, fiber, actions):
        scheduler, fibers = self.scheduler, self.fibers
        for action, argument in actions:
            answer = None
            if action == "yield":
                fiber._yield_now()
            elif action == "park":
                answer = fiber._park(None, None if argument is None else argument / 10)
            elif action == "park, cannot be aborted":
                answer = fiber._park(lambda: scheduler.post(fiber._unpark, "granted") or False, argument / 10)
            elif action == "start":
                self.start(argument % len(fibers))
            elif action == "give way":
                fiber._give_way()
            else:
                other = fibers[argument % len(fibers)]
                if action == "unpark":
                    answer = other._unpark(fiber.number) if other.state.value == "parked" else None
                elif action == "rouse":
                    other._rouse()
                else:
                    scheduler.post(lambda other=other: other.state.value == "parked" and other._unpark("posted"))
            self.log.append((fiber.number, action, str(answer), self.clock.now(), fiber.state.value))


@needs_it
@given(
    program=PROGRAMS,
    seed=st.none() | st.integers(0, 1_000),
    # Rarely, because an engine takes 20 ms of real time to detect a deadlock.
    ends_deadlocked=st.sampled_from([False] * 9 + [True]),
)
def test_random_programs_have_the_same_outcome_on_both_engines(program, seed, ends_deadlocked):
    def order():
        return FifoOrder() if seed is None else SeededOrder(seed)

    expected = Performance(reference, program, order(), ends_deadlocked).run()
    assert expected == Performance(accelerated, program, order(), ends_deadlocked).run()


class Box:
    """Something in a reference cycle with a future: its result, its failure, or an argument of its call."""

    def __init__(self):
        self.future = None


def returns(box, _):
    vthreads.sleep(0.01)
    return box


def fails(box, _):
    vthreads.sleep(0.01)
    raise ValueError(box)


def waits(box, event):
    event.wait()


@pytest.mark.parametrize("function", [returns, fails, waits])
@pytest.mark.parametrize("cancels", [False, True], ids=["", "cancelled"])
@pytest.mark.parametrize("queues", [False, True], ids=["", "queued"])
def test_the_collector_visits_threads_when_they_have_ended_and_frees_their_cycles(function, cancels, queues):
    def spawn_in(group, event):
        """Return the future of a member; if it is queued, this member has the only slot."""
        box = Box()
        box.future = future = group.spawn(function, box, event)
        alive.extend([gc.is_tracked(future.thread), gc.is_tracked(future)])
        if cancels:
            future.cancel()
        event.set()
        return future, weakref.ref(box)

    def root():
        event = vthreads.Event()
        with suppress(ExceptionGroup):
            with vthreads.ThreadGroup(max_concurrency=1 if queues else None, on_failure="continue") as group:
                spawner = group.spawn(spawn_in, group, event)
        future, box = spawner.result()
        ended = [gc.is_tracked(future.thread), gc.is_tracked(future)]
        del future, spawner, group
        gc.collect()
        return ended, box()

    alive = []
    assert ([True, True], None) == vthreads.run(root, patch=False)
    # The reference engine hides none.
    assert [engine_name == "reference"] * 2 == alive
