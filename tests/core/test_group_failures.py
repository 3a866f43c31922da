"""What a group does when members fail: `errors` and `on_failure`."""

import gc
import sys
import threading
from weakref import ref

import pytest

import vthreads
from tests.core.outcomes import failing, failures_of, outcome
from vthreads import ThreadGroup, sleep

pytestmark = pytest.mark.unpatched


# --- errors="first"


def test_the_first_failure_itself_with_the_others_suppressed(virtual):
    first, second = KeyError("first"), IndexError("second")

    def root():
        def fails_in_cleanup():
            try:
                sleep(60)
            finally:
                raise second

        with ThreadGroup("g", errors="first") as g:
            g.spawn(fails_in_cleanup)
            g.spawn(failing, first, 1)

    with pytest.raises(KeyError) as caught:
        virtual(root)
    assert first is caught.value
    assert (second,) == caught.value.suppressed
    assert any("also failed" in note and "IndexError: second" in note for note in caught.value.__notes__)


def test_a_single_failure_has_nothing_suppressed(virtual):
    def root():
        with ThreadGroup(errors="first") as g:
            g.spawn(failing, KeyError())

    with pytest.raises(KeyError) as caught:
        virtual(root)
    assert () == caught.value.suppressed


def test_the_failure_of_the_body_may_be_the_first(virtual):
    def root():
        with ThreadGroup(errors="first"):
            raise KeyError("body")

    with pytest.raises(KeyError, match="body"):
        virtual(root)


def test_the_first_failure_keeps_what_it_came_from(virtual):
    def root():
        def child():
            sleep(1)
            try:
                raise KeyError
            except KeyError:
                raise IndexError  # noqa: B904 - the implicit context is what is tested

        with ThreadGroup(errors="first") as g:
            g.spawn(child)
            sleep(60)

    with pytest.raises(IndexError) as caught:
        virtual(root)
    assert isinstance(caught.value.__context__, KeyError)


# --- on_failure="continue"


def test_failures_are_independent(virtual):
    def root():
        with ThreadGroup(on_failure="continue") as g:
            future = g.spawn(sleep, 60)
            futures.append(future)
            g.spawn(failing, KeyError(), 1)
            g.spawn(failing, IndexError(), 2)
            raise ValueError("body")

    futures = []
    with pytest.raises(ExceptionGroup) as caught:
        virtual(root)
    assert ["IndexError", "KeyError", "ValueError"] == failures_of(caught)
    assert not futures[0].cancelled()


def test_failures_that_somebody_took_are_not_raised_again(virtual):
    def root():
        with ThreadGroup(on_failure="continue") as g:
            by_result, by_exception = g.spawn(failing, KeyError()), g.spawn(failing, KeyError())
            assert KeyError is outcome(by_result.result)
            by_exception.exception()
            g.spawn(failing, IndexError(), 1)

    with pytest.raises(ExceptionGroup) as caught:
        virtual(root)
    assert ["IndexError"] == failures_of(caught)


def test_a_failure_that_is_taken_before_it_happened_counts_as_taken(virtual):
    def root():
        with ThreadGroup(on_failure="continue") as g:
            future = g.spawn(failing, KeyError(), 1)
            g.spawn(lambda: outcome(future.result))
        return "ended"

    assert "ended" == virtual(root)


def test_a_failed_wait_for_a_failure_does_not_take_it(virtual):
    def root():
        with ThreadGroup(on_failure="continue") as g:
            future = g.spawn(failing, KeyError(), 5)
            assert TimeoutError is outcome(future.result, 1)

    with pytest.raises(ExceptionGroup) as caught:
        virtual(root)
    assert ["KeyError"] == failures_of(caught)


def test_after_a_failure_the_group_still_takes_threads(virtual):
    def root():
        with ThreadGroup(on_failure="continue") as g:
            g.spawn(failing, KeyError()).exception()
            return g.spawn(lambda: "value").result()

    assert "value" == virtual(root)


# --- on_failure="report"


@pytest.fixture
def reported(monkeypatch):
    """The arguments of `threading.excepthook`, in order."""
    details = []
    monkeypatch.setattr(threading, "excepthook", details.append)
    return details


def test_a_failure_is_reported_at_once_and_the_group_goes_on(virtual, reported):
    def root():
        with ThreadGroup(on_failure="report") as g:
            others = [g.spawn(lambda: sleep(60) or "slept")]
            failed = g.spawn(failing, KeyError("the key"), 1)
            sleep(2)
            assert 1 == len(reported)
            others.append(g.spawn(lambda: "spawned later"))
        return failed, [future.result() for future in others], vthreads.now()

    failed, results, ended = virtual(root)
    assert (["slept", "spawned later"], 60.0) == (results, ended)
    (details,) = reported
    assert (KeyError, failed.thread) == (details.exc_type, details.thread)
    assert details.exc_value is failed.exception()
    assert details.exc_traceback is details.exc_value.__traceback__
    assert "spawned at" in details.exc_value.__notes__[0]
    assert "test_group_failures.py" in details.exc_value.__notes__[0]


@pytest.mark.parametrize("delay", [0, 1])
@pytest.mark.parametrize("options", [{}, {"max_concurrency": 1}, {"errors": "first"}])
def test_each_failure_is_reported_once_also_if_code_fetched_it(virtual, reported, options, delay):
    def root():
        with ThreadGroup(on_failure="report", **options) as g:
            futures = [g.spawn(failing, IndexError(number), delay) for number in range(3)]
            assert [IndexError] * 3 == [outcome(future.result) for future in futures]

    virtual(root)
    assert [0, 1, 2] == [details.exc_value.args[0] for details in reported]


def test_a_reported_failure_is_not_kept(virtual, reported):
    class Payload:
        pass

    def member():
        payload = Payload()
        payloads.append(ref(payload))
        raise KeyError(payload)

    def root():
        with ThreadGroup(on_failure="report") as g:
            for _ in range(3):
                g.spawn(member)
            reported.clear()
            gc.collect()
            assert [None] * 3 == [payload() for payload in payloads]
            assert "failures=0" in repr(g)

    payloads = []
    virtual(root)


def test_cancelled_members_and_refused_spawns_are_not_reported(virtual, reported):
    def root():
        with ThreadGroup(on_failure="report") as g:
            g.spawn(sleep, 60).cancel()
            g.spawn(lambda: (sleep(1), g.spawn(sleep, 1)))
            g.close()
        with ThreadGroup(on_failure="report") as g:
            g.spawn(sleep, 60)
            g.cancel()

    virtual(root)
    assert [] == reported


@pytest.mark.parametrize("kind", [KeyboardInterrupt, SystemExit])
def test_an_exit_of_a_member_cancels_a_reporting_group(virtual, reported, kind):
    def root():
        with ThreadGroup(on_failure="report") as g:
            futures.append(g.spawn(sleep, 60))
            g.spawn(failing, KeyError())
            g.spawn(failing, kind(), 1)
            sleep(60)

    futures = []
    with pytest.raises(kind):
        virtual(root)
    assert futures[0].cancelled()
    assert [KeyError] == [details.exc_type for details in reported]


def test_the_body_of_a_reporting_group_raises_its_failure_after_all_members(virtual, reported):
    def root():
        with ThreadGroup(on_failure="report") as g:
            futures.append(g.spawn(lambda: sleep(60) or "slept"))
            g.spawn(failing, KeyError(), 1)
            raise ValueError("body")

    futures = []
    with pytest.raises(ExceptionGroup) as caught:
        virtual(root)
    assert ["ValueError"] == failures_of(caught)
    assert "slept" == futures[0].result()
    assert [KeyError] == [details.exc_type for details in reported]


def test_a_reporting_group_cancelled_from_outside_passes_the_cancellation_on(virtual, reported):
    def root():
        with vthreads.move_on_after(5) as scope, ThreadGroup(on_failure="report") as g:
            g.spawn(failing, KeyError(), 1)
            g.spawn(sleep, 60)
        return scope.cancelled_caught, vthreads.now()

    assert (True, 5.0) == virtual(root)
    assert [KeyError] == [details.exc_type for details in reported]


def test_a_failure_in_the_cleanup_of_a_cancelled_member_is_reported(virtual, reported):
    def member():
        try:
            sleep(60)
        finally:
            raise OSError("cleanup")

    def root():
        with ThreadGroup(on_failure="report") as g:
            g.spawn(member)
            g.cancel()

    virtual(root)
    assert [OSError] == [details.exc_type for details in reported]


def test_a_hook_that_fails_does_not_end_a_reporting_group(virtual, monkeypatch):
    def bad_hook(details):
        raise RuntimeError("hook")

    def root():
        with ThreadGroup(on_failure="report") as g:
            g.spawn(failing, KeyError())
            return g.spawn(lambda: "value").result()

    shown = []
    monkeypatch.setattr(threading, "excepthook", bad_hook)
    monkeypatch.setattr(sys, "excepthook", lambda *details: shown.append(details[0]))
    assert "value" == virtual(root)
    assert [RuntimeError, KeyError] == shown
