"""Waits of the standard library for another thread: locks, queues, futures, threads."""

import asyncio
import concurrent.futures
import queue
import threading
import time

import vthreads
from tests.matrix.endings import Operations, nothing_happened, with_every_cause
from tests.matrix.queues import getting, putting

OPERATIONS = Operations()


@OPERATIONS.add
def time_sleep():
    yield lambda: time.sleep(3600)


def standard_lock(kind):
    def acquire():
        lock = kind()
        lock.acquire()
        yield lock.acquire
        lock.release()
        assert vthreads.gather(lambda: lock.acquire(blocking=False)) == [True]

    return acquire


OPERATIONS["threading.Lock"] = standard_lock(lambda: threading.Lock())  # looked up when called: patched by then
OPERATIONS["threading.RLock"] = standard_lock(lambda: threading.RLock())  # likewise


@OPERATIONS.add
def threading_condition():
    condition = threading.Condition()

    def wait():
        with condition:
            condition.wait()

    yield wait
    with condition:
        assert not condition._waiters


@OPERATIONS.add
def threading_event():
    event = threading.Event()
    yield event.wait
    assert not event._cond._waiters


@OPERATIONS.add
def threading_semaphore():
    semaphore = threading.Semaphore(0)
    yield semaphore.acquire
    semaphore.release()
    assert semaphore.acquire(blocking=False)


@OPERATIONS.add
def threading_barrier():
    barrier = threading.Barrier(2)
    yield barrier.wait
    assert (0, False) == (barrier.n_waiting, barrier.broken)


for kind in (queue.Queue, queue.LifoQueue, queue.PriorityQueue):
    OPERATIONS[f"queue.{kind.__name__}.get"] = getting(kind)
    OPERATIONS[f"queue.{kind.__name__}.put"] = putting(kind)
OPERATIONS["queue.SimpleQueue.get"] = getting(lambda: queue.SimpleQueue())  # likewise


@OPERATIONS.add
def standard_queue_join():
    items = queue.Queue()
    items.put(1)
    yield items.join
    items.get_nowait()
    items.task_done()


@OPERATIONS.add
def concurrent_future():
    future = concurrent.futures.Future()
    yield future.result
    future.set_result("kept")
    assert "kept" == future.result()


@OPERATIONS.add
def futures_wait():
    future = concurrent.futures.Future()
    yield lambda: concurrent.futures.wait([future])
    future.set_result("kept")
    assert ({future}, set()) == concurrent.futures.wait([future])


@OPERATIONS.add
def thread_join():
    gate = threading.Event()
    thread = threading.Thread(target=gate.wait)
    thread.start()
    yield thread.join
    assert thread.is_alive()
    gate.set()
    thread.join()


@OPERATIONS.add
def asyncio_run():
    yield lambda: asyncio.run(asyncio.sleep(3600))
    assert "kept" == asyncio.run(asyncio.sleep(0, "kept"))


@with_every_cause(OPERATIONS)
def test_nothing_happened(name, cause):
    nothing_happened(OPERATIONS[name], cause)
