"""Every blocking operation with every cause that can end it early.

For each pair: the call ends at once, it has done nothing, it leaves nothing behind (descriptor, thread, timer, permit),
and the caller gets the cause. An operation is a generator: it yields the call that blocks, and then asserts that the
object of the call is in the same state as before.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator

import pytest

import vthreads
from vthreads import ThreadGroup
from vthreads._core.deadlock import threads_below
from vthreads.testing import VirtualClock

Call = Callable[[], object]
Operation = Callable[[], Iterator[Call]]


class Operations(dict[str, Operation]):
    """Operations by name."""

    def add(self, operation: Operation) -> Operation:
        self[operation.__name__] = operation
        return operation


class SiblingError(Exception):
    pass


def fail(error):
    raise error


def spawn_parked(group, call):
    blocked = group.spawn(call)
    assert "parked" == blocked.thread.state.value
    return blocked


# --- causes: each makes a call block in a virtual thread, which `spawn` starts, and ends it


def sibling_failure(call, spawn):
    error = SiblingError()
    with pytest.raises(ExceptionGroup) as caught:
        with ThreadGroup() as group:
            blocked = spawn(group, call)
            group.spawn(fail, error)
    assert (error,) == caught.value.exceptions
    assert blocked.cancelled()


def deadline(call, spawn):
    start = vthreads.now()
    with pytest.raises(TimeoutError):
        with vthreads.fail_after(1), ThreadGroup() as group:
            spawn(group, call)
    return start + 1


def future_cancel(call, spawn):
    with ThreadGroup() as group:
        blocked = spawn(group, call)
        assert blocked.cancel()
    assert blocked.cancelled()


def interrupt(call, spawn):
    error = vthreads.Interrupted()
    with ThreadGroup(on_failure="continue") as group:
        blocked = spawn(group, call)
        assert blocked.thread.interrupt(error)
        raised = blocked.exception()
    # A group that is interrupted while it waits for its members raises that in an exception group.
    assert error in getattr(raised, "exceptions", (raised,))


def ctrl_c(call, spawn):
    with pytest.raises(KeyboardInterrupt):
        with ThreadGroup() as group:
            blocked = spawn(group, call)
            group.spawn(signal.raise_signal, signal.SIGINT)
    assert blocked.cancelled()


CAUSES = [sibling_failure, deadline, future_cancel, interrupt, ctrl_c]
# Causes that do not let the blocked call run before they end it.
AT_ONCE = [cause for cause in CAUSES if cause is not deadline]


# --- the check


def with_every_cause(names, causes=CAUSES):
    """Run a test for each of the named operations with each cause: it takes `name` and `cause`."""

    def parametrised(test):
        test = pytest.mark.parametrize("name", names)(test)
        test = pytest.mark.parametrize("cause", causes, ids=lambda cause: cause.__name__)(test)
        # From 3.12 on, if there are idle OS threads of the offload pool.
        return pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")(test)

    return parametrised


def open_descriptors():
    return len(os.listdir("/proc/self/fd"))


def nothing_happened(operation, cause, spawn=spawn_parked):
    def root():
        scheduler = vthreads.current_thread()._scheduler
        before, start = open_descriptors(), vthreads.now()
        steps = operation()
        call = next(steps)
        prepared = open_descriptors()
        end = cause(call, spawn) or start
        # The call has closed each descriptor that it opened; the handshake has also closed the socket it was given.
        assert open_descriptors() <= prepared
        # At once: the time for cleanup has not passed either.
        assert end == vthreads.now()
        assert next(steps, None) is None
        assert open_descriptors() == before
        assert 0 == scheduler.descriptors.waiting
        assert 0 == len(scheduler.timers)
        assert [scheduler.root] == list(threads_below(scheduler))

    vthreads.run(root, clock=VirtualClock())
