"""Subclasses of `threading.local` that a program defined before the patch."""

from __future__ import annotations

import threading
import weakref

import pytest

import vthreads
from vthreads import ThreadGroup

pytestmark = pytest.mark.unpatched


def with_default():
    class Request(threading.local):
        user = None

    return Request


def with_init():
    class Request(threading.local):
        def __init__(self, *args, **keywords):
            self.user, self.made_with = None, (args, keywords)

    return Request


def with_base():
    class Base(threading.local):
        pass

    class Request(Base):
        user = None

    return Request


def with_mixin():
    class Mixin:
        user = None

    class Request(Mixin, threading.local):
        pass

    return Request


def with_slots():
    class Request(threading.local):
        __slots__ = ()
        user = None

    return Request


def with_property():
    class Request(threading.local):
        @property
        def user(self):
            return vars(self).get("_user")

        @user.setter
        def user(self, user):
            self._user = user

    return Request


def with_missing():
    class Request(threading.local):
        def __getattr__(self, name):
            return None

    return Request


def with_own_access():
    class Request(threading.local):
        user = None

        def __getattribute__(self, name):
            return super().__getattribute__(name)

        def __setattr__(self, name, value):
            threading.local.__setattr__(self, name, value)

    return Request


def with_own_new():
    class Request(threading.local):
        user = None

        def __new__(cls):
            return threading.local.__new__(cls)

    return Request


def without_hash():
    class Request(threading.local):
        user = None
        __hash__ = None

        def __eq__(self, other):
            raise AssertionError("compared")

    return Request


SHAPES = [
    with_default, with_init, with_base, with_mixin, with_slots, with_property, with_missing, with_own_access,
    with_own_new, without_hash,
]  # fmt: skip


@pytest.mark.sampled(1)
@pytest.mark.everywhere
@pytest.mark.parametrize("made", ["before", "after", "in a virtual thread"])
def test_a_thread_local_of_a_class_made_before_is_per_virtual_thread(before, virtual, made):
    classes = [shape() for shape in SHAPES]
    objects = [request_class() for request_class in classes]
    for old in objects:
        old.user = "of the OS thread"

    def use(current, user):
        assert current.user is None
        current.user = user
        vthreads.checkpoint()
        return current.user

    def root():
        for request_class, old in zip(classes, objects, strict=True):
            assert "of the OS thread" == old.user
            if made == "before":
                current = old
            elif made == "after":
                current = request_class()
            else:
                current = vthreads.spawn(request_class).result()
            assert current is old or current.user is None
            with ThreadGroup() as group:
                futures = [group.spawn(use, current, user) for user in ("first", "second")]
            assert ["first", "second"] == [future.result() for future in futures]

    vthreads.patch()
    virtual(root)


def test_init_of_a_class_made_before_runs_in_each_virtual_thread_with_the_arguments(before, virtual):
    request_class = with_init()
    current = request_class(1, name="x"), request_class(2), request_class()
    vthreads.patch()

    def look():
        return [request.made_with for request in (*current, request_class(3, name="y"))]

    expected = [((1,), {"name": "x"}), ((2,), {}), ((), {}), ((3,), {"name": "y"})]
    assert expected == virtual(lambda: vthreads.spawn(look).result())
    assert expected == look()


@pytest.mark.thorough
@pytest.mark.everywhere
def test_a_failed_init_of_a_class_made_before_is_tried_again_on_the_os_thread(before, virtual):
    fails = True

    class Request(threading.local):
        def __init__(self):
            if fails and vthreads.current_thread() is root_thread:
                raise LookupError
            self.user = "prepared"

    def root():
        nonlocal root_thread, fails
        root_thread = vthreads.current_thread()
        current = vthreads.spawn(Request).result()
        with pytest.raises(LookupError):
            _ = current.user
        fails = False
        return current.user

    root_thread = None
    vthreads.patch()
    assert "prepared" == virtual(root)


def test_data_of_a_class_made_before_end_with_their_thread_and_with_the_object(before, virtual):
    class Request(threading.local):
        pass

    class Value:
        pass

    def use(current):
        current.value = Value()
        return weakref.ref(current.value)

    def keep():
        mine = Request()
        value = use(mine)
        del mine
        return value() is None

    def root():
        current = Request()
        return vthreads.spawn(use, current).result()() is None, vthreads.spawn(keep).result()

    vthreads.patch()
    assert (True, True) == virtual(root)


@pytest.mark.thorough
@pytest.mark.everywhere
def test_os_threads_have_their_own_data_in_a_class_made_before(before, virtual):
    current = with_default()()
    vthreads.patch()

    def handle(user):
        assert current.user is None
        current.user = user

    def root():
        vthreads.spawn(handle, "virtual").result()
        os_thread = threading.Thread(target=handle, args=("OS",))
        os_thread.start()
        os_thread.join()
        return current.user

    assert virtual(root) is None
