"""Events at the worst moment of a compiled call: it behaves as the Python version, on the selected engine."""

from __future__ import annotations

import functools
import gc
import math
import socket
import subprocess
import sys
from contextlib import suppress

import pytest

import vthreads
from vthreads import Interrupted, ThreadGroup
from vthreads._core.wait_queue import WaitQueue
from vthreads.errors import Empty, Full
from vthreads.testing import VirtualClock

pytestmark = pytest.mark.unpatched


def run_elsewhere(program, **options):
    return subprocess.run(
        [sys.executable, "-c", program], check=False, capture_output=True, text=True, timeout=60, **options
    )


# --- sockets


def take_over(number, opened):
    """Open socket pairs until one of them has `number`; that one, and its other end."""
    while True:
        pair = socket.socketpair()
        opened.extend(pair)
        for mine, other in (pair, pair[::-1]):
            if mine.fileno() == number:
                return mine, other


def drain(sock):
    sock.setblocking(False)
    with suppress(BlockingIOError):
        while True:
            sock.recv(1 << 16)


@pytest.mark.real
@pytest.mark.parametrize("call", ["recv", "recv_into", "sendall"])
def test_a_socket_that_is_closed_after_its_edge_leaves_the_next_owner_of_its_number_alone(call):
    opened = []

    def use(mine):
        if call == "recv":
            return mine.recv(10)
        if call == "recv_into":
            return mine.recv_into(bytearray(10))
        return mine.sendall(bytes(1 << 22))

    def root():
        mine, peer = socket.socketpair()
        opened.extend((mine, peer))
        with ThreadGroup(on_failure="continue") as group:
            using = group.spawn(use, mine)
            if call == "sendall":
                drain(peer)
            else:
                peer.send(b"y")
            while using.thread.state.value == "parked":
                vthreads.checkpoint()
            # The edge has arrived, and its reader has not run yet.
            number = mine.fileno()
            mine.close()
            successor, other = take_over(number, opened)
            other.send(b"secret")
            error = using.exception()
        with pytest.raises(BlockingIOError):
            other.recv(1, socket.MSG_DONTWAIT)
        return error, successor.recv(10, socket.MSG_DONTWAIT)

    try:
        error, received = vthreads.run(root)
    finally:
        for sock in opened:
            sock.close()
    assert ("[Errno 9] Bad file descriptor", b"secret") == (str(error), received)


WATCHER = """
import os, sys
fd = int(sys.argv[1])
print("ready", flush=True)
seen = 0
os.set_blocking(0, False)
while True:
    for _ in range(200):
        seen += not os.get_blocking(fd)
    try:
        if not os.read(0, 1):
            break
    except BlockingIOError:
        pass
print(seen)
"""


@pytest.mark.real
def test_a_listener_that_other_programs_share_is_never_made_nonblocking():
    def root():
        with socket.create_server(("127.0.0.1", 0)) as listener:
            listener.set_inheritable(True)
            watcher = subprocess.Popen(
                [sys.executable, "-c", WATCHER, str(listener.fileno())],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, pass_fds=[listener.fileno()],
            )  # fmt: skip
            assert b"ready\n" == watcher.stdout.readline()
            with ThreadGroup() as group:
                for _ in range(1_000):
                    accepting = group.spawn(listener.accept)
                    with socket.create_connection(listener.getsockname()):
                        accepting.result()[0].close()
            told, _ = watcher.communicate()
            return told

    assert b"0\n" == vthreads.run(root)


@pytest.mark.real
def test_an_address_with_a_zero_byte_is_refused():
    def root():
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            sock.sendto(b"x", ("127.0.0.1\0.example", 9))

    with pytest.raises(TypeError, match="null character"):
        vthreads.run(root)


# --- a finalizer during a call


class Collection:
    """Calls `action` once during the running code: when the collector starts after `allocations`."""

    def __init__(self, allocations, action):
        self._allocations = allocations
        self._action = action

    def _come(self, phase, _info):
        if phase == "start" and self._action is not None:
            action, self._action = self._action, None
            action()

    def __enter__(self):
        gc.collect()
        self._thresholds = gc.get_threshold()
        gc.callbacks.append(self._come)
        gc.set_threshold(self._allocations, 10_000, 10_000)

    def __exit__(self, *_):
        gc.set_threshold(*self._thresholds)
        gc.callbacks.remove(self._come)


@pytest.mark.parametrize("allocations", range(1, 25))
def test_a_group_that_is_cancelled_in_the_midst_of_a_spawn_leaves_nobody_uncancelled(allocations):
    log = []

    def child():
        vthreads.checkpoint()
        log.append("ran freely")

    def finish(group):
        group.cancel()
        log.append("cancelled")

    def root():
        with ThreadGroup() as group:
            group.spawn(int)
            with Collection(allocations, lambda: finish(group)):
                group.spawn(child)

    vthreads.run(root)
    assert ["cancelled", "ran freely"] != log


def test_a_callback_that_comes_while_the_locals_of_a_thread_go_is_called():
    called = []
    futures = []

    class AddsCallback:
        def __del__(self):
            futures[0].add_done_callback(called.append)

    def child():
        data.kept = AddsCallback()
        vthreads.checkpoint()

    def root():
        with ThreadGroup() as group:
            futures.append(group.spawn(child))

    data = vthreads.local()
    vthreads.run(root)
    assert futures == called


# --- an interrupt during a call


class InterruptingClock(VirtualClock):
    """A virtual clock that interrupts the thread at its `calls`th reading, as a signal handler may."""

    def __init__(self):
        super().__init__()
        self.calls = math.inf
        self.interrupted_at = None

    def now(self):
        self.calls -= 1
        if self.calls == 0:
            self.interrupted_at = self._now
            self.thread.interrupt()
        return super().now()


def taken_lock():
    lock = vthreads.Lock()
    lock.acquire()
    return lock.acquire


def taken_rlock():
    lock = vthreads.RLock()
    ThreadGroup.current.spawn(lock.acquire)
    return lock.acquire


def no_permits():
    return vthreads.Semaphore(0).acquire


def empty_queue():
    return lambda timeout: vthreads.Queue().get(timeout=timeout)


def full_queue():
    queue = vthreads.Queue(1)
    queue.put(0)
    return lambda timeout: queue.put(1, timeout=timeout)


def sleeping():
    return vthreads.sleep


def unset_event():
    return vthreads.Event().wait


WAITS = [taken_lock, taken_rlock, no_permits, empty_queue, full_queue, sleeping, unset_event]


@pytest.mark.parametrize("calls", range(1, 8))
@pytest.mark.parametrize("wait", WAITS, ids=lambda wait: wait.__name__)
def test_an_interrupt_between_the_look_and_the_park_ends_the_wait(wait, calls):
    clock = InterruptingClock()

    def root():
        with ThreadGroup():
            call = wait()
            vthreads.spawn(vthreads.sleep, 500)
            clock.thread = vthreads.current_thread()
            clock.calls = calls
            with suppress(Interrupted, Empty, Full):
                call(1_000) if wait is sleeping else call(timeout=1_000)
            clock.calls = math.inf
            assert clock.interrupted_at in (None, clock.now())

    vthreads.run(root, clock=clock)


# --- what is not what it should be


STRANGERS = [
    "Queue.get({})",
    "Queue.put({}, 1)",
    "SimpleQueue.get({})",
    "Future.result({})",
    "ThreadGroup.spawn({}, int)",
]


@pytest.mark.parametrize("call", STRANGERS)
def test_a_method_called_on_a_stranger_is_an_error(call):
    told = run_elsewhere(f"""
import vthreads
def root():
    try:
        vthreads.{call.format("object()")}
    except AttributeError:
        print("refused")
vthreads.run(root)
""")
    assert ("refused\n", "") == (told.stdout, told.stderr)


class Waiter:
    def _unpark(self, value):
        return True


def test_a_waiter_that_is_queued_twice_stands_once():
    queue, waiter = WaitQueue(), Waiter()
    queue.add(waiter)
    queue.add(waiter)
    assert 1 == len(queue)
    assert queue.unpark_one()
    assert queue.first() is None
    assert not queue.unpark_one()


def counting(base):
    class Counting(base):
        acquired = released = 0

        def acquire(self, *args, **kwargs):
            self.acquired += 1
            return super().acquire(*args, **kwargs)

        def release(self, *args):
            self.released += 1
            super().release(*args)

    return Counting()


@pytest.mark.parametrize("base", [vthreads.Lock, vthreads.RLock])
def test_a_with_block_calls_what_a_subclass_makes_of_acquire_and_release(base):
    lock = counting(base)
    with lock:
        assert (1, 0) == (lock.acquired, lock.released)
    assert (1, 1) == (lock.acquired, lock.released)
    assert not lock.locked()


def test_the_block_of_a_semaphore_takes_by_itself_and_gives_back_by_the_method():
    """As the standard library's does."""
    semaphore = counting(vthreads.Semaphore)
    with semaphore:
        pass
    assert (0, 1, 1) == (semaphore.acquired, semaphore.released, semaphore.statistics().value)


@pytest.mark.parametrize("maxsize", [math.inf, 2**70, 1.5])
def test_a_queue_has_room_for_any_number(maxsize):
    queue = vthreads.Queue(maxsize)
    queue.put_nowait(1)
    queue.put_nowait(2)
    assert (maxsize, 2) == (queue.maxsize, queue.qsize())
    assert (maxsize == 1.5) is queue.full()


class Fails:
    def __call__(self):
        raise LookupError


def fails():
    raise LookupError


@pytest.mark.parametrize("function", [fails, Fails(), functools.partial(fails), Fails().__call__])
def test_the_traceback_of_a_failure_begins_in_the_users_code(function):
    def root():
        with ThreadGroup(on_failure="continue") as group:
            return group.spawn(function).exception()

    error = vthreads.run(root)
    assert error.__traceback__.tb_frame.f_code.co_name in ("fails", "__call__")
