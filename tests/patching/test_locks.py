"""Locks that a program made before the patch, wherever it keeps them."""

from __future__ import annotations

import collections
import functools
import gc
import threading
import time
import types

import pytest

import vthreads

pytestmark = pytest.mark.unpatched


def in_closure(lock):
    return lambda: lock


def in_default(lock):
    def get(kept=lock, *, named=lock):
        return kept if kept is named else None

    return get


class Slotted:
    __slots__ = ("lock",)


def in_slot(lock):
    holder = Slotted()
    holder.lock = lock
    return lambda: holder.lock


def in_class(lock):
    holder = type("Holder", (), {"lock": lock})
    return lambda: holder.lock


def in_list(lock):
    kept = [None, lock]
    return lambda: kept[1]


def in_key(lock):
    kept = {lock: None}
    return lambda: next(iter(kept))


def in_set(lock):
    kept = {lock}
    return lambda: next(iter(kept))


def in_partial(lock):
    call = functools.partial(getattr, functools.partial(lock.acquire, False), "func")
    return lambda: call().__self__


def in_tuple(lock):
    kept = [(1, (lock, 2))]
    return lambda: kept[0][1][0]


def in_tuple_of_locks(lock):
    kept = [((lock,), lock)]
    return lambda: kept[0][0][0] if kept[0][1] is kept[0][0][0] else None


def in_dict_of_locks(lock):
    kept = [{"lock": lock}]
    return lambda: kept[0]["lock"]


def in_tuple_of_a_class(lock):
    holder = type("Holder", (), {"locks": (lock,)})
    return lambda: holder.locks[0]


def in_deque(lock):
    kept = collections.deque([None, lock])
    return lambda: kept[1]


def in_instance_with_a_call(lock):
    # The call is exchanged first, and with it the way in which the object refers to its attributes.
    holder = types.SimpleNamespace(lock=lock, call=time.sleep, pair=(lock, 1))
    return lambda: holder.lock


def in_object_with_a_call(lock):
    holder = Plain()
    holder.lock, holder.call, holder.pair = lock, time.sleep, (lock, 1)
    return lambda: holder.lock


class Plain:
    pass


PLACES = [
    in_closure, in_default, in_slot, in_class, in_list, in_key, in_set, in_partial, in_tuple, in_deque,
    in_tuple_of_locks, in_dict_of_locks, in_tuple_of_a_class, in_instance_with_a_call, in_object_with_a_call,
]  # fmt: skip


# A collection stops the tracking of containers in which nothing is tracked, such as a tuple of locks.
@pytest.mark.parametrize("collect", [int, gc.collect], ids=["", "collected"])
def test_a_lock_made_before_is_exchanged_wherever_it_is_kept(before, collect):
    original = type(threading.Lock())
    found = {place.__name__: place(threading.Lock()) for place in PLACES}
    mine = threading.Lock()
    collect()
    vthreads.patch()
    assert [] == [name for name, get in found.items() if type(get()) is original]
    assert type(mine) is not original


@pytest.mark.thorough
@pytest.mark.everywhere
def test_a_lock_that_is_kept_where_nobody_sees_it_stays_one_lock(before):
    mine = threading.Lock()
    kept = frozenset([mine])
    with pytest.warns(RuntimeWarning, match="could not exchange"):
        vthreads.patch()
    assert kept == {mine}


@pytest.mark.thorough
@pytest.mark.everywhere
def test_a_lock_that_is_garbage_is_not_reported(before):
    gc.disable()
    try:
        garbage = Plain()
        garbage.lock = threading.Lock()
        garbage.lock.acquire()
        garbage.myself = garbage
        del garbage
        # A warning would be an error.
        vthreads.patch()
    finally:
        gc.enable()


FIRST_CALLS = {
    "run": "vthreads.run(look, lock)",
    "spawn": "vthreads.spawn(look, lock).result()",
    "spawn, by name": "vthreads.spawn(look, given=lock).result()",
    "offload": "vthreads.offload(look, lock)",
    "map": "list(vthreads.map(look, [lock]))",
    "gather": "vthreads.gather(functools.partial(look, lock))",
}


ONE_CALL, *MORE_CALLS = FIRST_CALLS


@pytest.mark.parametrize("call", [ONE_CALL, *(pytest.param(call, marks=pytest.mark.thorough) for call in MORE_CALLS)])
@pytest.mark.parametrize("where", ["in a module", "in a function"])
def test_a_lock_that_is_given_to_the_first_call_is_exchanged(call, where, run_script):
    start = """
import functools, threading, vthreads
original = id(type(threading.Lock()))
def look(given):
    print(id(type(given)) == original)
lock = threading.Lock()
"""
    use = FIRST_CALLS[call]
    if where == "in a function":
        use = f"def use():\n    lock = threading.Lock()\n    {use}\n    print(id(type(lock)) == original)\nuse()"
        assert "False\nFalse\n" == run_script(start + use)
    else:
        assert "False\nFalse\n" == run_script(f"{start}{use}\nprint(id(type(lock)) == original)")
