"""`local`: data per thread, and their lifetime."""

from __future__ import annotations

import gc
import threading
import weakref
from concurrent.futures import ThreadPoolExecutor

import pytest

import vthreads
from vthreads import ThreadGroup, sleep
from vthreads._sync.local import local

pytestmark = pytest.mark.unpatched


class Thing:
    """Something that can be referred to weakly."""


def in_os_thread(call, *args):
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(call, *args).result()


# --- whose data


def test_each_virtual_thread_has_its_own(virtual, order):
    def root():
        mine, log = local(), []

        def child(number):
            assert not hasattr(mine, "value")
            mine.value = number
            sleep(0)
            assert number == mine.value
            log.append(mine.value)
            del mine.value
            assert not hasattr(mine, "value")

        mine.value = "root"
        with ThreadGroup() as group:
            for number in range(5):
                group.spawn(child, number)
        assert "root" == mine.value
        return sorted(log)

    assert [0, 1, 2, 3, 4] == virtual(root, order=order)


def test_the_root_shares_the_data_of_its_os_thread():
    mine = local()
    mine.before = 1

    def root():
        assert 1 == mine.before
        mine.inside = 2

        def child():
            return hasattr(mine, "before"), hasattr(mine, "inside")

        with ThreadGroup() as group:
            future = group.spawn(child)
        return future.result()

    assert (False, False) == vthreads.run(root, patch=False)
    assert 2 == mine.inside


def test_os_threads_have_their_own():
    mine = local()
    mine.value = 1

    def other():
        assert not hasattr(mine, "value")
        mine.value = 2
        return vthreads.run(lambda: mine.value, patch=False)

    assert 2 == in_os_thread(other)
    assert 1 == mine.value


def test_two_locals_do_not_mix(virtual):
    def root():
        one, two = local(), local()
        one.value = 1
        two.value = 2
        del two.value
        return one.value

    assert 1 == virtual(root)


# --- attributes


def test_a_missing_attribute_is_an_attribute_error():
    mine = local()
    with pytest.raises(AttributeError, match="'local' object has no attribute 'missing'"):
        _ = mine.missing
    with pytest.raises(AttributeError, match="'local' object has no attribute 'missing'"):
        del mine.missing


def test_the_data_can_be_reached_as_a_dict(virtual):
    def root():
        mine = local()
        mine.a = 1
        mine.__dict__["b"] = 2
        assert {"a": 1, "b": 2} == mine.__dict__ == vars(mine)
        assert 2 == mine.b
        with ThreadGroup() as group:
            assert {} == group.spawn(lambda: mine.__dict__).result()
        assert {"a", "b"} <= set(dir(mine))

    virtual(root)


def test_the_dict_cannot_be_replaced():
    mine = local()
    with pytest.raises(AttributeError, match="'local' object attribute '__dict__' is read-only"):
        mine.__dict__ = {}
    with pytest.raises(AttributeError, match="'local' object attribute '__dict__' is read-only"):
        del mine.__dict__


def test_class_attributes_are_defaults_for_all_threads(virtual):
    class Mine(local):
        value = "default"

        def method(self):
            return self.value

    def root():
        mine = Mine()
        mine.value = "root"
        with ThreadGroup() as group:
            assert "default" == group.spawn(mine.method).result()
        assert "root" == mine.method()
        del mine.value
        assert "default" == mine.value
        with pytest.raises(AttributeError):
            del mine.value

    virtual(root)


def test_a_property_works_on_the_data_of_the_thread(virtual):
    class Mine(local):
        @property
        def double(self):
            return self.value * 2

        @double.setter
        def double(self, double):
            self.value = double // 2

        @property
        def fixed(self):
            return 1

    def root():
        mine = Mine()
        mine.double = 4
        assert (2, 4) == (mine.value, mine.double)
        # A data descriptor comes before the data, as everywhere.
        mine.__dict__["double"] = "hidden"
        assert 4 == mine.double
        with pytest.raises(AttributeError):
            mine.fixed = 2
        with ThreadGroup() as group:
            future = group.spawn(lambda: hasattr(mine, "double"))
        return future.result()

    assert virtual(root) is False


def test_a_method_can_be_shadowed_by_data_and_a_slot_cannot(virtual):
    class Mine(local):
        __slots__ = ("shared",)

        def method(self):
            return "method"

    def root():
        mine = Mine()
        mine.method = "data"
        mine.shared = 1
        mine.__dict__["shared"] = "hidden"
        assert ("data", 1) == (mine.method, mine.shared)
        with ThreadGroup() as group:
            future = group.spawn(lambda: (mine.method(), mine.shared))
        del mine.shared
        assert not hasattr(mine, "missing")
        return future.result()

    # A slot belongs to the object, so all threads share it, as with threading.local.
    assert ("method", 1) == virtual(root)


def test_getattr_of_a_subclass_is_asked_for_what_is_missing(virtual):
    class Mine(local):
        def __getattr__(self, name):
            return f"made {name}"

    def root():
        mine = Mine()
        mine.there = 1
        return mine.there, mine.missing

    assert (1, "made missing") == virtual(root)


def test_methods_can_be_told_by_super(virtual):
    class Mine(local):
        def __setattr__(self, name, value):
            super().__setattr__(name, value + 1)

        def __getattribute__(self, name):
            return super().__getattribute__(name)

    def root():
        mine = Mine()
        mine.value = 1
        return mine.value

    assert 2 == virtual(root)


# --- __init__


def test_init_runs_again_in_each_thread_with_the_same_arguments(virtual):
    calls = []

    class Mine(local):
        def __init__(self, a, /, *, b):
            calls.append((a, b))
            self.pair = [a, b]

    def root():
        mine = Mine(1, b=2)
        mine.pair.append("root")
        with ThreadGroup() as group:
            for _ in range(2):
                future = group.spawn(lambda: mine.pair)
        assert [1, 2] == future.result()
        assert [1, 2, "root"] == mine.pair

    virtual(root)
    assert [(1, 2)] * 3 == calls


def test_init_runs_in_a_thread_that_only_writes(virtual):
    class Mine(local):
        def __init__(self):
            self.value = "initial"

    def root():
        mine = Mine()

        def child():
            mine.other = 1
            return mine.value

        with ThreadGroup() as group:
            return group.spawn(child).result()

    assert "initial" == virtual(root)


def test_a_failed_init_is_tried_again(virtual):
    class Mine(local):
        fails = False

        def __init__(self):
            if type(self).fails:
                raise ZeroDivisionError
            self.value = 1

    def root():
        mine = Mine()

        def child():
            Mine.fails = True
            with pytest.raises(ZeroDivisionError):
                _ = mine.value
            Mine.fails = False
            return mine.value

        with ThreadGroup() as group:
            return group.spawn(child).result()

    assert 1 == virtual(root)


def test_arguments_without_an_init_are_refused():
    with pytest.raises(TypeError, match="Initialization arguments are not supported"):
        local(1)
    with pytest.raises(TypeError, match="Initialization arguments are not supported"):
        local(a=1)


# --- how long the data live


def test_data_end_with_their_thread_though_somebody_keeps_its_future(virtual):
    def root():
        mine = local()

        def child():
            mine.thing = Thing()
            return weakref.ref(mine.thing)

        with ThreadGroup() as group:
            future = group.spawn(child)
        thread = future.thread
        gone = future.result()() is None
        return gone, thread.is_alive()

    assert (True, False) == virtual(root)


def test_data_end_with_the_local_though_their_threads_go_on(virtual):
    def root():
        mine, things = local(), []

        def child():
            mine.thing = Thing()
            things.append(weakref.ref(mine.thing))
            sleep(1)

        mine.thing = Thing()
        things.append(weakref.ref(mine.thing))
        with ThreadGroup() as group:
            group.spawn(child)
            assert None not in [thing() for thing in things]
            # The child's closure is the other user.
            mine = None
            return [thing() for thing in things]

    assert [None, None] == virtual(root)


def test_data_end_with_their_os_thread():
    mine, things = local(), []

    def work():
        mine.thing = Thing()
        things.append(weakref.ref(mine.thing))

    os_thread = threading.Thread(target=work)
    os_thread.start()
    os_thread.join(10)
    assert things[0]() is None


def test_data_that_refer_back_to_the_local_are_collected(virtual):
    def root():
        mine = local()
        mine.me = mine
        gone = weakref.ref(mine)
        del mine
        gc.collect()
        return gone()

    assert virtual(root) is None


def test_a_cancelled_thread_leaves_no_data(virtual):
    def root():
        mine, things = local(), []

        def child():
            mine.thing = Thing()
            things.append(weakref.ref(mine.thing))
            sleep(60)

        with ThreadGroup() as group:
            group.spawn(child).cancel()
        return things[0]()

    assert virtual(root) is None


def test_finalizers_of_data_may_use_the_local_and_wait(virtual):
    log = []

    class Closing:
        def __init__(self, mine):
            self.mine = mine

        def __del__(self):
            sleep(1)
            self.mine.closed = True
            log.append(vthreads.current_thread().name)

    def root():
        mine = local()

        def child():
            mine.closing = Closing(mine)

        with ThreadGroup() as group:
            group.spawn(child).thread.name = "child"

    virtual(root)
    assert ["child"] == log


def test_thousands_of_threads_leave_nothing(virtual):
    def root():
        mine, made = local(), []

        class Value:
            pass

        def use():
            mine.value = Value()
            made.append(weakref.ref(mine.value))

        with ThreadGroup() as group:
            for _ in range(2000):
                group.spawn(use)
        return [value for value in made if value() is not None]

    assert [] == virtual(root)


@pytest.mark.parametrize("name", ["_data", "data", "_dict", "__dict"])
def test_no_name_is_taken(virtual, name):
    class Mine(local):
        pass

    def root():
        mine = Mine()
        setattr(mine, name, 1)
        return getattr(mine, name), vars(mine)

    assert (1, {name: 1}) == virtual(root)


def test_a_done_callback_sees_the_data_of_the_thread_that_ends(virtual):
    data, seen = local(), []

    def member():
        data.value = 1
        sleep(1)

    def root():
        with ThreadGroup() as group:
            group.spawn(member).add_done_callback(lambda _: seen.append(data.value))

    virtual(root)
    assert [1] == seen
