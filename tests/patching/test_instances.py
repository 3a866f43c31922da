"""Queues, pollers, event loops and executors that a program made before the patch."""

from __future__ import annotations

import asyncio
import functools
import gc
import os
import queue
import sched
import select
import selectors
import socket
import threading
import types
import warnings
import weakref
from typing import Any, NamedTuple

import pytest

import vthreads
from vthreads import ThreadGroup

pytestmark = pytest.mark.unpatched


class Subclassed(queue.SimpleQueue):
    pass


@pytest.mark.sampled(1)
@pytest.mark.everywhere
@pytest.mark.real
@pytest.mark.parametrize("cls", [queue.SimpleQueue, Subclassed])
def test_a_simple_queue_made_before_parks_and_keeps_its_items(parks, cls):
    mine = cls()
    mine.put("before")
    assert "before" == vthreads.run(mine.get)
    assert "after" == parks(mine.get, lambda: mine.put("after"))
    mine.put("last")
    assert (1, False, "last", 0, True) == (mine.qsize(), mine.empty(), mine.get_nowait(), mine.qsize(), mine.empty())
    with pytest.raises(queue.Empty):
        vthreads.run(lambda: mine.get(timeout=0.01))


@pytest.mark.thorough
@pytest.mark.everywhere
@pytest.mark.real
@pytest.mark.parametrize("keep", [frozenset, weakref.WeakSet])
def test_a_simple_queue_made_before_serves_who_has_kept_the_original(parks, keep):
    mine = queue.SimpleQueue()
    kept = keep([mine])
    with pytest.warns(RuntimeWarning, match="SimpleQueue"):
        assert "item" == parks(mine.get, lambda: next(iter(kept)).put("item"))


@pytest.mark.real
@pytest.mark.parametrize("keep", [types.SimpleNamespace, functools.partial], ids=["attribute", "partial"])
def test_a_method_bound_before_to_a_socket_parks_and_is_put_back(parks, keep):
    reader, writer = socket.socketpair()
    listener = socket.create_server(("127.0.0.1", 0))
    with reader, writer, listener:
        if keep is functools.partial:
            receive, accept = keep(reader.recv), keep(listener.accept)
        else:
            kept = keep(receive=reader.recv, accept=listener.accept)
            receive, accept = functools.partial(call, kept, "receive"), functools.partial(call, kept, "accept")
        assert b"x" == parks(lambda: receive(1), lambda: writer.send(b"x"))
        with socket.socket() as client:
            connection, _ = parks(accept, lambda: client.connect(listener.getsockname()))
            connection.close()
        vthreads.unpatch()
        method = receive.func if keep is functools.partial else kept.receive
        assert isinstance(method, types.BuiltinMethodType)


def call(holder, name, *args):
    return getattr(holder, name)(*args)


@pytest.mark.real
def test_an_item_of_a_simple_queue_made_before_is_not_lost_to_a_cancelled_thread(before):
    mine = queue.SimpleQueue()

    def root():
        with ThreadGroup() as group:
            cancelled, waiting = group.spawn(mine.get), group.spawn(mine.get)
            cancelled.thread.cancel()
            mine.put("item")
            return waiting.result()

    assert "item" == vthreads.run(root)


@pytest.mark.sampled(1)
@pytest.mark.everywhere
@pytest.mark.real
@pytest.mark.skipif(not hasattr(select, "epoll"), reason="this platform has no epoll")
@pytest.mark.parametrize("collect", [int, gc.collect], ids=["tracked", "untracked"])
def test_a_set_of_descriptors_made_before_parks(parks, collect):
    readable, writable = os.pipe()
    sets = select.epoll(), select.poll()
    selector = selectors.DefaultSelector()
    # From a collection on, the collector lists the tuple no longer.
    collect()
    for one in sets:
        one.register(readable, select.POLLIN)
    selector.register(readable, selectors.EVENT_READ)

    def look(wait):
        result = parks(wait, lambda: os.write(writable, b"x"))
        os.read(readable, 1)
        return result

    assert [(readable, select.POLLIN)] == look(sets[0].poll)
    assert [(readable, select.POLLIN)] == look(sets[1].poll)
    assert 1 == look(lambda: len(selector.select()))
    selector.close()
    sets[0].close()
    os.close(readable)
    os.close(writable)


class Pair(NamedTuple):
    name: str
    value: Any


def repeated(value):
    while True:
        yield value


async def awaiting(value):
    while True:
        await asyncio.sleep(0)
        print(value)


def resumed(value):
    generator = repeated(value)
    next(generator)
    return generator


# How a program may keep an object where no assignment reaches it, and how it gets it back.
KEEPERS = {
    "tuple": (lambda value: (1, value), lambda kept: kept[1]),
    "named tuple": (lambda value: Pair("one", value), lambda kept: kept.value),
    "tuple of named tuples": (lambda value: (Pair("one", value),), lambda kept: kept[0].value),
    "argument of a generator": (repeated, next),
    "variable of a suspended generator": (resumed, next),
    "variable of a coroutine": (awaiting, lambda kept: (kept.cr_frame.f_locals["value"], kept.close())[0]),
    "partial": (lambda value: functools.partial(Pair, "one", value), lambda kept: kept().value),
    "mapping proxy": (lambda value: types.MappingProxyType({1: value}), lambda kept: kept[1]),
}


@pytest.mark.sampled(1)
@pytest.mark.everywhere
@pytest.mark.parametrize("make", [threading.Lock, threading.RLock, threading.local, queue.SimpleQueue, select.poll])
@pytest.mark.parametrize("keeper", KEEPERS)
def test_what_an_unchangeable_object_keeps_is_exchanged(before, make, keeper):
    keep, get = KEEPERS[keeper]
    original = type(make())
    kept = [keep(make())]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        vthreads.patch()
    assert type(get(kept[0])) is not original


@pytest.mark.real
def test_a_named_tuple_is_made_anew_without_its_class(before):
    made = []

    class Counted(tuple):
        __slots__ = ()

        def __new__(cls, *values):
            made.append(values)
            return super().__new__(cls, values)

    kept = [Counted(threading.Lock(), 2)]
    vthreads.patch()
    assert (1, Counted, 2) == (len(made), type(kept[0]), kept[0][1])

    def root():
        with ThreadGroup() as group, kept[0][0]:
            waiting = group.spawn(kept[0][0].acquire)
            assert 1 == len(group)
            kept[0][0].release()
            return waiting.result()

    assert vthreads.run(root)


@pytest.mark.real
def test_what_waits_by_such_objects_parks(parks):
    loop, scheduler = asyncio.new_event_loop(), sched.scheduler()
    scheduler.enter(0.01, 1, lambda: None)
    assert parks(scheduler.run, lambda: None) is None
    assert parks(lambda: loop.run_until_complete(asyncio.sleep(0.01)), lambda: None) is None
    loop.close()


def test_executors_made_before_the_patch_of_threads_work_after_it(run_script):
    assert "[3, 3]\n" == run_script(
        """
        from concurrent.futures import ThreadPoolExecutor
        unused, used = ThreadPoolExecutor(4), ThreadPoolExecutor(4)
        used.submit(int).result()
        import vthreads
        vthreads.patch(threads=True)
        print([pool.submit(lambda: 3).result(timeout=5) for pool in (unused, used)])
        for pool in (unused, used):
            pool.shutdown()
        """
    )
