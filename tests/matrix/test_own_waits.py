"""Waits of vthreads: locks, queues, channels, futures, groups."""

import concurrent.futures
import threading

import pytest

import vthreads
from tests.matrix.endings import Operations, fail, nothing_happened, with_every_cause
from tests.matrix.queues import getting, putting
from vthreads import ThreadGroup

OPERATIONS = Operations()


@OPERATIONS.add
def sleep():
    yield lambda: vthreads.sleep(3600)


@OPERATIONS.add
def lock():
    lock = vthreads.Lock()
    lock.acquire()
    yield lock.acquire
    assert lock.locked()
    lock.release()
    assert lock.acquire(blocking=False)


@OPERATIONS.add
def rlock():
    lock = vthreads.RLock()
    lock.acquire()
    yield lock.acquire
    lock.release()
    assert vthreads.gather(lambda: lock.acquire(blocking=False)) == [True]


@OPERATIONS.add
def condition():
    condition = vthreads.Condition()

    def wait():
        with condition:
            try:
                condition.wait()
            except BaseException:
                assert condition._is_owned() if hasattr(condition, "_is_owned") else True
                raise

    yield wait
    assert condition.acquire(blocking=False)
    condition.notify_all()
    condition.release()
    assert 0 == condition.statistics().waiting


@OPERATIONS.add
def event():
    event = vthreads.Event()
    yield event.wait
    assert 0 == event.statistics().waiting


@OPERATIONS.add
def semaphore():
    semaphore = vthreads.Semaphore(0)
    yield semaphore.acquire
    semaphore.release()
    assert 1 == semaphore.statistics().value


@OPERATIONS.add
def bounded_semaphore():
    semaphore = vthreads.BoundedSemaphore(1)
    semaphore.acquire()
    yield semaphore.acquire
    semaphore.release()
    assert 1 == semaphore.statistics().value


@OPERATIONS.add
def barrier():
    barrier = vthreads.Barrier(2)
    yield barrier.wait
    # As in `threading`: a barrier that a party left is broken.
    assert barrier.broken


for kind in (vthreads.Queue, vthreads.LifoQueue, vthreads.PriorityQueue):
    OPERATIONS[f"{kind.__name__}.get"] = getting(kind)
    OPERATIONS[f"{kind.__name__}.put"] = putting(kind)
OPERATIONS["SimpleQueue.get"] = getting(vthreads.SimpleQueue)


@OPERATIONS.add
def queue_join():
    items = vthreads.Queue()
    items.put(1)
    yield items.join
    items.get_nowait()
    items.task_done()


@OPERATIONS.add
def mutex():
    mutex = vthreads.Mutex([])

    def append():
        with mutex.lock() as value:
            value.append(1)

    with mutex.lock() as value:
        yield append
        assert [] == value
    assert mutex.try_lock() is not None


@OPERATIONS.add
def rwlock_read():
    lock = vthreads.RwLock("value")

    def read():
        with lock.read():
            raise AssertionError("a writer holds it")

    with lock.write():
        yield read
    with lock.write():
        pass


@OPERATIONS.add
def rwlock_write():
    lock = vthreads.RwLock("value")

    def write():
        with lock.write():
            raise AssertionError("a reader holds it")

    with lock.read():
        yield write
        with lock.read():
            pass


@OPERATIONS.add
def channel_send():
    channel = vthreads.Channel()
    yield lambda: channel.send("lost?")
    channel.close()
    with pytest.raises(vthreads.ChannelClosed):
        channel.receive()


@OPERATIONS.add
def channel_receive():
    channel = vthreads.Channel(1)
    yield channel.receive
    channel.send("kept")
    assert "kept" == channel.receive()


@OPERATIONS.add
def receive_any():
    one, two = vthreads.Channel(1), vthreads.Channel(1)
    yield lambda: vthreads.receive_any(one, two)
    one.send(1)
    two.send(2)
    assert [1, 2] == [one.receive(), two.receive()]


@OPERATIONS.add
def future_result():
    with ThreadGroup() as group:
        future = group.spawn(vthreads.sleep, 7200)
        yield future.result
        assert not future.done()
        group.cancel()


class Idle(concurrent.futures.Executor):
    """An executor that never begins."""

    def __init__(self):
        self.futures = []

    def submit(self, fn, /, *args, **kwargs):
        self.futures.append(concurrent.futures.Future())
        return self.futures[-1]


@OPERATIONS.add
def submit():
    executor = Idle()

    def wait():
        with ThreadGroup() as group:
            group.submit(executor, fail, ValueError())

    yield wait
    (future,) = executor.futures
    assert future.cancelled()


@OPERATIONS.add
def submitted_result():
    with ThreadGroup() as group:
        future = group.submit(Idle(), fail, ValueError())
        yield future.result
        assert not future.done()
        group.cancel()


@OPERATIONS.add
def join():
    with ThreadGroup() as group:
        future = group.spawn(vthreads.sleep, 7200)
        yield future.thread.join
        assert future.thread.is_alive()
        group.cancel()


@OPERATIONS.add
def wait():
    with ThreadGroup() as group:
        future = group.spawn(vthreads.sleep, 7200)
        foreign = concurrent.futures.Future()
        yield lambda: vthreads.wait([future, foreign])
        assert not future.done()
        group.cancel()


@OPERATIONS.add
def as_completed():
    foreign = concurrent.futures.Future()
    yield lambda: list(vthreads.as_completed([foreign]))
    foreign.set_result(1)
    assert [foreign] == list(vthreads.as_completed([foreign]))


@OPERATIONS.add
def spawn_into_a_full_group():
    with ThreadGroup(max_concurrency=1) as group:
        group.spawn(vthreads.sleep, 7200)
        yield lambda: group.spawn(pytest.fail, "started all the same")
        assert 1 == len(group)
        group.cancel()


@OPERATIONS.add
def group_as_completed():
    with ThreadGroup() as group:
        group.spawn(vthreads.sleep, 7200)
        yield lambda: next(group.as_completed())
        assert 1 == len(group)
        group.cancel()


@OPERATIONS.add
def nested_group():
    def parent():
        with ThreadGroup() as inner:
            inner.spawn(vthreads.sleep, 7200)

    yield parent


@OPERATIONS.add
def gather():
    yield lambda: vthreads.gather(lambda: vthreads.sleep(3600), lambda: vthreads.sleep(7200))


@OPERATIONS.add
def race():
    yield lambda: vthreads.race(lambda: vthreads.sleep(3600), lambda: vthreads.sleep(7200))


@OPERATIONS.add
def lazy_map():
    yield lambda: list(vthreads.map(vthreads.sleep, [3600, 7200]))


@OPERATIONS.add
def offload_abandoned():
    gate = threading.Event()
    yield lambda: vthreads.offload(gate.wait, on_cancel="abandon")
    gate.set()


@with_every_cause(OPERATIONS)
def test_nothing_happened(name, cause):
    nothing_happened(OPERATIONS[name], cause)
