"""Finalizers, trace functions and similar code run between any two steps of the runtime: they work, or they raise.

The collector comes at an allocation (on Python 3.11 also of C code), so each case moves it from one to the next.
"""

from __future__ import annotations

import fcntl
import gc
import itertools
import multiprocessing
import os
import select
import selectors
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar

import pytest

import vthreads
from vthreads import Barrier, Channel, Condition, Event, Lock, Queue, RLock, ThreadGroup, current_thread, sleep
from vthreads._calls.standard_locks import StandardLock, StandardRLock
from vthreads._core.current import on_carrier
from vthreads._core.wait_queue import OSThreadWaiter
from vthreads.errors import Interrupted

# A wait that lost its wake-up ends with a DeadlockError; the handler that tells a timeout could still unpark one.
pytestmark = [pytest.mark.everywhere, pytest.mark.timeout(0), pytest.mark.unpatched]


@contextmanager
def collecting_after(allocations: int) -> Iterator[None]:
    """Let the collector come each time that so many objects were made."""
    before = gc.get_threshold()
    gc.set_threshold(allocations, 2, 2)
    try:
        yield
    finally:
        gc.set_threshold(*before)


class Garbage:
    """A cycle, whose finalizer calls `foreign` when the collector finds it."""

    def __init__(self, foreign, anywhere=False):
        self.foreign = foreign
        self.anywhere = anywhere
        self.myself = self

    def __del__(self):
        # Leftovers of the last test do not concern the next one.
        if self.anywhere or on_carrier():
            # Inside the scheduler a wait is refused.
            with suppress(RuntimeError):
                self.foreign()


def spawns():
    vthreads.spawn(int)


def yields():
    sleep(0)


def sleeps():
    sleep(0.001)


def exchanges():
    items = Queue(1)
    items.put(1)
    items.get()


FOREIGN = [spawns, *(pytest.param(foreign, marks=pytest.mark.thorough) for foreign in (yields, sleeps, exchanges))]


# --- in a switch


@pytest.mark.thorough
@pytest.mark.everywhere
@pytest.mark.parametrize("foreign", FOREIGN)
def test_a_collection_while_threads_start_leaves_each_on_its_own_stack(virtual, foreign):
    def root():
        me = current_thread()
        strangers = []

        def child():
            mine = current_thread()
            sleep(0.01)
            if current_thread() is not mine:
                strangers.append(mine)

        for allocations in range(1, 25):
            gc.collect()
            with ThreadGroup() as group:
                for number in range(30):
                    if number % 3 == 0:
                        Garbage(foreign)
                    with collecting_after(allocations):
                        group.spawn(child)
                    if current_thread() is not me:
                        strangers.append(me)
        return strangers

    assert [] == virtual(root)


@pytest.mark.parametrize("foreign", FOREIGN)
def test_a_collection_while_greenlets_are_made_leaves_each_on_its_own_stack(virtual, foreign):
    def root():
        me = current_thread()
        kept = []

        def child(count):
            kept.extend([(number,) for number in range(count)])
            sleep(1)

        with ThreadGroup() as group:
            for count in [*range(60)] * 3:
                Garbage(foreign)
                # No greenlet is left over from those before, so each spawn makes one.
                with collecting_after(40):
                    kept.append((count,))
                    group.spawn(child, count)
                assert current_thread() is me

    virtual(root)


# --- in the middle of a wait


def waits():
    Event().wait(0.001)


def joins():
    with ThreadGroup() as group:
        group.spawn(sleep, 0.001)


def groups():
    with ThreadGroup() as group:
        for _ in range(3):
            group.spawn(sleep, 0.001)


def events():
    event = Event()
    with ThreadGroup() as group:
        group.spawn(event.wait)
        sleep(0.001)
        event.set()


def channels():
    channel = Channel()
    with ThreadGroup() as group:
        group.spawn(channel.send, 1)
        channel.receive()


def conditions():
    condition = Condition()
    with ThreadGroup() as group, condition:
        group.spawn(lambda: enter(condition, condition.notify))
        condition.wait()


def barriers():
    barrier = Barrier(2)
    with ThreadGroup() as group:
        group.spawn(barrier.wait)
        barrier.wait()


def enter(block, call):
    with block:
        call()


@pytest.mark.thorough
@pytest.mark.everywhere
@pytest.mark.parametrize("foreign", [waits, joins])
@pytest.mark.parametrize(
    "use",
    [groups, *(pytest.param(use, marks=pytest.mark.thorough) for use in (events, channels, conditions, barriers))],
)
def test_a_finalizer_that_waits_leaves_the_wait_it_came_into_its_wake_up(virtual, use, foreign):
    def root():
        for allocations in range(10, 50, 4):
            gc.collect()
            with ThreadGroup() as group:
                for _ in range(4):
                    group.spawn(worker, allocations)

    def worker(allocations):
        for _ in range(4):
            Garbage(foreign)
            with collecting_after(allocations):
                use()

    # A wake-up that was lost would be a DeadlockError.
    virtual(root)


@pytest.mark.thorough
@pytest.mark.everywhere
@pytest.mark.real
@pytest.mark.parametrize("kind", [RLock, pytest.param(StandardRLock, marks=pytest.mark.thorough)])
def test_a_finalizer_has_the_rlock_that_its_os_thread_queues_for(kind):
    def worker(lock, allocations):
        gc.collect()
        Garbage(lambda: enter(lock, int), anywhere=True)
        with collecting_after(allocations), lock:
            pass

    stuck = []
    for allocations in range(1, 25):
        lock = kind()
        lock.acquire()
        thread = threading.Thread(target=worker, args=(lock, allocations), daemon=True)
        thread.start()
        while not lock.statistics().waiting and thread.is_alive():
            time.sleep(0.001)
        lock.release()
        thread.join(100)
        if thread.is_alive():
            stuck.append(allocations)
            break
    assert [] == stuck


def parks_of(thread):
    """The number of waits that an OS thread is in."""
    frame = sys._current_frames().get(thread.ident)
    codes = []
    while frame is not None:
        codes.append(frame.f_code)
        frame = frame.f_back
    return codes.count(OSThreadWaiter._park.__code__)


@pytest.mark.real
@pytest.mark.parametrize("kind", [Lock, StandardLock])
def test_a_finalizer_has_the_lock_that_its_os_thread_queues_for(kind):
    lock, order = kind(), []
    comes = threading.local()

    def trace(frame, event, _):
        # In the middle of the wait, just before the thread blocks.
        if frame.f_code is OSThreadWaiter._park.__code__ and not hasattr(comes, "once"):
            comes.once = True
            enter(lock, lambda: order.append("finalizer"))

    def worker():
        sys.settrace(trace)
        try:
            enter(lock, lambda: order.append("thread"))
        finally:
            sys.settrace(None)

    lock.acquire()
    thread = threading.Thread(target=worker, daemon=True)
    thread.start()
    # Both wait: the finalizer inside the wait of the thread.
    while parks_of(thread) < 2:
        time.sleep(0.001)
    lock.release()
    thread.join(100)
    assert ["finalizer", "thread"] == order
    assert not lock.locked()


@pytest.mark.real
def test_a_finalizer_that_gives_up_a_lock_leaves_the_wait_it_came_into_in_the_queue():
    lock, taken = Lock(), []
    comes = threading.local()

    def trace(frame, event, _):
        if frame.f_code is OSThreadWaiter._park.__code__ and not hasattr(comes, "once"):
            comes.once = True
            taken.append(lock.acquire(timeout=0.01))

    def worker():
        sys.settrace(trace)
        try:
            taken.append(lock.acquire(timeout=100))
        finally:
            sys.settrace(None)

    lock.acquire()
    thread = threading.Thread(target=worker, daemon=True)
    thread.start()
    while not taken:
        time.sleep(0.001)
    lock.release()
    thread.join(200)
    assert [False, True] == taken


# --- at the end of a thread


@pytest.mark.parametrize("kind", [Lock, StandardLock])
def test_the_finalizer_of_an_ended_thread_has_a_lock_that_is_held(virtual, kind):
    def root():
        lock, taken = kind(), []
        lock.acquire()

        def child():
            weakref.finalize(current_thread(), enter, lock, lambda: taken.append(True))
            sleep(1)

        with ThreadGroup() as group:
            group.spawn(child)
            vthreads.spawn(lambda: (sleep(2), lock.release()))
        return taken

    assert [True] == virtual(root)


def test_the_finalizer_of_an_ended_thread_does_not_wait_for_the_next_to_run(virtual):
    def root():
        event = Event()

        def child():
            weakref.finalize(current_thread(), event.set)
            sleep(1)

        vthreads.spawn(child)
        return event.wait()

    assert virtual(root)


def test_a_grant_for_a_queued_thread_is_not_taken_by_a_finalizer_that_comes_before_it(virtual):
    def root():
        granted, waited = [], []

        def waits():
            before = vthreads.now()
            sleep(1)
            waited.append(vthreads.now() - before)

        with ThreadGroup(max_concurrency=1) as group:

            def spawner():
                weakref.finalize(current_thread(), waits)
                group.spawn(granted.append, True)
                sleep(1)

            group.spawn(spawner)
        return granted, waited

    assert ([True], [1.0]) == virtual(root)


held = ContextVar("held")


def keeps_as_result(slow):
    sleep(1)
    return slow.pop()


def keeps_in_context(slow):
    held.set(slow.pop())
    sleep(1)


def keeps_in_locals(slow):
    mine = vthreads.local()
    mine.slow = slow.pop()
    sleep(1)


def keeps_in_cancellation(slow):
    kept = slow.pop()
    current_thread().cancel()
    with suppress(vthreads.Cancelled):
        sleep(1)
    del kept


@pytest.mark.parametrize("keeps", [keeps_as_result, keeps_in_context, keeps_in_locals, keeps_in_cancellation])
def test_a_finalizer_that_waits_does_not_outlive_the_group_of_its_thread(virtual, keeps):
    def root():
        me, over, came = current_thread(), [], []

        class Slow:
            def __del__(self):
                thread = current_thread()
                sleep(1)
                came.append(thread is me or not over)

        with ThreadGroup() as group:
            group.spawn(keeps, [Slow()])
        over.append(True)
        sleep(5)
        return came

    assert [True] == virtual(root)


# --- inside the scheduler


class Watcher:
    """An observer, which is called inside the scheduler: calls `foreign` there, once."""

    def __init__(self, foreign):
        self.foreign = foreign
        self.raised = None

    def _come(self, thread):
        foreign, self.foreign = self.foreign, None
        if foreign is not None:
            try:
                foreign()
            except Exception as error:  # the answer
                self.raised = error

    parked = runs = ended = _come

    def readied(self, thread):
        """Called by the code that unparks, on a fiber or not."""


def inside_the_scheduler(foreign):
    """Call `foreign` where no virtual thread runs; what it raised."""
    scheduler = current_thread()._scheduler
    scheduler.observer = watcher = Watcher(foreign)
    sleep(0.001)
    scheduler.observer = None
    return watcher.raised


def test_a_wait_inside_the_scheduler_is_refused(virtual):
    def root():
        held, event, items = Lock(), Event(), Queue()
        held.acquire()
        calls = [held.acquire, event.wait, items.get, lambda: sleep(1), lambda: sleep(0), current_thread]
        return [type(inside_the_scheduler(call)) for call in calls]

    assert [RuntimeError] * 6 == virtual(root)


@pytest.mark.real
def test_a_call_of_the_standard_library_that_would_block_inside_the_scheduler_is_refused():
    def root():
        ours, theirs = socket.socketpair()
        listener = socket.create_server(("127.0.0.1", 0))
        reading, writing = os.pipe()
        with ours, theirs, listener, open(reading, "rb") as file, open(reading, "rb", 0, closefd=False) as raw:
            waiting = [
                lambda: ours.recv(1),
                lambda: ours.recv_into(bytearray(1)),
                lambda: ours.sendall(bytes(10_000_000)),
                listener.accept,
                lambda: os.read(reading, 1),
                lambda: file.read(1),
                lambda: raw.read(1),
                lambda: time.sleep(1),
            ]
            refused = [type(inside_the_scheduler(call)) for call in waiting]
            os.write(writing, b"12")
            theirs.sendall(b"3")
            ready = [lambda: os.read(reading, 1), lambda: raw.read(1), lambda: ours.recv(1), lambda: theirs.send(b"4")]
            worked = [inside_the_scheduler(call) for call in ready]
            os.close(writing)
            return refused, worked

    assert ([RuntimeError] * 8, [None] * 4) == vthreads.run(root)


@pytest.mark.real
def test_a_wait_for_descriptors_children_threads_or_signals_inside_the_scheduler_is_refused(tmp_path):
    def root():
        reading, writing = os.pipe()
        poll, epoll, selector = select.poll(), select.epoll(), selectors.DefaultSelector()
        for one in (poll, epoll):
            one.register(reading, select.POLLIN)
        selector.register(reading, selectors.EVENT_READ)
        child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
        go_on = os.pipe()
        thread = threading.Thread(target=os.read, args=(go_on[0], 1))
        thread.start()
        os.mkfifo(tmp_path / "fifo")
        waiting = [
            lambda: select.select([reading], [], []),
            poll.poll,
            epoll.poll,
            selector.select,
            child.wait,
            lambda: os.waitpid(child.pid, 0),
            lambda: os.waitid(os.P_PID, child.pid, os.WEXITED),
            os.wait,
            thread.join,
            lambda: signal.sigwait([signal.SIGUSR1]),
            lambda: os.open(tmp_path / "fifo", os.O_RDONLY),
        ]
        refused = [type(inside_the_scheduler(call)) for call in waiting]
        at_once = [
            lambda: select.select([reading], [], [], 0),
            lambda: os.waitpid(child.pid, os.WNOHANG),
            lambda: thread.join(0),
            lambda: socket.getaddrinfo("127.0.0.1", 80),
        ]
        worked = [inside_the_scheduler(call) for call in at_once]
        os.write(writing, b"1")
        os.write(go_on[1], b"1")
        thread.join()
        ready = [lambda: select.select([reading], [], []), poll.poll, epoll.poll, selector.select, thread.join]
        worked += [inside_the_scheduler(call) for call in ready]
        child.communicate(b"\n")
        selector.close()
        epoll.close()
        for descriptor in (reading, writing, *go_on):
            os.close(descriptor)
        return refused, worked

    assert ([RuntimeError] * 11, [None] * 9) == vthreads.run(root)


@pytest.mark.real
def test_a_wait_for_file_locks_processes_or_transfers_inside_the_scheduler_is_refused(tmp_path):
    def root():
        path = tmp_path / "locked"
        path.write_bytes(b"data")
        reading, writing = os.pipe()
        ours, theirs = socket.socketpair()
        lock, rlock = multiprocessing.Lock(), multiprocessing.RLock()
        with path.open("r+b") as file, path.open("r+b") as other, ours, theirs:
            # Locks of `lockf` belong to the process, those of `flock` and the OFD ones to the open file.
            whole_file = struct.pack("hhqqi4x", fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0)
            calls = [
                lambda: fcntl.flock(other, fcntl.LOCK_EX),
                lambda: fcntl.lockf(other, fcntl.LOCK_EX),
                lambda: os.lockf(other.fileno(), os.F_LOCK, 0),
                lambda: fcntl.fcntl(other, fcntl.F_OFD_SETLKW, whole_file),
                lock.acquire,
                lambda: os.splice(reading, theirs.fileno(), 1),
            ]
            fcntl.flock(file, fcntl.LOCK_EX)
            fcntl.fcntl(file, fcntl.F_OFD_SETLK, whole_file)
            lock.acquire()
            vthreads.spawn(rlock.acquire).result()
            with suppress(BlockingIOError):
                while ours.send(bytes(1 << 16), socket.MSG_DONTWAIT):
                    pass
            waiting = [
                *calls,
                rlock.acquire,
                lambda: os.sendfile(ours.fileno(), file.fileno(), 0, 4),
                lambda: os.system("true"),
                lambda: os.spawnlp(os.P_WAIT, "true", "true"),
            ]
            refused = [type(inside_the_scheduler(call)) for call in waiting]
            assert inside_the_scheduler(lambda: refused.append(lock.acquire(False))) is None
            fcntl.flock(file, fcntl.LOCK_UN)
            fcntl.fcntl(file, fcntl.F_OFD_SETLK, struct.pack("hhqqi4x", fcntl.F_UNLCK, os.SEEK_SET, 0, 0, 0))
            lock.release()
            os.write(writing, b"1")
            # Each lock by itself: those of `lockf` and the OFD one exclude each other.
            worked = []
            for call in calls:
                worked.append(inside_the_scheduler(call))
                fcntl.lockf(other, fcntl.LOCK_UN)
            for descriptor in (reading, writing):
                os.close(descriptor)
        return refused, worked

    assert ([*[RuntimeError] * 10, False], [None] * 6) == vthreads.run(root)


def test_what_need_not_wait_works_inside_the_scheduler(virtual):
    def root():
        held, event, items, free = Lock(), Event(), Queue(), Lock()
        held.acquire()
        with ThreadGroup() as group:
            waiting = [group.spawn(held.acquire), group.spawn(event.wait), group.spawn(items.get)]
            for call in (held.release, event.set, lambda: items.put(5), free.acquire):
                assert inside_the_scheduler(call) is None
            return [future.result() for future in waiting], free.locked()

    assert ([True, True, 5], True) == virtual(root)


def test_a_thread_spawned_inside_the_scheduler_runs(virtual):
    def root():
        futures = []
        assert inside_the_scheduler(lambda: futures.append(vthreads.spawn(sleep, 1))) is None
        return futures[0].result()

    assert virtual(root) is None


# --- trace and profile functions, which come at every call and line of the engine's own Python code


def uses_everything():
    event, items = Event(), Queue(1)
    with ThreadGroup() as group:
        group.spawn(event.wait)
        group.spawn(lambda: (items.get(), event.set()))
        items.put(1)
        group.spawn(sleep, 0.001)
    Event().wait(0.001)
    sleep(0)


@pytest.mark.parametrize("set_function", [sys.settrace, sys.setprofile])
@pytest.mark.parametrize("foreign", FOREIGN)
def test_a_trace_function_may_wait_wherever_it_comes(virtual, set_function, foreign):
    came, busy = [], []

    def trace(frame, event, _):
        # Threads that it spawns are traced too.
        if not busy:
            busy.append(True)
            came.append(event)
            foreign()
            busy.clear()
        return trace

    def root():
        before = sys.gettrace() if set_function is sys.settrace else sys.getprofile()
        set_function(trace)
        try:
            uses_everything()
        finally:
            set_function(before)

    virtual(root)
    assert len(came) > 100


def test_a_trace_function_may_catch_the_exception_for_which_a_wait_was_interrupted(virtual):
    def interrupted(number):
        """Catch it at that place of its delivery; return what the wait raises, None if there are fewer places."""
        came, raised = [], []

        def trace(frame, event, _):
            if frame.f_globals["__name__"] != "vthreads._core.delivery":
                return None
            came.append(event)
            if len(came) == number:
                with suppress(LookupError):
                    vthreads.checkpoint()
            return trace

        def waits():
            sys.settrace(trace)
            try:
                Event().wait()
            except Exception as error:  # compared below
                raised.append(type(error))
            finally:
                sys.settrace(None)

        with ThreadGroup() as group:
            future = group.spawn(waits)
            came.clear()
            future.thread.interrupt(LookupError())
        return raised[0] if len(came) >= number else None

    def root():
        before = sys.gettrace()
        try:
            return list(itertools.takewhile(bool, map(interrupted, itertools.count(1))))
        finally:
            sys.settrace(before)

    errors = virtual(root)
    # Early places are before the wait has taken the exception, late ones after that.
    assert {Interrupted, LookupError} == set(errors)


def test_a_trace_function_of_one_thread_does_not_come_inside_the_scheduler():
    script = """
import sys, threading, vthreads
from vthreads._core.current import carriers, running
vthreads.patch(threads=True)
strangers, came = [], []
def trace(frame, event, _):
    came.append(event)
    if running() is None:
        strangers.append(frame.f_code.co_qualname)
    return trace
def work():
    for _ in range(3):
        vthreads.sleep(0.001)
def root():
    threading.settrace(trace)
    traced = threading.Thread(target=work)
    traced.start()
    threading.settrace(None)
    untraced = threading.Thread(target=work)
    untraced.start()
    traced.join()
    untraced.join()
vthreads.run(root)
print(strangers, len(came) > 10)
"""
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=False)
    assert ("[] True\n", "") == (ended.stdout, ended.stderr)


@pytest.mark.parametrize("set_function", [sys.settrace, sys.setprofile])
def test_what_is_traced_before_a_wait_is_traced_after_it(virtual, set_function):
    lines = []

    def trace(frame, event, _):
        if frame.f_code is work.__code__:
            lines.append((current_thread().name, event))
        return trace

    def work():
        sleep(1)
        return 0

    def root():
        before = sys.gettrace() if set_function is sys.settrace else sys.getprofile()
        set_function(trace)
        try:
            with ThreadGroup() as group:
                for name in "ab":
                    group.spawn(work).thread.name = name
        finally:
            set_function(before)

    virtual(root)
    ends = [name for name, event in lines if event == "return"]
    assert ["a", "b"] == ends
