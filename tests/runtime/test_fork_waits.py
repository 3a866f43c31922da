"""In the child of a fork, threads of the parent neither get what others give back, nor keep what they held."""

from __future__ import annotations

import json

import pytest

# Each row: how the object is made; what the forking thread does before; what another thread waits in; what the child
# does. `repeated` runs a function that waits on a new thread of the child. The child's last expression is its answer.
CASES = {
    "threading.Lock": ("threading.Lock()", "it.acquire()", "it.acquire()", "it.release(), it.acquire(timeout=1)"),
    "threading.RLock": ("threading.RLock()", "it.acquire()", "it.acquire()", "it.release(), it.acquire(timeout=1)"),
    "threading.Semaphore": (
        "threading.Semaphore(0)",
        "",
        "it.acquire()",
        "it.release(), it.acquire(timeout=1)",
    ),
    "threading.Condition": ("threading.Condition()", "", "locked(it, it.wait)", "locked(it, it.notify), True"),
    "queue.SimpleQueue": ("queue.SimpleQueue()", "", "it.get()", "repeated(it.get, lambda: it.put(True))"),
    "queue.Queue": ("queue.Queue()", "", "it.get()", "repeated(it.get, lambda: it.put(True))"),
    "Lock": ("vthreads.Lock()", "it.acquire()", "it.acquire()", "it.release(), it.acquire(timeout=1)"),
    "RLock": ("vthreads.RLock()", "it.acquire()", "it.acquire()", "it.release(), it.acquire(timeout=1)"),
    "Semaphore": ("vthreads.Semaphore(0)", "", "it.acquire()", "it.release(), it.acquire(timeout=1)"),
    "Condition": (
        "vthreads.Condition()",
        "",
        "locked(it, it.wait)",
        "repeated(lambda: locked(it, it.wait), lambda: locked(it, it.notify))",
    ),
    "Queue": ("vthreads.Queue()", "", "it.get()", "repeated(it.get, lambda: it.put(True))"),
    "Queue.put": ("filled(vthreads.Queue(1))", "", "it.put(1)", "it.get(), it.put(1, timeout=1) is None"),
    "SimpleQueue": ("vthreads.SimpleQueue()", "", "it.get()", "repeated(it.get, lambda: it.put(True))"),
    "Channel": ("vthreads.Channel()", "", "it.receive()", "repeated(it.receive, lambda: it.send(True))"),
    "Mutex": (
        "vthreads.Mutex(True)",
        "block = it.lock(); block.__enter__()",
        "locked(it.lock(), bool)",
        "block.__exit__(None, None, None), locked(it.lock(timeout=1), lambda: True)",
    ),
    "RwLock, writers": (
        "vthreads.RwLock(True)",
        "block = it.write(); block.__enter__()",
        "locked(it.write(), bool)",
        "block.__exit__(None, None, None), locked(it.write(timeout=1), lambda: True)",
    ),
    "RwLock, readers": (
        "vthreads.RwLock(True)",
        "block = it.write(); block.__enter__()",
        "locked(it.read(), bool)",
        "block.__exit__(None, None, None), locked(it.write(timeout=1), lambda: True)",
    ),
    # Another thread holds the turn of the buffer, inside C code.
    "io.BufferedReader": (
        "io.BufferedReader(Slow())",
        "",
        "it.readline()",
        "it.raw.ready.set(), it.readline() == b'x\\n'",
    ),
}

SCRIPT = """
import io, json, os, queue, sys, threading, time
import vthreads
from vthreads import ThreadGroup

kind, before, wait, child = json.loads(sys.argv[1])
is_virtual = sys.argv[2] == "virtual"

class Slow(io.RawIOBase):
    # Parks until it is ready, inside the C code of the buffer.
    def __init__(self):
        self.ready = vthreads.Event()

    def readable(self):
        return True

    def readinto(self, buffer):
        self.ready.wait()
        buffer[:2] = b"x\\n"
        return 2

def filled(queue):
    queue.put(True)
    return queue

def locked(lock, call):
    with lock:
        return call()

def repeated(call, then):
    with ThreadGroup() as group:
        future = group.spawn(call)
        vthreads.sleep(0.05)
        then()
    return future.result() is not None

def parked():
    started.set()
    eval(wait, globals())

def answer():
    try:
        with vthreads.fail_after(3):
            value = eval(child, globals())
    except BaseException as error:
        return f"{type(error).__name__}: {error}"
    return value[-1] if isinstance(value, tuple) else value

def root():
    global it
    it = eval(kind, globals())
    exec(before, globals())
    if is_virtual:
        vthreads.spawn(parked)
    else:
        threading.Thread(target=parked, daemon=True).start()
    started.wait()
    # Long enough for the other thread to begin its wait.
    vthreads.sleep(0.2)
    pid = os.fork()
    if pid == 0:
        print(answer(), flush=True)
        os._exit(0)
    os.waitpid(pid, 0)
    os._exit(0)

started = vthreads.Event()
vthreads.run(root)
"""


@pytest.mark.thorough
@pytest.mark.parametrize("waiting", ["virtual", "os"])
@pytest.mark.parametrize("case", CASES)
def test_a_thread_that_the_child_does_not_have_gets_and_keeps_nothing(run_script, case, waiting):
    assert "True\n" == run_script(SCRIPT, json.dumps(CASES[case]), waiting)
