"""Calls on OS threads: what comes back, and what a cancellation does to a call that cannot be stopped."""

from __future__ import annotations

import contextvars
import logging
import sys
import threading
import time
import traceback

import pytest

import vthreads
from vthreads import ThreadGroup
from vthreads._core.carrier import Carrier
from vthreads._core.os_thread_kinds import own_os_threads
from vthreads._core.semaphore import Semaphore
from vthreads._os_threads.calls import Limiter, calls_under_way
from vthreads._os_threads.held_up import leave_calls_behind
from vthreads._os_threads.offload import offload, offload_abandonable
from vthreads.errors import Cancelled, DeadlockError, Interrupted
from vthreads.testing import VirtualClock

pytestmark = pytest.mark.unpatched


def run(root, patience=0.01):
    """Run `root` in virtual time. Time jumps over a call that does not return within `patience` real seconds."""
    return vthreads.run(root, clock=VirtualClock(outside_patience=patience), patch=False)


class Gate:
    """A call that blocks its OS thread until it is let through."""

    def __init__(self, answer=None):
        self.begun = threading.Event()
        self.open = threading.Event()
        self.calls = 0
        self.answer = answer

    def __call__(self):
        self.calls += 1
        self.begun.set()
        assert self.open.wait(20)
        if isinstance(self.answer, BaseException):
            raise self.answer
        return self.answer

    def spawn(self, group, *args, **kwargs):
        """Have it called in a virtual thread; return once it blocks."""
        future = group.spawn(offload, self, *args, **kwargs)
        self.wait_until_begun()
        return future

    def wait_until_begun(self):
        # Blocks the carrier: meanwhile virtual time stands still.
        assert self.begun.wait(20)


def wait_for_real(condition):
    """Wait for OS threads outside of any runtime."""
    deadline = time.monotonic() + 100
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.001)


# --- the call


def test_the_result_comes_back():
    def root():
        return offload(divmod, 7, 2), offload(dict, a=1)

    assert ((3, 1), {"a": 1}) == run(root)


def test_the_call_runs_on_a_daemon_os_thread_with_a_name():
    def root():
        return offload(threading.current_thread)

    os_thread = run(root)
    assert os_thread is not threading.current_thread()
    assert os_thread.name.startswith("vthreads-offload-")
    assert os_thread.daemon


def test_only_the_calling_thread_waits():
    gate = Gate("late")

    def root():
        with ThreadGroup() as group:
            future = gate.spawn(group)
            vthreads.sleep(3600)
            gate.open.set()
        return future.result(), vthreads.now()

    assert ("late", 3600) == run(root)


def test_calls_run_at_the_same_time():
    barrier = threading.Barrier(5)

    def root():
        with ThreadGroup() as group:
            return [group.spawn(offload, barrier.wait, 20) for _ in range(5)]

    assert [0, 1, 2, 3, 4] == sorted(future.result() for future in run(root))


def test_an_idle_os_thread_is_used_again():
    def root():
        return {offload(threading.get_ident) for _ in range(50)}

    assert 1 == len(run(root))


def test_an_os_thread_without_work_ends(monkeypatch):
    monkeypatch.setattr(sys.modules["vthreads._os_threads.pool"], "IDLE_SECONDS", 0.01)
    os_thread = run(lambda: offload(threading.current_thread))
    wait_for_real(lambda: os_thread not in threading.enumerate())
    # Its number may be given to an OS thread of the user's.
    wait_for_real(lambda: os_thread.ident not in own_os_threads)


def test_an_exception_comes_back_with_its_traceback():
    def fail():
        raise KeyError("why")

    def root():
        offload(fail)

    with pytest.raises(KeyError, match="why") as caught:
        run(root)
    names = [frame.name for frame in traceback.extract_tb(caught.value.__traceback__)]
    assert "fail" == names[-1]
    assert "make" not in names


def test_a_base_exception_comes_back():
    def root():
        offload(sys.exit, 3)

    with pytest.raises(SystemExit):
        run(root)


def test_a_cancelled_of_the_call_is_no_cancellation_of_the_caller():
    def fail():
        raise Cancelled("of another runtime")

    def root():
        with vthreads.CancelScope() as scope:
            with pytest.raises(vthreads._core.future.CancelledError, match="of another runtime"):
                offload(fail)
        return scope.cancelled_caught

    assert run(root) is False


def test_the_call_sees_the_contextvars_and_does_not_change_them():
    variable = contextvars.ContextVar("variable")

    def change():
        seen = variable.get()
        variable.set("changed")
        return seen

    def root():
        variable.set("mine")
        return offload(change), offload(change), variable.get()

    assert ("mine", "mine", "mine") == run(root)


def test_another_on_cancel_is_refused():
    with pytest.raises(ValueError, match="'forget'"):
        offload(int, on_cancel="forget")


def test_a_call_may_run_virtual_threads_of_its_own():
    def call():
        return vthreads.run(vthreads.sleep, 0, patch=False)

    def root():
        offload(call)
        return offload(threading.current_thread).name

    assert run(root).startswith("vthreads-offload-")


# --- cancellation


@pytest.mark.parametrize("options", [{}, {"on_cancel": "abandon"}, {"cancel": int}])
def test_cancelled_before_nothing_is_called(options):
    gate = Gate()

    def root():
        with vthreads.CancelScope() as scope:
            scope.cancel()
            offload(gate, **options)
        return scope.cancelled_caught

    assert run(root)
    assert 0 == gate.calls


def test_wait_returns_the_result_and_is_cancelled_at_the_next_checkpoint():
    gate = Gate("result")
    seen = []

    def child():
        seen.append(offload(gate))
        vthreads.sleep(0)
        seen.append("not reached")

    def root():
        with ThreadGroup() as group:
            child_future = group.spawn(child)
            gate.wait_until_begun()
            group.cancel()
            vthreads_of_group = len(group)
            gate.open.set()
        return child_future.cancelled(), vthreads_of_group

    assert (True, 1) == run(root)
    assert ["result"] == seen


def test_wait_raises_the_exception_of_the_call():
    gate = Gate(KeyError("its own"))

    def root():
        with ThreadGroup(on_failure="continue") as group:
            child = gate.spawn(group)
            child.cancel()
            gate.open.set()
            return repr(child.exception())

    assert "KeyError('its own')" == run(root)


def test_the_cleanup_after_a_call_waited_for_has_its_full_grace():
    gate = Gate()

    def child():
        offload(gate)
        try:
            vthreads.sleep(3600)
        finally:
            cancelled_at = vthreads.now()
            try:
                vthreads.sleep(3600)
            finally:
                spans.append(vthreads.now() - cancelled_at)

    def root():
        with ThreadGroup(cleanup_grace=5) as group:
            group.spawn(child)
            gate.wait_until_begun()
            group.cancel()
            vthreads.current_thread()._scheduler.timers.add(3, Opener())

    class Opener:
        def _expire(self):
            gate.open.set()

    spans = []
    run(root)
    assert [5] == spans


def test_a_call_waited_for_beyond_the_grace_is_reported_once_with_what_it_holds_up(capsys):
    gate = Gate()
    opened_at = []

    def fail():
        raise KeyError("held up")

    def opener():
        with vthreads.shield(None):
            vthreads.sleep(60)
            opened_at.append(capsys.readouterr().err)
            gate.open.set()

    def root():
        with ThreadGroup(cleanup_grace=2) as group:
            group.spawn(opener)
            gate.spawn(group)
            group.spawn(fail)

    with pytest.raises(ExceptionGroup):
        run(root)
    (report,) = opened_at
    assert 1 == report.count("still waits for the offloaded call")
    assert 1 == report.count("Traceback")
    assert ", in fail" in report
    assert "call of a Gate;" in report
    assert "" == capsys.readouterr().err


def test_a_call_that_ends_within_the_grace_is_not_reported(capsys):
    gate = Gate()

    def root():
        with ThreadGroup(cleanup_grace=2) as group:
            gate.spawn(group)
            group.cancel()
            with vthreads.shield(None):
                vthreads.sleep(0)
            vthreads.current_thread()._scheduler.clock.advance(1.5)
            gate.open.set()
        return vthreads.now()

    assert 1.5 == run(root, patience=10)
    assert "" == capsys.readouterr().err


def test_a_call_made_in_cleanup_has_what_is_left_of_the_grace(capsys):
    gate = Gate("result")

    def child():
        try:
            vthreads.sleep(3600)
        finally:
            vthreads.sleep(1)
            seen.append((offload(gate), vthreads.now()))

    def opener():
        with vthreads.shield(None):
            vthreads.sleep(10)
            seen.append(capsys.readouterr().err.count("still waits"))
            gate.open.set()

    def root():
        with ThreadGroup(cleanup_grace=2) as group:
            group.spawn(child)
            group.spawn(opener)
            group.cancel()

    seen = []
    run(root)
    assert [1, ("result", 10)] == seen


@pytest.mark.parametrize("error", [Interrupted(), KeyboardInterrupt()], ids=repr)
@pytest.mark.parametrize("cancelled", [False, True], ids=["", "cancelled"])
def test_an_interrupt_turns_the_wait_into_an_abandon(error, cancelled):
    gate = Gate()

    def child():
        try:
            offload(gate)
        except BaseException as raised:
            return raised, [call.abandoned for call in calls_under_way() if call.function is gate]

    def root():
        with ThreadGroup() as group:
            future = group.spawn(child)
            gate.wait_until_begun()
            if cancelled:
                future.thread.cancel()
                vthreads.sleep(60)
            future.thread.interrupt(error)
            result = future.result()
        gate.open.set()
        return result

    assert (error, [True]) == run(root)


def test_left_behind_on_ctrl_c_the_thread_is_cancelled():
    gate = Gate()

    def child():
        try:
            offload(gate)
        except Cancelled:
            seen.append(vthreads.now())
            raise

    def root():
        with ThreadGroup(cleanup_grace=2) as group:
            future = group.spawn(child)
            gate.wait_until_begun()
            future.cancel()
            vthreads.sleep(1)
            # Still in its grace: not yet.
            leave_calls_behind()
            vthreads.sleep(2)
            assert [] == seen
            leave_calls_behind()
            future.thread.join()
            gate.open.set()
        return future.cancelled()

    seen = []
    assert run(root)
    assert [3] == seen


def test_left_behind_even_in_its_grace():
    gate = Gate()

    def root():
        with ThreadGroup() as group:
            future = gate.spawn(group)
            future.cancel()
            vthreads.sleep(0)
            leave_calls_behind(even_in_grace=True)
            future.thread.join()
            gate.open.set()
        return future.cancelled(), vthreads.now()

    assert (True, 0) == run(root)


def test_abandon_is_cancelled_at_once():
    gate = Gate()

    def root():
        with vthreads.move_on_after(1) as scope:
            offload(gate, on_cancel="abandon")
        under_way = [(call.kind, call.since, call.abandoned) for call in calls_under_way()]
        gate.open.set()
        return scope.cancelled_caught, vthreads.now(), under_way

    assert (True, 1, [("default", 0, True)]) == run(root)


def test_the_exception_of_an_abandoned_call_is_logged(caplog):
    gate = Gate(KeyError("nobody asked"))
    caplog.set_level(logging.INFO, "vthreads")

    def root():
        with vthreads.move_on_after(1):
            offload(gate, on_cancel="abandon")
        gate.open.set()

    run(root)
    wait_for_real(lambda: calls_under_way() == [])
    assert ["KeyError"] == [record.exc_info[0].__name__ for record in caplog.records]


def test_a_late_result_is_disposed_of():
    limiter, gate, disposed = Limiter("test", 1), Gate("late"), []

    def root():
        with vthreads.move_on_after(1):
            offload_abandonable(limiter, gate, disposed.append)
        assert [] == disposed
        gate.open.set()

    run(root)
    wait_for_real(lambda: calls_under_way() == [])
    assert ["late"] == disposed


def test_at_the_moment_of_the_result_it_is_either_returned_or_disposed_of():
    def root(delay):
        limiter, disposed, returned = Limiter("test", 1), [], []
        gate = Gate("result")

        def child():
            returned.append(offload_abandonable(limiter, gate, disposed.append))

        with ThreadGroup() as group:
            group.spawn(child)
            gate.wait_until_begun()
            gate.open.set()
            # The result arrives somewhere around here, without a park in between.
            for _ in range(delay):
                pass
            group.cancel()
        wait_for_real(lambda: calls_under_way() == [])
        return returned + disposed

    for delay in (0, 100, 1_000, 3_000, 10_000, 30_000, 100_000):
        assert ["result"] == run(lambda: root(delay))


def test_a_result_that_nobody_was_told_of_before_the_cancellation_is_disposed_of():
    limiter, disposed = Limiter("test", 1), []
    parked, releasing, go_on = threading.Event(), threading.Event(), threading.Event()

    class SlowSemaphore(Semaphore):
        def release(self, n=1):
            releasing.set()
            assert go_on.wait(20)
            super().release(n)

    def root():
        with ThreadGroup() as group:
            group.spawn(offload_abandonable, limiter, lambda: parked.wait(20) and "result", disposed.append)
            parked.set()
            assert releasing.wait(20)
            group.cancel()
        go_on.set()

    limiter.permits = SlowSemaphore(1)
    run(root)
    wait_for_real(lambda: calls_under_way() == [])
    assert ["result"] == disposed


def test_cancel_is_called_once_on_another_os_thread_and_cancelled_replaces_the_exception():
    gate = Gate(KeyError("it was cancelled"))
    idents = []

    def cancel():
        idents.append(threading.get_ident())
        gate.open.set()

    def child():
        try:
            offload(gate, cancel=cancel)
        except Cancelled as cancelled:
            seen.append(cancelled.__cause__)
            raise

    def root():
        with ThreadGroup() as group:
            future = group.spawn(child)
            gate.wait_until_begun()
            group.cancel("the first")
            group.cancel("the second")
        return future.cancelled(), threading.get_ident()

    seen = []
    cancelled, ident = run(root)
    assert cancelled
    assert [gate.answer] == seen
    assert 1 == len(idents)
    assert ident not in idents


def test_cancel_leaves_a_result_that_came_nevertheless():
    gate = Gate("result")

    def child():
        seen.append(offload(gate, cancel=gate.open.set))
        vthreads.sleep(0)
        seen.append("not reached")

    def root():
        with ThreadGroup() as group:
            group.spawn(child)
            gate.wait_until_begun()
            group.cancel()

    seen = []
    run(root)
    assert ["result"] == seen


def test_cancel_is_called_when_the_call_is_abandoned():
    gate = Gate()

    def root():
        with vthreads.move_on_after(1):
            offload(gate, on_cancel="abandon", cancel=gate.open.set)
        return vthreads.now()

    assert 1 == run(root)
    wait_for_real(lambda: calls_under_way() == [])


def test_cancel_needs_no_token():
    gates = [Gate() for _ in range(64)]

    def root():
        with ThreadGroup() as group:
            for gate in gates:
                group.spawn(offload, gate, cancel=gate.open.set)
            vthreads.sleep(1)
            group.cancel()

    run(root)
    assert all(gate.open.is_set() for gate in gates)


def test_a_failing_cancel_is_logged_and_the_call_waited_for(caplog):
    gate = Gate("result")

    def cancel():
        gate.open.set()
        raise KeyError("cannot")

    def root():
        with vthreads.move_on_after(1):
            return offload(gate, cancel=cancel)

    assert "result" == run(root)
    wait_for_real(lambda: calls_under_way() == [])
    assert ["KeyError"] == [record.exc_info[0].__name__ for record in caplog.records]


# --- limits


def test_without_a_token_calls_wait_in_order():
    limiter, gate, order = Limiter("test", 1), Gate(), []

    def root():
        with ThreadGroup() as group:
            group.spawn(offload_abandonable, limiter, gate, None)
            for number in range(5):
                group.spawn(offload_abandonable, limiter, order.append, None, number)
            vthreads.sleep(1)
            assert [] == order
            gate.open.set()

    run(root)
    assert [0, 1, 2, 3, 4] == order


def test_cancelled_without_a_token_nothing_is_called():
    limiter, gate, second = Limiter("test", 1), Gate(), Gate()

    def root():
        with ThreadGroup() as group:
            group.spawn(offload_abandonable, limiter, gate, None)
            with vthreads.move_on_after(1) as scope:
                offload_abandonable(limiter, second, None)
            gate.open.set()
        return scope.cancelled_caught

    assert run(root)
    assert 0 == second.calls
    assert "free=1 of 1 waiting=0" in repr(limiter)


def test_a_call_waited_for_is_cancelled_at_once_without_a_token():
    gates, late = [Gate() for _ in range(64)], Gate()

    def root():
        with ThreadGroup() as group:
            for gate in gates:
                group.spawn(offload, gate)
            with vthreads.move_on_after(1):
                offload(late)
            cancelled_at = vthreads.now()
            for gate in gates:
                gate.open.set()
        return cancelled_at

    assert 1 == run(root)
    assert 0 == late.calls


def test_an_abandoned_call_keeps_its_token_until_it_ends():
    limiter, gate = Limiter("test", 1), Gate()

    def root():
        with vthreads.move_on_after(1):
            offload_abandonable(limiter, gate, None)
        with vthreads.move_on_after(1) as scope:
            offload_abandonable(limiter, int, None)
        assert scope.cancelled_caught
        gate.open.set()
        return offload_abandonable(limiter, int, None)

    assert 0 == run(root)


def test_a_limiter_without_tokens_is_refused():
    with pytest.raises(ValueError, match="pass 1 permit or more"):
        Limiter("test", 0)


# --- deadlock


@pytest.mark.timeout(0)  # the handler by which a timeout is told could still unpark somebody
def test_an_abandoned_call_may_still_unpark_somebody_and_afterwards_that_is_a_deadlock(monkeypatch):
    event, never, begun = vthreads.Event(), vthreads.Event(), vthreads.Event()
    searched, is_deadlocked = threading.Event(), Carrier._is_deadlocked

    def search(carrier):
        found = is_deadlocked(carrier)
        searched.set()
        return found

    def call():
        searched.clear()
        begun.set()
        # Go on after the carrier has searched for a deadlock, and has not found one.
        assert searched.wait(60)
        event.set()

    def abandon():
        begun.clear()
        with ThreadGroup() as group:
            group.spawn(offload, call, on_cancel="abandon")
            assert begun.wait(20)
            group.cancel()

    def root():
        abandon()
        event.wait()
        event.clear()
        abandon()
        never.wait()

    monkeypatch.setattr(Carrier, "_is_deadlocked", search)
    with pytest.raises(DeadlockError):
        vthreads.run(root, patch=False)
    # The second call had ended as well.
    assert event.is_set()
