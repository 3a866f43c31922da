"""Timeouts and counts of blocking calls: checked the same way in all calls, before anything is queued."""

import fcntl
import functools
import inspect
import json
import os
import pathlib
import queue
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import Future
from decimal import Decimal
from fractions import Fraction
from math import inf, nan

import pytest

import vthreads
import vthreads.serve
from vthreads import debug, testing
from vthreads._patching import table
from vthreads.testing import VirtualClock, explore, inject_cancel

# More than a float can hold, and more than Python is willing to write out.
HUGE = 10**5000


class Door:
    """A call that takes a timeout, made where it would have to wait, and the object whose queue it would stand in."""

    def __init__(self, call, of=None):
        self.call = call
        self.of = of


def semaphore():
    full = vthreads.Semaphore(0)
    return Door(lambda timeout: full.acquire(timeout=timeout), full)


def lock():
    taken = vthreads.Lock()
    taken.acquire()
    return Door(lambda timeout: taken.acquire(timeout=timeout), taken)


def recursive_lock():
    taken = vthreads.RLock()
    vthreads.spawn(taken.acquire).result()
    return Door(lambda timeout: taken.acquire(timeout=timeout), taken)


def event():
    unset = vthreads.Event()
    return Door(unset.wait, unset)


def condition():
    quiet = vthreads.Condition()
    quiet.acquire()
    return Door(quiet.wait, quiet)


def condition_for():
    quiet = vthreads.Condition()
    quiet.acquire()
    return Door(lambda timeout: quiet.wait_for(lambda: False, timeout), quiet)


def barrier():
    lonely = vthreads.Barrier(2)
    return Door(lonely.wait, lonely)


def queue_get():
    empty = vthreads.Queue()
    return Door(lambda timeout: empty.get(timeout=timeout), empty)


def queue_put():
    full = vthreads.Queue(1)
    full.put("old")
    return Door(lambda timeout: full.put("new", timeout=timeout), full)


def simple_queue():
    empty = vthreads.SimpleQueue()
    return Door(lambda timeout: empty.get(timeout=timeout), empty)


def channel_send():
    unheard = vthreads.Channel()
    return Door(lambda timeout: unheard.send("item", timeout), unheard)


def channel_receive():
    silent = vthreads.Channel()
    return Door(silent.receive, silent)


def receive_any():
    silent = vthreads.Channel()
    return Door(lambda timeout: vthreads.receive_any(silent, timeout=timeout), silent)


def mutex():
    taken = vthreads.Mutex([])
    taken.try_lock().__enter__()
    return Door(taken.lock, taken)


def mutex_guard():
    taken = vthreads.Mutex([])
    taken.try_lock().__enter__()
    return Door(taken.guard, taken)


def rwlock_read():
    taken = vthreads.RwLock([])
    taken.write().__enter__()
    return Door(taken.read, taken)


def rwlock_write():
    taken = vthreads.RwLock([])
    taken.write().__enter__()
    return Door(taken.write, taken)


def sleeping_thread():
    return vthreads.ThreadGroup.current.spawn(vthreads.sleep, 0.5)


def future_result():
    return Door(sleeping_thread().result)


def future_exception():
    return Door(sleeping_thread().exception)


def join():
    return Door(sleeping_thread().thread.join)


def wait():
    future = sleeping_thread()
    return Door(lambda timeout: vthreads.wait(future, timeout))


def as_completed():
    future = sleeping_thread()
    return Door(lambda timeout: vthreads.as_completed(future, timeout))


OURS = [
    semaphore, lock, recursive_lock, event, condition, condition_for, barrier, queue_get, queue_put, simple_queue,
    channel_send, channel_receive, receive_any, mutex, mutex_guard, rwlock_read, rwlock_write, future_result,
    future_exception, join, wait, as_completed,
]  # fmt: skip


def shut_down(seconds):
    vthreads.ThreadGroup.current.shutdown(seconds)


# Scopes and sleeps, where None or a number below 0 means something else.
SPANS = {
    "sleep": vthreads.sleep,
    "fail_after": vthreads.fail_after,
    "move_on_after": vthreads.move_on_after,
    "fail_at": vthreads.fail_at,
    "move_on_at": vthreads.move_on_at,
    "shield": vthreads.shield,
    "CancelScope": vthreads.CancelScope,
    "cleanup_grace": lambda seconds: vthreads.CancelScope(cleanup_grace=seconds),
    "cleanup_grace of a group": lambda seconds: vthreads.ThreadGroup(cleanup_grace=seconds),
    "shutdown": shut_down,
    "Barrier": lambda seconds: vthreads.Barrier(2, timeout=seconds),
    "VirtualClock(start)": testing.VirtualClock,
    "VirtualClock(epoch)": lambda seconds: testing.VirtualClock(epoch=seconds),
}

# Where less than nothing is refused as well.
DURATIONS = {
    "advance": lambda seconds: testing.VirtualClock().advance(seconds),
    "dump": lambda seconds: vthreads.dump(patience=seconds),
    "load": lambda seconds: debug.load(patience=seconds),
    "latency": lambda seconds: testing.Network(latency=seconds),
    "limits of a server": lambda seconds: vthreads.serve.Limits(idle_seconds=seconds),
    "outside_patience": lambda seconds: testing.VirtualClock(outside_patience=seconds),
    "snapshot": lambda seconds: debug.snapshot(patience=seconds),
    "wait_all_parked": testing.wait_all_parked,
}

# Where nothing is refused as well.
PERIODS = {
    "max_seconds": lambda seconds: testing.explore(int, max_seconds=seconds),
    "max_seconds of replay": lambda seconds: testing.replay(int, "opcodes:", max_seconds=seconds),
    "max_stall": testing.max_stall,
    "patch(preempt)": lambda seconds: vthreads.patch(preempt=seconds),
    "run(preempt)": lambda seconds: vthreads.run(int, preempt=seconds),
    "watch_stalls": debug.watch_stalls,
}
SPANS |= DURATIONS | PERIODS

# Times that no call accepts, and the error.
REFUSED = [
    (nan, ValueError, r"nan is not a time"),
    (Decimal("nan"), ValueError, r"is not a time"),
    (HUGE, OverflowError, r"too large"),
    (-HUGE, OverflowError, r"too large"),
    ("1", TypeError, r"is a str; give seconds"),
    (1j, TypeError, r"is a complex; give seconds"),
]
NAMES_OF_REFUSED = ["nan", "Decimal nan", "huge", "-huge", "str", "complex"]


@pytest.mark.parametrize("make", OURS)
@pytest.mark.parametrize(("timeout", "error", "text"), REFUSED, ids=NAMES_OF_REFUSED)
def test_a_timeout_that_is_no_time_is_refused_before_anything_is_queued(make, timeout, error, text):
    def root():
        with vthreads.ThreadGroup():
            door = make()
            with pytest.raises(error, match=text):
                door.call(timeout)
            assert door.of is None or 0 == door.of.statistics().waiting
            # No wake-up is on its way, nor is a timer left that would be one.
            started = vthreads.now()
            vthreads.sleep(1)
            return vthreads.now() - started

    assert 1 == vthreads.run(root, clock=VirtualClock())


@pytest.mark.parametrize("make", [*OURS[:-6], future_result, future_exception])
def test_any_kind_of_number_is_a_timeout(make):
    def root():
        with vthreads.ThreadGroup():
            for timeout in (Fraction(1, 8), Decimal("0.125"), 0.125, True):
                door = make()
                started = vthreads.now()
                try:
                    entered = door.call(timeout)
                    if hasattr(entered, "__enter__"):
                        entered.__enter__()
                except (TimeoutError, vthreads.errors.Empty, vthreads.errors.Full, threading.BrokenBarrierError):
                    pass
                waited.append(vthreads.now() - started)

    waited = []
    vthreads.run(root, clock=VirtualClock())
    assert [0.125, 0.125, 0.125, 0.5 if "future" in make.__name__ else 1] == waited


@pytest.mark.parametrize("make", [semaphore, event, queue_get, channel_receive, mutex, rwlock_read, future_result])
def test_an_infinite_timeout_is_no_limit(make):
    def root():
        with vthreads.ThreadGroup() as group:
            entered = make().call(inf) if make is future_result else None
            if entered is None and make is not future_result:
                with vthreads.move_on_after(3600):
                    answer = make().call(inf)
                    if hasattr(answer, "__enter__"):
                        answer.__enter__()
            group.cancel()
        return vthreads.now()

    assert (0.5 if make is future_result else 3600) == vthreads.run(root, clock=VirtualClock())


@pytest.mark.parametrize("call", SPANS.values(), ids=SPANS)
@pytest.mark.parametrize(("seconds", "error", "text"), REFUSED, ids=NAMES_OF_REFUSED)
def test_a_span_that_is_no_time_is_refused_at_the_call(call, seconds, error, text):
    def root():
        with vthreads.ThreadGroup(), pytest.raises(error, match=text):
            call(seconds)

    vthreads.run(root, clock=VirtualClock())


@pytest.mark.parametrize("call", DURATIONS.values(), ids=DURATIONS)
def test_a_duration_of_less_than_nothing_is_refused(call):
    with pytest.raises(ValueError, match=r"must be >= 0.*, got -0.5"):
        call(-0.5)


@pytest.mark.parametrize("call", PERIODS.values(), ids=PERIODS)
@pytest.mark.parametrize("seconds", [0, -0.5])
def test_a_period_of_nothing_is_refused(call, seconds):
    with pytest.raises(ValueError, match=f"must be > 0 seconds, got {seconds}"):
        call(seconds)


@pytest.mark.parametrize("seconds", [-1, -0.5, -(10**30)])
def test_a_sleep_of_less_than_nothing_is_refused(seconds):
    with pytest.raises(ValueError, match="give 0 or more seconds"):
        vthreads.run(vthreads.sleep, seconds, clock=VirtualClock())


def test_a_sleep_without_seconds_is_refused():
    with pytest.raises(TypeError, match="give 0 or more seconds"):
        vthreads.run(vthreads.sleep, None, clock=VirtualClock())


# --- the standard library's calls, which refuse a timeout in the same words as on an OS thread


def select_for(timeout):
    ours, theirs = socket.socketpair()
    with ours, theirs:
        select.select([ours], [], [], timeout)


def epoll_for(timeout):
    with select.epoll() as epoll:
        epoll.poll(timeout)


def poll_for(timeout):
    select.poll().poll(timeout)


def join_for(timeout):
    end = threading.Event()
    thread = threading.Thread(target=end.wait)
    thread.start()
    try:
        thread.join(timeout)
    finally:
        end.set()
        # Not by join: before 3.13 CPython marks a thread as ended when it refuses the timeout.
        while thread in threading.enumerate():
            time.sleep(0)


def wait_for_a_signal(timeout):
    signal.sigtimedwait([signal.SIGUSR2], timeout)


def error_of(call, timeout):
    try:
        call(timeout)
    except Exception as error:
        return type(error), str(error)
    return None


@pytest.mark.real
@pytest.mark.parametrize("call", [time.sleep, select_for, epoll_for, poll_for, join_for, wait_for_a_signal])
@pytest.mark.parametrize("timeout", [nan, 10**400, 1e300, inf, "1", 1j, Fraction(1)], ids=lambda value: str(value)[:9])
def test_a_call_of_the_standard_library_refuses_what_it_refuses_on_an_os_thread(call, timeout):
    def root():
        return vthreads.offload(error_of, call, timeout), error_of(call, timeout)

    on_an_os_thread, on_a_virtual_thread = vthreads.run(root)
    assert on_an_os_thread == on_a_virtual_thread
    # Since Python 3.15 a number of any type is a timeout.
    assert (on_an_os_thread is None) == (timeout == 1 and sys.version_info >= (3, 15))


class Index:
    """An integer by its conversion only."""

    def __init__(self, value):
        self.value = value

    def __index__(self):
        return self.value


KINDS_OF_TIMES = [int, float, Index, *([Fraction, Decimal] if sys.version_info >= (3, 15) else [])]


@pytest.mark.parametrize("kind", KINDS_OF_TIMES)
@pytest.mark.parametrize(
    ("call", "units"),
    [(time.sleep, 1), (select_for, 1), (epoll_for, 1), (poll_for, 1000), (join_for, 1), (wait_for_a_signal, 1)],
)
def test_a_call_of_the_standard_library_parks_for_a_time_of_any_type(call, units, kind):
    def root():
        start = vthreads.now()
        call(kind(units))
        return vthreads.now() - start

    # A call that blocks its carrier does not move the clock of the test.
    assert 1 == pytest.approx(vthreads.run(root, clock=VirtualClock()))


def condition_wait_for(timeout):
    condition = threading.Condition()
    with condition:
        condition.wait_for(lambda: False, timeout)


def put_in_full(timeout):
    full = queue.Queue(1)
    full.put(1)
    full.put(2, timeout=timeout)


# Made where they would have to wait. All of them wait with `threading.Condition.wait`.
STANDARD = {
    "event": lambda timeout: threading.Event().wait(timeout),
    "condition": condition_wait_for,
    "semaphore": lambda timeout: threading.Semaphore(0).acquire(timeout=timeout),
    "barrier": lambda timeout: threading.Barrier(2).wait(timeout),
    "get": lambda timeout: queue.Queue().get(timeout=timeout),
    "put": put_in_full,
    "future": lambda timeout: Future().result(timeout),
}


@pytest.mark.real
@pytest.mark.parametrize("name", STANDARD)
def test_a_class_of_the_standard_library_refuses_nan_and_what_it_refuses_on_an_os_thread(name):
    def root():
        vthreads.sleep(0)
        return [
            (error_of(STANDARD[name], value), vthreads.offload(error_of, STANDARD[name], value)) for value in (nan, inf)
        ]

    of_nan, of_infinity = vthreads.run(root)
    assert (
        of_nan[0]
        == of_nan[1]
        == (ValueError, "timeout=nan is not a time; give seconds as a number, or None for no limit")
    )
    assert of_infinity[0] == of_infinity[1]
    assert of_infinity[0][0] is OverflowError


# --- counts

COUNTS = {
    "Semaphore": (vthreads.Semaphore, "value"),
    "BoundedSemaphore": (vthreads.BoundedSemaphore, "value"),
    "release": (lambda count: vthreads.Semaphore().release(count), "n"),
    "Barrier": (vthreads.Barrier, "parties"),
    "Channel": (vthreads.Channel, "capacity"),
    "max_concurrency": (lambda count: vthreads.ThreadGroup(max_concurrency=count), "max_concurrency"),
    "max_pending": (lambda count: vthreads.ThreadGroup(max_pending=count), "max_pending"),
    "map": (lambda count: vthreads.map(len, ["item"], max_concurrency=count), "max_concurrency"),
    "capacity": (lambda count: testing.Network(capacity=count), "capacity"),
    "carriers": (lambda count: vthreads.run(int, carriers=count), "carriers"),
    "dump": (lambda count: vthreads.dump(limit=count), "limit"),
    "load": (lambda count: debug.load(slowest=count), "slowest"),
    "max_checkpoints": (lambda count: testing.inject_cancel(int, max_checkpoints=count), "max_checkpoints"),
    "max_points": (lambda count: testing.explore(int, max_points=count), "max_points"),
    "max_preemptions": (lambda count: testing.explore(int, max_preemptions=count), "max_preemptions"),
    "schedules": (lambda count: testing.explore(int, schedules=count), "schedules"),
}
# Where None is the default.
OPTIONAL = ["dump", "max_concurrency", "max_pending", "map"]


@pytest.mark.parametrize("name", COUNTS)
@pytest.mark.parametrize("count", [1.5, 2.0, nan, "8", None, 1j])
def test_what_is_counted_is_a_whole_number(name, count):
    call, argument = COUNTS[name]
    if count is None and name in OPTIONAL:
        return
    with pytest.raises(TypeError, match=f"{argument}=.* is not a whole number; give an int"):
        call(count)


@pytest.mark.parametrize(("call", "name"), COUNTS.values(), ids=COUNTS)
def test_a_count_below_the_least_is_refused(call, name):
    with pytest.raises(ValueError, match=rf"{name}=-1 is too small; give \d or more"):
        call(-1)


@pytest.mark.parametrize("maxsize", [nan, "8", None, 1j])
@pytest.mark.parametrize("kind", [vthreads.Queue, vthreads.LifoQueue, vthreads.PriorityQueue])
def test_a_queue_refuses_a_size_that_is_no_number(kind, maxsize):
    with pytest.raises(TypeError, match="is not a number of items; give an int"):
        kind(maxsize)


# --- functions


async def coroutine_function():
    pass


def generator_function():
    yield


async def asynchronous_generator_function():
    yield


class Works:
    def method(self):
        return "done"

    def __call__(self):
        return "done"


class Suspends:
    async def method(self):
        pass

    async def __call__(self):
        pass


class Meta(type):
    def __call__(cls):
        yield


class MadeByAGenerator(metaclass=Meta):
    pass


IDLE = {
    "a coroutine function": (coroutine_function, "coroutine function .*; give a function that calls asyncio.run"),
    "a generator function": (generator_function, "generator function .*; give a function that iterates over it"),
    "an asynchronous generator function": (asynchronous_generator_function, "asynchronous generator function"),
    "a partial": (functools.partial(functools.partial(coroutine_function)), "coroutine function"),
    "a method": (Suspends().method, "coroutine function"),
    "an object": (Suspends(), "coroutine function"),
    "a class": (MadeByAGenerator, "generator function"),
    "nothing": (None, "None, which is not callable: give the function itself, not what a call of it returned"),
    "a number": (3, "3, which is not callable"),
    "a list": ([len, len], r"one by one, \w+\(\*functions\)"),
    "a future": (Future(), "give its method `result`"),
}


def spawn_in_a_group(fn):
    with vthreads.ThreadGroup() as group:
        group.spawn(fn)


def spawn_in_a_full_group(fn):
    with vthreads.ThreadGroup(max_concurrency=1) as group:
        group.spawn(vthreads.sleep, 1)
        group.spawn(fn)


def try_to_spawn(fn):
    with vthreads.ThreadGroup() as group:
        group.try_spawn(fn)


def call_beside_another(combine):
    def call(fn):
        combine(lambda: called.append(True), fn)

    called = []
    return call


CALLERS = {
    "ThreadGroup.spawn": spawn_in_a_group,
    "ThreadGroup.spawn, full": spawn_in_a_full_group,
    "ThreadGroup.try_spawn": try_to_spawn,
    "spawn": vthreads.spawn,
    "offload": vthreads.offload,
    "gather": call_beside_another(vthreads.gather),
    "race": call_beside_another(vthreads.race),
    "first_completed": call_beside_another(vthreads.first_completed),
    "map": lambda fn: vthreads.map(fn, ["item"]),
    "inject_cancel": inject_cancel,
}


@pytest.mark.parametrize("caller", CALLERS)
@pytest.mark.parametrize("kind", IDLE)
def test_a_function_that_would_do_nothing_is_refused_at_the_call(caller, kind):
    fn, text = IDLE[kind]

    def root():
        try:
            CALLERS[caller](fn)
        except ExceptionGroup as failures:
            # A failure of the body leaves the group in one of these.
            raise failures.exceptions[0] from None

    with pytest.raises(TypeError, match=rf"^{caller.split('.')[-1].split(',')[0]}\(\) got .*{text}"):
        vthreads.run(root, clock=VirtualClock())


@pytest.mark.parametrize("call", [vthreads.run, explore])
@pytest.mark.parametrize("kind", IDLE)
def test_a_root_that_would_do_nothing_is_refused(call, kind):
    fn, text = IDLE[kind]
    with pytest.raises(TypeError, match=rf"{call.__name__}\(\) got .*{text}"):
        call(fn)


def test_none_of_several_functions_is_called_if_one_is_refused():
    called = []
    for combine in (vthreads.gather, vthreads.race, vthreads.first_completed):
        with pytest.raises(TypeError, match="not callable"):
            combine(lambda: called.append(True), None)
    assert [] == called


def test_a_coroutine_is_refused_with_a_word_on_who_runs_it():
    coroutine = coroutine_function()
    with pytest.raises(TypeError, match=r"spawn\(\) got <coroutine .*: give a function that calls asyncio.run"):
        vthreads.run(lambda: vthreads.spawn(coroutine))
    coroutine.close()


@pytest.mark.parametrize(
    "fn",
    [lambda: "done", Works().method, Works(), functools.partial(Works().method), functools.partial(str, "done")],
    ids=["function", "method", "object", "partial", "type"],
)
def test_whatever_does_its_work_when_called_is_spawned(fn):
    def root():
        with vthreads.ThreadGroup() as group, vthreads.ThreadGroup(max_concurrency=1) as narrow:
            return group.spawn(fn).result(), narrow.spawn(fn).result()

    assert ("done", "done") == vthreads.run(root, clock=VirtualClock())


def test_a_group_takes_its_name_first():
    with pytest.raises(TypeError, match=r"ThreadGroup\(8\): the first argument is a name; was max_concurrency=8 meant"):
        vthreads.ThreadGroup(8)


# --- wrong numbers and names of arguments

# Calls, and what the same functions of the standard library answer on an OS thread.
WRONG = [
    (lambda: threading.Event(1), "Event.__init__() takes 1 positional argument but 2 were given"),
    (lambda: threading.Event().set(1), "Event.set() takes 1 positional argument but 2 were given"),
    (lambda: threading.Event().wait(1, 2), "Event.wait() takes from 1 to 2 positional arguments but 3 were given"),
    (lambda: threading.Event().wait(nonsense=1), "Event.wait() got an unexpected keyword argument 'nonsense'"),
    (lambda: threading.Condition(1, 2), "Condition.__init__() takes from 1 to 2 positional arguments but 3 were given"),
    (
        lambda: threading.Condition().notify(nonsense=1),
        "Condition.notify() got an unexpected keyword argument 'nonsense'",
    ),
    (threading.Condition.notify, "Condition.notify() missing 1 required positional argument: 'self'"),
    (
        lambda: threading.Semaphore().acquire(nonsense=1),
        "Semaphore.acquire() got an unexpected keyword argument 'nonsense'",
    ),
    (
        lambda: threading.Semaphore().acquire(1, blocking=1),
        "Semaphore.acquire() got multiple values for argument 'blocking'",
    ),
    (
        lambda: threading.Semaphore().release(1, 2),
        "Semaphore.release() takes from 1 to 2 positional arguments but 3 were given",
    ),
    (lambda: queue.Queue().put(), "Queue.put() missing 1 required positional argument: 'item'"),
    (lambda: queue.LifoQueue().get(nonsense=1), "Queue.get() got an unexpected keyword argument 'nonsense'"),
    (lambda: Future().result(nonsense=1), "Future.result() got an unexpected keyword argument 'nonsense'"),
    (lambda: Future().set_result(), "Future.set_result() missing 1 required positional argument: 'result'"),
    (
        lambda: Future().set_running_or_notify_cancel(1),
        "Future.set_running_or_notify_cancel() takes 1 positional argument but 2 were given",
    ),
    # Functions in C there, which have other words for the same names.
    (lambda: queue.SimpleQueue().put(), "SimpleQueue.put() missing 1 required positional argument: 'item'"),
    # Not of the standard library.
    (lambda: vthreads.Queue().put(), "Queue.put() missing 1 required positional argument: 'item'"),
    (lambda: vthreads.Queue().get(nonsense=1), "Queue.get() got an unexpected keyword argument 'nonsense'"),
    (
        lambda: vthreads.spawn(print).result(1, 2),
        "Future.result() takes from 1 to 2 positional arguments but 3 were given",
    ),
]


@pytest.mark.parametrize(("call", "text"), WRONG, ids=[text.partition(" ")[0] for _, text in WRONG])
def test_wrong_arguments_are_refused_in_the_words_of_the_function_that_was_called(call, text):
    def root():
        with pytest.raises(TypeError) as caught:
            call()
        return str(caught.value)

    assert text == vthreads.run(root, clock=VirtualClock())


def replaced_and_public():
    """All functions and methods that the patch sets, and those of the public API."""
    for new in (*table.functions(), *table.methods()):
        yield from vars(new.new).values() if isinstance(new.new, type) else [new.new]
    for name in vthreads.__all__:
        value = getattr(vthreads, name)
        yield from vars(value).values() if isinstance(value, type) else [value]


def module_of(function):
    return getattr(getattr(function.__wrapped__, "__objclass__", None), "__module__", None)


def test_no_error_of_wrong_arguments_names_a_compiled_function():
    def root():
        for function in {id(function): function for function in replaced_and_public()}.values():
            # A compiled function that has a Python version. The methods of buffers accept any arguments.
            if hasattr(function, "__wrapped__") and hasattr(function, "func_dict") and "_io" != module_of(function):
                if function.__name__ in ("__enter__", "__exit__"):
                    # Called by `with` alone, so they do without it.
                    continue
                with pytest.raises(TypeError) as caught:
                    function(no_such_parameter=1)
                seen[function.__qualname__] = str(caught.value).partition("(")[0]

    seen = {}
    vthreads.run(root)
    # The original may name its module as well.
    assert {} == {name: said for name, said in seen.items() if not f".{name}".endswith(said.rpartition(".")[2])}


# --- wrong arguments of functions in C: the words of the original

# A number that no process has opened.
NOT_OPEN = 2**31 - 1


class Odd:
    """Neither a number nor a string, buffer, sequence or file."""


# Each fits no parameter of the calls below, or only some of them. Those that the original accepts are left out.
ODD_VALUES = [Odd(), None, 1.5, "x", b"x", [], 2**70, -(2**70)]

# Methods of sockets, with right arguments.
OF_SOCKETS = {
    "bind": [("127.0.0.1", 0)],
    "connect": [("127.0.0.1", 9)],
    "connect_ex": [("127.0.0.1", 9)],
    "getblocking": [],
    "gettimeout": [],
    "recv": [1, 0],
    "recv_into": [bytearray(1), 0, 0],
    "recvfrom": [1, 0],
    "recvfrom_into": [bytearray(1), 0, 0],
    "recvmsg": [1, 0, 0],
    "recvmsg_into": [[bytearray(1)], 0, 0],
    "send": [b"x", 0],
    "sendall": [b"x", 0],
    "sendmsg": [[b"x"], [], 0],
    "sendto": [b"x", 0, ("127.0.0.1", 9)],
    "setblocking": [True],
    "settimeout": [None],
    "shutdown": [socket.SHUT_RD],
}

# Functions of descriptors, with right arguments; FD stands for a descriptor.
FD = object()
OF_DESCRIPTORS = {
    (os, "close"): [FD],
    (os, "copy_file_range"): [FD, FD, 1],
    (os, "eventfd_read"): [FD],
    (os, "eventfd_write"): [FD, 1],
    (os, "lockf"): [FD, 0, 1],
    (os, "pread"): [FD, 1, 0],
    (os, "preadv"): [FD, [bytearray(1)], 0, 0],
    (os, "read"): [FD, 1],
    (os, "readv"): [FD, [bytearray(1)]],
    (os, "sendfile"): [FD, FD, 0, 1],
    (os, "set_blocking"): [FD, True],
    (os, "splice"): [FD, FD, 1, None, None, 0],
    (os, "write"): [FD, b"x"],
    (os, "writev"): [FD, [b"x"]],
    (fcntl, "fcntl"): [FD, fcntl.F_GETFD, 0],
    (fcntl, "flock"): [FD, fcntl.LOCK_UN],
    (fcntl, "ioctl"): [FD, 0, 0],
    (fcntl, "lockf"): [FD, fcntl.LOCK_UN, 0, 0, 0],
    (socket, "close"): [FD],
}

# Others, of which only a wrong number or name of arguments is given.
OTHERS = [
    (os, "open"), (os, "waitpid"), (os, "wait4"), (os, "waitid"), (os, "system"), (os, "dup2"), (os, "closerange"),
    (socket, "gethostbyname"), (socket, "getnameinfo"), (select, "select"), (signal, "sigtimedwait"),
    (signal, "pthread_kill"), (time, "pthread_getcpuclockid"),
]  # fmt: skip

LOCKS = ["Lock", "RLock"]
WANTED_OF_LOCKS = [
    *([value] for value in ODD_VALUES),
    *([True, value] for value in ODD_VALUES),
    [False, 1],
    [True, -2],
    [True, -0.5],
]


def wrong_versions(arguments):
    """Lists of arguments with one that is wrong, or with too few or too many; and their keywords."""
    for position in range(len(arguments)):
        yield arguments[:position], {}
        for value in ODD_VALUES:
            yield [*arguments[:position], value, *arguments[position + 1 :]], {}
    yield [*arguments, *[0] * 8], {}
    yield [], {"no_such_parameter": 1}


def refusal(call, arguments, keywords):
    """The error of wrong arguments; None if they are accepted, even if the call fails for another reason."""
    try:
        call(*arguments, **keywords)
    except OSError:
        return None
    except Exception as error:
        return type(error).__name__, str(error)
    return None


def with_descriptor(arguments, fd):
    return [fd if value is FD else value for value in arguments]


def refusals_of_sockets(name):
    """What is refused by `name` of a closed socket."""
    for arguments, keywords in wrong_versions(OF_SOCKETS[name]):
        closed = socket.socket(socket.AF_UNIX)
        closed.close()
        yield refusal(getattr(socket.socket, name), [closed, *arguments], keywords)
    yield refusal(getattr(socket.socket, name), [Odd(), *OF_SOCKETS[name]], {})


def refusals_of_descriptors(module, name):
    for arguments, keywords in wrong_versions(OF_DESCRIPTORS[module, name]):
        yield refusal(getattr(module, name), with_descriptor(arguments, NOT_OPEN), keywords)


def refusals_of_counts(module, name):
    return [refusal(getattr(module, name), [0] * count, {}) for count in (0, 9)]


def refusals_of_locks(kind):
    return [refusal(getattr(threading, kind)().acquire, arguments, {}) for arguments in WANTED_OF_LOCKS]


def all_refusals():
    """What this process refuses."""
    return {
        **{name: list(refusals_of_sockets(name)) for name in OF_SOCKETS},
        **{
            f"{row[0].__name__}.{row[1]}": list(refusals_of_descriptors(*row))
            for row in OF_DESCRIPTORS
            if hasattr(*row)
        },
        **{f"{row[0].__name__}.{row[1]}, count": refusals_of_counts(*row) for row in OTHERS},
        **{kind: refusals_of_locks(kind) for kind in LOCKS},
    }


@pytest.fixture(scope="module")
def originals():
    """What a process without virtual threads refuses."""
    code = "import json, tests.test_arguments; print(json.dumps(tests.test_arguments.all_refusals()))"
    root = pathlib.Path(__file__).parents[1]
    told = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True)
    return {name: [each and tuple(each) for each in row] for name, row in json.loads(told.stdout).items()}


@pytest.mark.real
@pytest.mark.parametrize("timeout", [None, 100])
@pytest.mark.parametrize("name", OF_SOCKETS)
def test_wrong_arguments_of_a_method_of_sockets_are_refused_in_the_words_of_the_original(originals, name, timeout):
    def root():
        for (arguments, keywords), expected in zip(wrong_versions(OF_SOCKETS[name]), originals[name], strict=False):
            if expected is not None:
                ours, theirs = socket.socketpair()
                with ours, theirs:
                    theirs.send(b"data")
                    ours.settimeout(timeout)
                    call = getattr(socket.socket, name)
                    compared.append((arguments, expected, refusal(call, [ours, *arguments], keywords)))
                    # Nothing was received or sent.
                    theirs.setblocking(False)
                    assert b"data" == ours.recv(9)
                    with pytest.raises(BlockingIOError):
                        theirs.recv(9)
        seen = refusal(getattr(socket.socket, name), [Odd(), *OF_SOCKETS[name]], {})
        compared.append((Odd, originals[name][-1], seen))

    compared = []
    vthreads.run(root)
    assert [] == [case for case in compared if case[1] != case[2]]
    assert len(compared) > 2


@pytest.mark.real
@pytest.mark.parametrize(("module", "name"), [each for each in OF_DESCRIPTORS if hasattr(*each)])
def test_wrong_arguments_of_a_function_of_descriptors_are_refused_in_the_words_of_the_original(originals, module, name):
    def root():
        row = originals[f"{module.__name__}.{name}"]
        for (arguments, keywords), expected in zip(wrong_versions(OF_DESCRIPTORS[module, name]), row, strict=True):
            if expected is not None:
                ours, theirs = socket.socketpair()
                with ours, theirs:
                    theirs.send(b"data")
                    mine = with_descriptor(arguments, ours.fileno())
                    compared.append((arguments, expected, refusal(getattr(module, name), mine, keywords)))
                    assert b"data" == ours.recv(9)

    compared = []
    vthreads.run(root)
    assert [] == [case for case in compared if case[1] != case[2]]
    assert len(compared) > 2


def first_parameter(function):
    try:
        return next(iter(inspect.signature(function).parameters), None)
    except ValueError:
        # A compiled function without a signature.
        return None


def test_each_replaced_function_of_descriptors_is_compared_with_the_original():
    found = {
        (row.holder, row.name)
        for row in table.functions()
        if first_parameter(row.new) in ("fd", "fd_low", "out_fd", "src") and row.holder is not signal
    }
    assert {(os, "read"), (os, "sendfile")} <= found
    assert set() == found - OF_DESCRIPTORS.keys() - set(OTHERS), "add it to OF_DESCRIPTORS, see docs/internals.md"


@pytest.mark.real
@pytest.mark.parametrize(("module", "name"), OTHERS)
def test_a_wrong_number_of_arguments_is_refused_in_the_words_of_the_original(originals, module, name):
    assert originals[f"{module.__name__}.{name}, count"] == vthreads.run(refusals_of_counts, module, name)


@pytest.mark.real
@pytest.mark.parametrize("kind", LOCKS)
def test_a_lock_of_the_standard_library_refuses_what_the_original_refuses(originals, kind):
    assert originals[kind] == vthreads.run(refusals_of_locks, kind)


def test_a_refused_acquire_leaves_the_lock_free():
    def root():
        lock = threading.Lock()
        with pytest.raises(OverflowError):
            lock.acquire(True, 2**70)
        return lock.acquire(False)

    assert vthreads.run(root, clock=VirtualClock())


@pytest.mark.parametrize("call", [vthreads.wait, vthreads.as_completed])
@pytest.mark.parametrize("given", [5, [5], [int], "ab", [None]], ids=repr)
def test_what_is_not_a_future_is_refused_at_the_call(call, given):
    with pytest.raises(TypeError, match=rf"^{call.__name__}\(\) got .* not a future"):
        call(given)


def test_a_good_future_beside_what_is_none_is_not_lost(virtual):
    def root():
        with vthreads.ThreadGroup() as group:
            future = group.spawn(vthreads.sleep, 1)
            with pytest.raises(TypeError, match="not a future"):
                vthreads.wait([future, future.thread])
            return vthreads.wait(future).done == {future}

    assert virtual(root)


@pytest.mark.parametrize("given", [5, [], None], ids=repr)
def test_what_is_not_a_channel_is_refused_at_the_call(given):
    with pytest.raises(TypeError, match=r"^receive_any\(\) got .* not a Channel"):
        vthreads.receive_any(vthreads.Channel(), given)
