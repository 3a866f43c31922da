"""No object that its users must share can be copied or pickled: a copy of a lock locks nothing."""

from __future__ import annotations

import copy
import pickle

import pytest

import vthreads
from vthreads import ThreadGroup

# What makes each object; those that need a runtime get one.
MAKERS = {
    "Barrier": lambda: vthreads.Barrier(2),
    "BoundedSemaphore": vthreads.BoundedSemaphore,
    "CancelScope": vthreads.CancelScope,
    "Channel": vthreads.Channel,
    "Condition": vthreads.Condition,
    "Event": vthreads.Event,
    "Future": lambda: vthreads.spawn(int),
    "LifoQueue": vthreads.LifoQueue,
    "Lock": vthreads.Lock,
    "Mutex": lambda: vthreads.Mutex([]),
    "PriorityQueue": vthreads.PriorityQueue,
    "Queue": vthreads.Queue,
    "RLock": vthreads.RLock,
    "RwLock": lambda: vthreads.RwLock([]),
    "Semaphore": vthreads.Semaphore,
    "SimpleQueue": vthreads.SimpleQueue,
    "ThreadGroup": ThreadGroup,
    "VirtualThread": vthreads.current_thread,
    "local": vthreads.local,
}


def test_every_public_class_has_a_row():
    classes = {name for name in vthreads.__all__ if isinstance(getattr(vthreads, name), type)}
    assert set(MAKERS) == {name for name in classes if not issubclass(getattr(vthreads, name), BaseException)}


@pytest.mark.parametrize("duplicate", [copy.copy, copy.deepcopy, pickle.dumps], ids=lambda each: each.__name__)
@pytest.mark.parametrize("name", MAKERS)
@pytest.mark.filterwarnings("ignore:.*was dropped without being entered:ResourceWarning")
def test_a_copy_is_refused(virtual, name, duplicate):
    def root():
        thing = MAKERS[name]()
        with pytest.raises(TypeError, match=f"cannot copy or pickle a {name}, because"):
            duplicate(thing)

    virtual(root)


def test_a_copy_of_what_contains_one_is_refused():
    with pytest.raises(TypeError, match="cannot copy or pickle a Lock"):
        copy.deepcopy({"lock": vthreads.Lock()})


class Named(vthreads.Event):
    """A class of the program says itself what its copies are."""

    def __reduce__(self):
        return Named, ()


def test_a_subclass_may_define_copies():
    assert isinstance(copy.copy(Named()), Named)
