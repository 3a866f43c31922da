"""The background group, of which `vthreads.spawn` makes members."""

import sys
import threading

import pytest

import vthreads
from tests.core.outcomes import failing
from vthreads import ThreadGroup, move_on_after, sleep
from vthreads.errors import Cancelled, Interrupted

pytestmark = pytest.mark.unpatched


def test_a_background_failure_is_reported_once_with_its_spawn_site(virtual, monkeypatch):
    reported = []
    monkeypatch.setattr(threading, "excepthook", reported.append)

    def root():
        future = ThreadGroup.current.spawn(failing, KeyError("broken"), 1)
        other = ThreadGroup.current.spawn(sleep, 5)
        sleep(2)
        at_once = len(reported)
        return at_once, future, other

    at_once, future, other = virtual(root)
    assert 1 == at_once == len(reported)
    assert future.thread is reported[0].thread
    assert future.exception(0) is reported[0].exc_value
    assert "group 'background', spawned at" in future.exception(0).__notes__[0]
    assert not other.cancelled()


def test_a_hook_that_fails_is_reported_itself(virtual, monkeypatch):
    reported = []

    def bad_hook(args):
        raise IndexError("hook")

    monkeypatch.setattr(threading, "excepthook", bad_hook)
    monkeypatch.setattr(sys, "excepthook", lambda *details: reported.append(details[0]))
    virtual(lambda: ThreadGroup.current.spawn(failing, KeyError()))
    assert [IndexError, KeyError] == reported


def test_the_background_group_has_no_block(virtual):
    def root():
        with pytest.raises(TypeError, match="context manager"), ThreadGroup.current:
            pass

    virtual(root)


def test_background_threads_are_not_cancelled_with_the_scope_that_spawned_them(virtual):
    def root():
        with move_on_after(1):
            background = vthreads.current_thread()._scheduler.background
            future = background.spawn(sleep, 5)
            sleep(60)
        future.result()
        return future.cancelled(), vthreads.now()

    assert (False, 5.0) == virtual(root)


def test_interrupted_is_an_ordinary_exception():
    assert issubclass(Interrupted, Exception)
    assert not issubclass(Cancelled, Exception)


def test_a_generator_that_is_closed_inside_the_block_cancels_the_members_and_closes(virtual):
    ended = []

    def member():
        try:
            vthreads.sleep(60)
        finally:
            ended.append(vthreads.now())

    def numbers():
        with ThreadGroup() as group:
            group.spawn(member)
            yield 1

    def root():
        generator = numbers()
        next(generator)
        generator.close()
        with pytest.raises(StopIteration):
            next(generator)

    virtual(root)
    assert [0.0] == ended
