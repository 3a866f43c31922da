"""Every kind of wait with every cause, if the thread that waits is on another carrier than the cause.

The object of the call is made and used again on the carrier of the root.
"""

import signal

import pytest

import vthreads
from tests.matrix import test_descriptors as descriptors
from tests.matrix import test_own_waits as own_waits
from tests.matrix import test_processes as processes
from tests.matrix import test_readiness as readiness
from tests.matrix import test_sockets as sockets
from tests.matrix import test_standard_waits as standard_waits
from tests.matrix.endings import SiblingError, fail, open_descriptors
from vthreads import ThreadGroup
from vthreads._core.deadlock import threads_of_run
from vthreads._core.placement import schedulers_beside
from vthreads.testing import wait_all_parked

# One of each kind of wait outside of the package; all of its own.
OPERATIONS = own_waits.OPERATIONS | {
    name: module.OPERATIONS[name]
    for module, names in {
        sockets: ("socket.recv", "socket.recv with a timeout", "socket.sendall", "socket.accept", "tcp_connect"),
        descriptors: ("os.read of a pipe", "os.write to a pipe"),
        readiness: ("select_select", "select_epoll"),
        processes: ("subprocess_run",),
        standard_waits: ("threading.Lock", "threading_condition", "thread_join", "concurrent_future", "asyncio_run"),
    }.items()
    for name in names
}


def spawn_elsewhere(group, call):
    """Spawn a member of `group` on the other carrier, where it parks in `call`."""
    here = vthreads.current_thread()._scheduler
    (there,) = (scheduler for scheduler in schedulers_beside(here) if scheduler is not here)
    # A child runs on the carrier of its spawner.
    blocked = there.background.spawn(group.spawn, call).result()
    wait_all_parked()
    assert there is blocked.thread._scheduler
    assert "parked" == blocked.thread.state.value
    return blocked


# --- causes, as in `endings`, on the carrier of the root


def sibling_failure(call):
    error = SiblingError()
    with pytest.raises(ExceptionGroup) as caught, ThreadGroup() as group:
        blocked = spawn_elsewhere(group, call)
        group.spawn(fail, error)
    assert (error,) == caught.value.exceptions
    assert blocked.cancelled()


def deadline(call):
    with vthreads.CancelScope() as scope, ThreadGroup() as group:
        blocked = spawn_elsewhere(group, call)
        scope.deadline = vthreads.now()
    assert scope.cancelled_caught
    assert blocked.cancelled()


def future_cancel(call):
    with ThreadGroup() as group:
        blocked = spawn_elsewhere(group, call)
        assert blocked.cancel()
    assert blocked.cancelled()


def interrupt(call):
    error = vthreads.Interrupted()
    with ThreadGroup(on_failure="continue") as group:
        blocked = spawn_elsewhere(group, call)
        assert blocked.thread.interrupt(error)
        raised = blocked.exception()
    assert error in getattr(raised, "exceptions", (raised,))


def ctrl_c(call):
    with pytest.raises(KeyboardInterrupt), ThreadGroup() as group:
        blocked = spawn_elsewhere(group, call)
        signal.raise_signal(signal.SIGINT)
    assert blocked.cancelled()


CAUSES = [sibling_failure, deadline, future_cancel, interrupt, ctrl_c]


@pytest.mark.parametrize("name", OPERATIONS)
@pytest.mark.parametrize("cause", CAUSES, ids=lambda cause: cause.__name__)
@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
def test_nothing_happened(name, cause):
    def root():
        schedulers = schedulers_beside(vthreads.current_thread()._scheduler)
        before = open_descriptors()
        steps = OPERATIONS[name]()
        call = next(steps)
        prepared = open_descriptors()
        cause(call)
        assert open_descriptors() <= prepared
        assert next(steps, None) is None
        assert open_descriptors() == before
        for scheduler in schedulers:
            assert 0 == scheduler.descriptors.waiting
            assert 0 == len(scheduler.timers)
        assert {scheduler.root for scheduler in schedulers} == set(threads_of_run(schedulers[0]))

    vthreads.run(root, carriers=2)
