"""Waits of `multiprocessing`."""

import concurrent.futures
import gc
import multiprocessing
import multiprocessing.connection
import multiprocessing.pool
import os

import vthreads
from tests.matrix.endings import Operations, nothing_happened, with_every_cause

OPERATIONS = Operations()


mp = multiprocessing.get_context("fork")


def shared_lock(kind):
    def acquire():
        lock = kind()
        lock.acquire()
        yield lock.acquire
        lock.release()
        assert vthreads.gather(lambda: lock.acquire(block=False)) == [True]

    return acquire


OPERATIONS["multiprocessing.Lock"] = shared_lock(mp.Lock)
OPERATIONS["multiprocessing.RLock"] = shared_lock(mp.RLock)
OPERATIONS["multiprocessing.Semaphore"] = shared_lock(lambda: mp.Semaphore(1))


@OPERATIONS.add
def shared_condition():
    condition = mp.Condition()

    def wait():
        with condition:
            try:
                condition.wait()
            finally:
                assert condition._lock._semlock._is_mine()

    yield wait
    with condition:
        # The counters of the condition contain no waiter that notify_all would wait for.
        condition.notify_all()


@OPERATIONS.add
def shared_event():
    event = mp.Event()
    yield event.wait
    event.set()
    assert event.wait()


@OPERATIONS.add
def shared_queue_get():
    items = mp.SimpleQueue()
    yield items.get
    items.put("kept")
    assert "kept" == items.get()
    items.close()


@OPERATIONS.add
def shared_queue_put():
    items = mp.Queue(1)
    items.put("first")
    yield lambda: items.put("lost?")
    assert "first" == items.get()
    items.put("second")
    assert "second" == items.get()
    items.close()
    items.join_thread()


@OPERATIONS.add
def shared_queue_join():
    items = mp.JoinableQueue()
    items.put(1)
    yield items.join
    items.get()
    items.task_done()
    items.join()
    items.close()
    items.join_thread()


def over_a_connection(call):
    def receive():
        near, far = mp.Pipe()
        with near, far:
            yield lambda: call(near)
            far.send("kept")
            assert "kept" == near.recv()

    return receive


OPERATIONS["Connection.recv"] = over_a_connection(lambda connection: connection.recv())
OPERATIONS["Connection.poll"] = over_a_connection(lambda connection: connection.poll(7200))
OPERATIONS["connection.wait"] = over_a_connection(lambda connection: multiprocessing.connection.wait([connection]))


@OPERATIONS.add
def connection_send():
    reader, writer = mp.Pipe(duplex=False)
    with reader, writer:
        os.set_blocking(writer.fileno(), False)
        filled = 0
        try:
            while True:
                filled += os.write(writer.fileno(), b"x" * 4096)
        except BlockingIOError:
            os.set_blocking(writer.fileno(), True)
        yield lambda: writer.send("lost?")
        assert b"x" * filled == os.read(reader.fileno(), 2 * filled)
        assert not reader.poll()


@OPERATIONS.add
def process_join():
    gate = mp.Event()
    child = mp.Process(target=gate.wait)
    child.start()
    yield child.join
    gate.set()
    child.join()
    assert 0 == child.exitcode
    child.close()


def wait_at_gate():
    return gates[-1].wait()


# Those of the children by fork, too.
gates = []


def waiting_for_a_pool(make, submit, result):
    def wait():
        gates.append(mp.Event())
        with make() as pool:
            submitted = submit(pool)
            yield lambda: result(submitted)
            gates[-1].set()
            assert result(submitted)
            if isinstance(pool, multiprocessing.pool.Pool):
                pool.close()
                pool.join()
        gates.pop()
        # A pool leaves its pipes to the collector.
        pool = submitted = None
        gc.collect()

    return wait


OPERATIONS["multiprocessing.Pool"] = waiting_for_a_pool(
    lambda: mp.Pool(1), lambda pool: pool.apply_async(wait_at_gate), lambda submitted: submitted.get()
)
OPERATIONS["ProcessPoolExecutor"] = waiting_for_a_pool(
    lambda: concurrent.futures.ProcessPoolExecutor(1, mp),
    lambda pool: pool.submit(wait_at_gate),
    lambda submitted: submitted.result(),
)


@with_every_cause(OPERATIONS)
def test_nothing_happened(name, cause):
    nothing_happened(OPERATIONS[name], cause)
