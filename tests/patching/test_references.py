"""Calls that a program looked up before the patch, wherever it keeps them."""

from __future__ import annotations

import _thread
import builtins
import functools
import io
import time

import pytest

import vthreads

pytestmark = pytest.mark.unpatched


FIRST_USES = {
    "spawn": "look(vthreads.spawn(time.sleep, 0.05))",
    "spawn, of what is given to it": "look(vthreads.spawn(call, time.sleep, 0.05))",
    "spawn, of what is given to it by name": "look(vthreads.spawn(call, seconds=0.05, fn=time.sleep))",
    "run": "vthreads.run(lambda fn: look(vthreads.spawn(call, fn, 0.05)), time.sleep)",
    "run, later": "vthreads.run(lambda: look(vthreads.spawn(kept[0], 0.05)))",
    "a group": "with vthreads.ThreadGroup() as group: look(group.spawn(kept[0], 0.05))",
}


ONE_USE, *MORE_USES = FIRST_USES


@pytest.mark.parametrize("use", [ONE_USE, *(pytest.param(use, marks=pytest.mark.thorough) for use in MORE_USES)])
def test_a_call_that_was_looked_up_before_parks(use, run_script):
    start = """
import time, vthreads
kept = (time.sleep,)
def call(fn, seconds):
    fn(seconds)
def look(future):
    print(future.done())
"""
    assert "False\n" == run_script(start + FIRST_USES[use])


def test_builtins_are_mended_for_all_modules(before):
    original = (builtins.open, builtins.input)
    vthreads.patch()
    assert open is io.open
    assert original[0] is not open
    assert original[1] is not input
    vthreads.unpatch()
    assert original == (open, input)


def test_two_originals_with_one_successor_are_put_back_each_in_its_place(before):
    names = "start_new_thread", "start_new", "allocate_lock", "allocate"
    originals = tuple(getattr(_thread, name) for name in names)
    vthreads.patch(threads=True)
    vthreads.unpatch()
    assert originals == tuple(getattr(_thread, name) for name in names)
    assert all(one is other for one, other in zip(originals, (getattr(_thread, name) for name in names), strict=True))


def test_a_call_that_is_kept_in_objects_is_mended_and_put_back(before):
    original = (time.sleep,)

    class Keeper:
        pass

    keeper, listed = Keeper(), [time.sleep]
    keeper.sleep, keeper.by_name, keeper.partial = time.sleep, {"sleep": time.sleep}, functools.partial(time.sleep, 0)
    vthreads.patch()
    assert [time.sleep] * 4 == [keeper.sleep, keeper.by_name["sleep"], keeper.partial.func, *listed]
    vthreads.unpatch()
    assert [original[0]] * 4 == [keeper.sleep, keeper.by_name["sleep"], keeper.partial.func, *listed]


@pytest.mark.parametrize("call", ["reader.recv, 1", "functools.partial(reader.recv, 1)", "listener.accept"])
def test_a_bound_method_that_is_given_to_the_first_spawn_parks(run_script, call):
    script = f"""
        import functools, socket
        import vthreads

        reader, writer = socket.socketpair()
        listener = socket.create_server(("127.0.0.1", 0))
        future = vthreads.spawn({call})
        print(future.done())
        writer.send(b"x")
        client = socket.create_connection(listener.getsockname())
        result = future.result()
        print(bool(result))
        accepted = [result[0]] if isinstance(result, tuple) else []
        for each in [reader, writer, listener, client, *accepted]:
            each.close()
    """
    assert "False\nTrue\n" == run_script(script)


def test_a_partial_of_an_original_that_a_tuple_keeps_parks(run_script):
    script = """
        import functools, time
        kept = (time.sleep,)
        import vthreads

        def main():
            nap = functools.partial(kept[0], 0.01)
            started = []
            vthreads.gather(nap, lambda: started.append(1) or nap())
            vthreads.race(nap, lambda: started.append(2) or nap())
            return started

        print(vthreads.run(main, clock=vthreads.testing.VirtualClock()))
    """
    assert "[1, 2]\n" == run_script(script)


def test_the_patch_runs_no_code_of_a_partial(run_script):
    script = """
        import functools, time

        class Lazy(functools.partial):
            def __getattribute__(self, name):
                raise RuntimeError(name)

        lazy = Lazy(time.sleep, 0)
        import vthreads

        vthreads.patch()
        print(functools.partial.func.__get__(lazy) is time.sleep, vthreads.spawn(lazy).result())
    """
    assert "True None\n" == run_script(script)
