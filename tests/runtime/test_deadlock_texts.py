"""What a deadlock says of a thread that waits in a call of the standard library."""

from __future__ import annotations

import queue
import threading

import pytest

import vthreads
from vthreads import DeadlockError, ThreadGroup
from vthreads.testing import VirtualClock


@pytest.mark.timeout(0)  # the signal handler of pytest-timeout counts as something that could unpark a thread
def test_a_deadlock_names_the_call_of_the_standard_library_and_its_object():
    waits = {
        "Event.wait() of <threading.Event": lambda: threading.Event().wait(),
        "Condition.wait() of <threading.Condition": lambda: wait_for_condition(threading.Condition()),
        "Semaphore.acquire() of <threading.Semaphore": lambda: threading.Semaphore(0).acquire(),
        "Queue.get() of <queue.Queue": lambda: queue.Queue().get(),
    }

    def wait_for_condition(condition):
        with condition:
            condition.wait()

    def root():
        with ThreadGroup() as group:
            futures = [group.spawn(wait) for wait in waits.values()]
            with pytest.raises(DeadlockError) as deadlock:
                futures[0].result()
            group.cancel()
        return str(deadlock.value)

    text = vthreads.run(root, clock=VirtualClock())
    assert [] == [wait for wait in waits if f" waits in {wait}" not in text], text
