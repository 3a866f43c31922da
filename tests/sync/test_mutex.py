"""Mutex and RwLock: which value they give, to which thread, and for how long."""

from __future__ import annotations

import io
import operator
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from vthreads import Cancelled, CancelScope, ThreadGroup, now, sleep
from vthreads._sync.mutex import Mutex, RwLock
from vthreads._sync.statistics import LockStatistics, RwLockStatistics

pytestmark = pytest.mark.unpatched


def until(condition):
    while not condition():
        sleep(0)
        time.sleep(0)


# --- Mutex


def test_the_block_gives_the_value_itself():
    value = []
    mutex = Mutex(value)
    with mutex.lock() as inside:
        assert inside is value


def test_one_at_a_time_is_inside(virtual, order):
    def root():
        mutex = Mutex({"inside": 0, "log": []})

        def worker(number):
            with mutex.lock() as value:
                value["inside"] += 1
                assert 1 == value["inside"]
                sleep(1)
                value["log"].append(number)
                value["inside"] -= 1

        with ThreadGroup() as group:
            for number in range(4):
                group.spawn(worker, number)
        with mutex.lock() as value:
            return value["log"]

    assert [0, 1, 2, 3] == virtual(root, order=order)


def test_a_guard_replaces_the_value():
    mutex = Mutex(1)
    with mutex.guard() as guard:
        assert 1 == guard.value
        guard.value = 2
        assert 2 == guard.value
    with mutex.lock() as value:
        assert 2 == value


def test_a_guard_is_of_no_use_after_its_block():
    mutex = Mutex(1)
    with mutex.guard() as guard:
        pass
    with pytest.raises(RuntimeError, match="used after its block"):
        _ = guard.value
    with pytest.raises(RuntimeError, match="used after its block"):
        guard.value = 2


def test_an_exception_in_the_block_releases_the_lock():
    mutex = Mutex([])
    for make in (mutex.lock, mutex.guard, mutex.try_lock):
        with pytest.raises(ZeroDivisionError), make():
            _ = 1 / 0
        assert not mutex.statistics().locked


def test_a_lock_that_cannot_be_had_in_time(virtual):
    def root():
        mutex = Mutex([])
        with mutex.lock():
            for block in (mutex.lock(2), mutex.guard(timeout=1)):
                with pytest.raises(TimeoutError, match="was not acquired within"), block:
                    pytest.fail("nobody may be here")
            assert 3 == now()
            with pytest.raises(TimeoutError), mutex.lock(0):
                pytest.fail("nobody may be here")
            with pytest.raises(TimeoutError), mutex.lock(-1):
                pytest.fail("nobody may be here")
        assert LockStatistics(False, None, 0) == mutex.statistics()

    virtual(root)


def test_try_lock_gives_the_block_or_none(virtual):
    def root():
        mutex = Mutex([1])
        with CancelScope() as scope:
            scope.cancel()
            block = mutex.try_lock()
            assert mutex.try_lock() is None
            with block as value:
                assert [1] == value
            assert not mutex.statistics().locked
        assert not scope.cancelled_caught

    virtual(root)


def test_a_block_can_be_used_again():
    mutex = Mutex([])
    block = mutex.try_lock()
    for _ in range(2):
        with block:
            assert mutex.statistics().locked
        assert not mutex.statistics().locked


def test_a_mutex_says_its_state_and_not_its_value():
    mutex = Mutex("secret")
    assert "<Mutex unlocked>" == repr(mutex)
    with mutex.lock():
        assert "<Mutex locked>" == repr(mutex)


def test_os_and_virtual_threads_share_a_mutex(virtual):
    def root():
        mutex = Mutex([0])

        def work():
            for _ in range(100):
                with mutex.lock() as value:
                    before = value[0]
                    time.sleep(0)
                    value[0] = before + 1

        with ThreadPoolExecutor(2) as pool, ThreadGroup() as group:
            futures = [pool.submit(work) for _ in range(2)]
            group.spawn(work)
            until(lambda: all(future.done() for future in futures))
        with mutex.lock() as value:
            return value[0]

    assert 300 == virtual(root)


# --- a checked Mutex


def used_after(value):
    mutex = Mutex(value, checked=True)
    with mutex.lock() as proxy:
        pass
    return proxy


USES = {
    "attribute": lambda proxy: proxy.real,
    "set attribute": lambda proxy: setattr(proxy, "name", 1),
    "delete attribute": lambda proxy: delattr(proxy, "name"),
    "operator": lambda proxy: proxy + 1,
    "reflected": lambda proxy: 1 + proxy,
    "in place": lambda proxy: operator.iadd(proxy, 1),
    "compare": lambda proxy: proxy == 1,
    "item": lambda proxy: proxy[0],
    "set item": lambda proxy: operator.setitem(proxy, 0, 0),
    "delete item": lambda proxy: operator.delitem(proxy, 0),
    "call": lambda proxy: proxy(),
    "in": lambda proxy: 1 in proxy,
    "iter": iter,
    "next": next,
    "len": len,
    "bool": bool,
    "str": str,
    "repr": repr,
    "hash": hash,
    "int": int,
    "dir": dir,
    "enter": lambda proxy: proxy.__enter__(),
}


@pytest.mark.parametrize("use", USES)
def test_the_value_of_a_checked_mutex_raises_after_the_block(use):
    with pytest.raises(RuntimeError, match="<Mutex unlocked> was used after its block; copy what you need"):
        USES[use](used_after(1))


def inside(value):
    return Mutex(value, checked=True).lock()


def test_inside_the_block_the_proxy_behaves_as_the_value():
    with inside([3, 1, 2]) as proxy:
        proxy.append(4)
        proxy[0] = 5
        del proxy[1]
        proxy.sort()
        assert [2, 4, 5] == proxy
        assert (3, True, 5, True) == (len(proxy), bool(proxy), proxy[-1], 4 in proxy)
        assert [5, 4, 2] == list(reversed(proxy))
        assert ("[2, 4, 5]", "[2, 4, 5]") == (repr(proxy), str(proxy))
        assert [2, 4, 5, 6] == proxy + [6]  # noqa: RUF005 - the operator is what is tested
        with pytest.raises(TypeError, match="unhashable"):
            hash(proxy)


def test_the_proxy_of_a_number_calculates():
    with inside(5) as proxy:
        assert (6, 6, -5, 5, 5.0, 2, (2, 1)) == (
            proxy + 1,
            1 + proxy,
            -proxy,
            abs(proxy),
            float(proxy),
            proxy // 2,
            divmod(proxy, 2),
        )
        # Numbers that are the very object inside come out as themselves, not as the proxy.
        assert (5, 5, 5, hash(5)) == (int(proxy), operator.index(proxy), proxy + 0, hash(proxy))
        assert int is type(proxy + 0)
        assert (True, True, False) == (proxy > 4, proxy == 5, proxy != 5)
        assert ["005", "5"] == [format(proxy, "03"), f"{proxy}"]
        with pytest.raises(TypeError):
            _ = proxy + "1"
        proxy += 1  # noqa: PLW2901 - likewise
        assert 6 == proxy


def test_a_change_in_place_keeps_the_proxy():
    mutex = Mutex([1], checked=True)
    with mutex.lock() as proxy:
        proxy += [2]
    with pytest.raises(RuntimeError, match="used after its block"):
        len(proxy)
    with mutex.lock() as proxy:
        assert [1, 2] == proxy


def test_what_the_value_cannot_do_the_proxy_cannot_either():
    with inside(object()) as proxy:
        for use in ("call", "item", "set item", "delete item", "len", "in", "iter", "next", "int", "operator"):
            with pytest.raises(TypeError):
                USES[use](proxy)
        with pytest.raises(AttributeError):
            _ = proxy.missing


def test_the_proxy_of_a_context_manager_can_be_entered():
    with inside(io.StringIO("text")) as proxy:
        with proxy as file:
            assert "text" == file.read()
        assert proxy.closed
    with pytest.raises(RuntimeError, match="used after its block"):
        file.read()


def test_the_proxy_of_a_function_passes_keywords_on():
    with inside(dict) as proxy:
        assert {"a": 1} == proxy(a=1)


def test_attributes_of_the_value_can_be_set_and_deleted():
    class Value:
        pass

    value = Value()
    with inside(value) as proxy:
        proxy.name = 1
        assert 1 == value.name
        del proxy.name
        assert not hasattr(value, "name")
        assert "append" not in dir(proxy)


def test_a_checked_value_that_is_locked_again_has_a_proxy_of_its_own():
    mutex = Mutex([1], checked=True)
    with mutex.lock() as first:
        pass
    with mutex.lock() as second:
        assert [1] == second
        with pytest.raises(RuntimeError):
            len(first)


# --- RwLock


def test_readers_share_and_a_writer_is_alone(virtual, order):
    def root():
        lock, readers, writers, most = RwLock([]), 0, 0, 0

        def reader():
            nonlocal readers, most
            with lock.read():
                readers += 1
                most = max(most, readers)
                assert 0 == writers
                sleep(1)
                readers -= 1

        def writer():
            nonlocal writers
            with lock.write():
                writers += 1
                assert (1, 0) == (writers, readers)
                sleep(1)
                writers -= 1

        with ThreadGroup() as group:
            for worker in (reader, reader, writer, writer, reader, reader):
                group.spawn(worker)
        assert RwLockStatistics(0, False, 0) == lock.statistics()
        return most, now()

    assert (2, 4) == virtual(root, order=order)


def access(block, log, name, seconds=1):
    with block:
        log.append(name)
        sleep(seconds)


def test_first_come_first_served(virtual):
    def root():
        lock, log = RwLock([]), []
        with ThreadGroup() as group:
            for name in ("r1", "w2", "r3", "r4", "w5", "r6"):
                group.spawn(access, lock.read() if name[0] == "r" else lock.write(), log, name)
            assert RwLockStatistics(1, False, 5) == lock.statistics()
            assert "<RwLock readers=1 writing=False waiting=5>" == repr(lock)
        return log

    assert ["r1", "w2", "r3", "r4", "w5", "r6"] == virtual(root)


def test_a_stream_of_readers_does_not_starve_a_writer(virtual):
    def root():
        lock, log = RwLock([]), []

        def readers():
            for number in range(10):
                group.spawn(access, lock.read(), log, number, 2)
                sleep(1)

        with ThreadGroup() as group:
            group.spawn(readers)
            sleep(2.5)
            group.spawn(access, lock.write(), log, "writer")
        return log

    assert [0, 1, 2, "writer", *range(3, 10)] == virtual(root)


def leave_by_cancel(future):
    future.cancel()


def leave_by_timeout(_):
    sleep(5)


@pytest.mark.parametrize("leave", [leave_by_cancel, leave_by_timeout])
def test_a_writer_that_leaves_the_queue_lets_the_readers_behind_it_through(virtual, leave):
    def root():
        lock, log = RwLock([]), []

        def writer():
            try:
                with lock.write(5):
                    pytest.fail("nobody may be here")
            except TimeoutError:
                pass

        with ThreadGroup() as group:
            group.spawn(access, lock.read(), log, 1, 100)
            future = group.spawn(writer)
            for name in (2, 3):
                group.spawn(access, lock.read(), log, name, 100)
            assert [1] == log
            leave(future)
            # In that very moment, not only when the writer has run.
            assert RwLockStatistics(3, False, 0) == lock.statistics()
            sleep(0)
            return log

    assert [1, 2, 3] == virtual(root)


def test_a_writer_behind_a_cancelled_reader_is_next(virtual):
    def root():
        lock, log = RwLock([]), []
        with ThreadGroup() as group:
            group.spawn(access, lock.write(), log, 1)
            reader = group.spawn(access, lock.read(), log, 2)
            group.spawn(access, lock.write(), log, 3)
            reader.cancel()
        return log, now()

    assert ([1, 3], 2) == virtual(root)


def test_an_access_that_cannot_be_had_in_time(virtual):
    def root():
        lock = RwLock([])
        with lock.read():
            with lock.read(0):
                pass
            with pytest.raises(TimeoutError, match="was not acquired within 2 seconds"), lock.write(2):
                pytest.fail("nobody may be here")
            with pytest.raises(TimeoutError), lock.write(0):
                pytest.fail("nobody may be here")
        assert 2 == now()

    virtual(root)


def test_free_access_in_a_cancelled_scope_raises(virtual):
    def root():
        lock = RwLock([])
        with CancelScope() as scope:
            scope.cancel()
            for block in (lock.read(), lock.write()):
                with pytest.raises(Cancelled), block:
                    pytest.fail("nobody may be here")
            for block in (lock.read(0), lock.write(0)):
                with block:
                    pass
        return lock.statistics()

    assert RwLockStatistics(0, False, 0) == virtual(root)


def test_the_block_ends_the_access_after_an_exception():
    lock = RwLock([])
    for block in (lock.read(), lock.write()):
        with pytest.raises(ZeroDivisionError), block:
            _ = 1 / 0
    assert RwLockStatistics(0, False, 0) == lock.statistics()


def test_os_and_virtual_threads_read_and_write(virtual):
    def root():
        lock = RwLock({"a": 0, "b": 0})

        def work():
            for _ in range(50):
                with lock.write() as value:
                    value["a"] += 1
                    time.sleep(0)
                    value["b"] += 1
                with lock.read() as value:
                    assert value["a"] == value["b"]

        with ThreadPoolExecutor(2) as pool, ThreadGroup() as group:
            futures = [pool.submit(work) for _ in range(2)]
            group.spawn(work)
            until(lambda: all(future.done() for future in futures))
        for future in futures:
            future.result()
        with lock.read() as value:
            return value

    assert {"a": 150, "b": 150} == virtual(root)
