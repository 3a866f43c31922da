"""`Cancelled` in exception groups: scopes and groups take their own out, and leave the others."""

import concurrent.futures
import sys

import pytest

import vthreads
from tests.core.outcomes import outcome
from vthreads import CancelScope, ThreadGroup, fail_after, move_on_after, sleep
from vthreads.errors import Cancelled

pytestmark = pytest.mark.unpatched


def failing_with(error, seconds=1.0):
    """A block of members that fail, each with its error, after some seconds."""

    def fail(error):
        try:
            sleep(seconds)
        finally:
            raise error

    with ThreadGroup(on_failure="continue") as group:
        for each in error:
            group.spawn(fail, each)


def handle_in_except_star():
    """Be cancelled in two handlers of one `except*`: what comes out is a group of both cancellations."""
    try:
        failing_with([ValueError(), KeyError()])
    except* ValueError:
        sleep(100)
    except* KeyError:
        sleep(100)


def handle_and_fail():
    """Likewise, but one of the handlers fails."""
    try:
        failing_with([ValueError(), KeyError("key")])
    except* ValueError:
        sleep(100)
    except* KeyError:
        raise IndexError("handler") from None


def test_a_scope_absorbs_a_group_of_cancellations(virtual):
    def root():
        with move_on_after(2) as scope:
            handle_in_except_star()
        return scope.cancelled_caught, vthreads.now()

    assert (True, 2.0) == virtual(root)


def test_a_scope_whose_parent_is_cancelled_lets_a_group_of_cancellations_pass(virtual):
    def root():
        with move_on_after(2) as outer, CancelScope() as inner:
            handle_in_except_star()
        return outer.cancelled_caught, inner.cancelled_caught

    assert (True, False) == virtual(root)


def test_a_time_limit_knows_its_cancellation_in_a_group(virtual):
    def root():
        with fail_after(2):
            handle_in_except_star()

    assert TimeoutError is outcome(virtual, root)


def test_a_scope_takes_the_cancellations_out_of_a_group_and_lets_the_failures_pass(virtual):
    def root():
        with pytest.raises(ExceptionGroup) as caught, fail_after(2) as scope:
            handle_and_fail()
        assert scope.cancelled_caught
        return [type(error) for error in caught.value.exceptions], caught.value.__context__

    assert ([IndexError], None) == virtual(root)


def test_a_group_of_failures_alone_passes_a_cancelled_scope_as_it_is(virtual):
    raised = ExceptionGroup("failures", [ValueError(), ExceptionGroup("inner", [KeyError()])])

    def root():
        with pytest.raises(ExceptionGroup) as caught, CancelScope() as scope:
            scope.cancel()
            raise raised
        assert not scope.cancelled_caught
        return caught.value

    assert virtual(root) is raised


class NotDerived(BaseExceptionGroup):
    def derive(self, exceptions):
        raise RuntimeError("no other group is made of this one")


def test_a_group_that_derives_none_is_taken_apart_all_the_same(virtual):
    failure = ValueError()

    def root():
        with pytest.raises(ExceptionGroup, match="mixed") as caught, CancelScope() as scope:
            scope.cancel()
            raise NotDerived("mixed", [Cancelled(), NotDerived("inner", [failure, Cancelled()])])
        return caught.value.exceptions[0].exceptions

    assert (failure,) == virtual(root)


class SplitsBadly(BaseExceptionGroup):
    def split(self, condition):
        raise KeyboardInterrupt

    subgroup = split


class DerivesNoGroup(BaseExceptionGroup):
    def derive(self, exceptions):
        return None


class DerivesAnotherFailure(BaseExceptionGroup):
    def derive(self, exceptions):
        return BaseExceptionGroup(self.message, [KeyError("another")])


class ExitsInDerive(BaseExceptionGroup):
    def derive(self, exceptions):
        raise SystemExit


class WaitsInDerive(BaseExceptionGroup):
    def derive(self, exceptions):
        sleep(1)
        return BaseExceptionGroup(self.message, exceptions)


class HasNoAttributes(BaseExceptionGroup):
    def __getattribute__(self, name):
        raise RuntimeError(f"no {name}")


def raise_in_body(error):
    with ThreadGroup() as group:
        group.spawn(sleep, 100)
        raise error


def raise_in_member(error):
    with ThreadGroup() as group:
        group.spawn(sleep, 100)
        failing_with([error])


def raise_in_scope(error):
    with CancelScope() as scope:
        scope.cancel()
        raise error


def leaves_of(error):
    if not issubclass(type(error), BaseExceptionGroup):
        return [error]
    members = vars(BaseExceptionGroup)["exceptions"].__get__(error)
    return [leaf for member in members for leaf in leaves_of(member)]


ODD_GROUPS = [SplitsBadly, DerivesNoGroup, DerivesAnotherFailure, ExitsInDerive, WaitsInDerive, HasNoAttributes]


@pytest.mark.parametrize("kind", ODD_GROUPS)
@pytest.mark.parametrize("end", [raise_in_body, raise_in_member, raise_in_scope])
def test_a_group_of_any_class_comes_out_without_its_cancellations(virtual, kind, end):
    failure = ValueError()

    def root():
        try:
            end(kind("mixed", [failure, Cancelled(), BaseExceptionGroup("inner", [Cancelled()])]))
        except BaseException as error:
            caught = error
        with ThreadGroup() as group:
            assert 3 == group.spawn(lambda: 3).result()
        return leaves_of(caught)

    assert [failure] == virtual(root)


@pytest.mark.parametrize("kind", ODD_GROUPS)
def test_a_group_of_any_class_with_nothing_but_cancellations_is_one(virtual, kind):
    def root():
        with CancelScope() as scope:
            scope.cancel()
            raise kind("cancelled", [Cancelled(), BaseExceptionGroup("inner", [Cancelled()])])
        return scope.cancelled_caught

    assert virtual(root)


@pytest.mark.parametrize("end", [raise_in_body, raise_in_member])
def test_a_group_that_is_nested_too_deeply_to_be_taken_apart_gives_its_failures(virtual, end):
    failure = ValueError()
    error = BaseExceptionGroup("deepest", [failure, Cancelled()])
    for _ in range(2 * sys.getrecursionlimit()):
        error = BaseExceptionGroup("nested", [error, Cancelled()])

    def root():
        with pytest.raises(ExceptionGroup) as caught:
            end(error)
        failures = [caught.value]
        while isinstance(failures[0], BaseExceptionGroup):
            failures = failures[0].exceptions
        return failures

    assert (failure,) == virtual(root)


def test_a_member_that_ends_with_a_group_of_cancellations_was_cancelled(virtual):
    def root():
        with ThreadGroup() as group:
            future = group.spawn(handle_in_except_star)
            other = group.spawn(sleep, 3)
            sleep(2)
            future.cancel()
        return future.cancelled(), other.cancelled(), vthreads.now()

    assert (True, False, 3.0) == virtual(root)


def test_a_member_that_ends_with_failures_and_cancellations_fails_with_the_failures(virtual):
    def root():
        with pytest.raises(ExceptionGroup) as caught, ThreadGroup() as group:
            future = group.spawn(handle_and_fail)
            sleep(2)
            future.cancel()
        (failure,) = caught.value.exceptions
        assert failure is future.exception()
        return [type(error) for error in failure.exceptions]

    assert [IndexError] == virtual(root)


@pytest.mark.parametrize("handle", [handle_in_except_star, handle_and_fail])
def test_a_body_that_is_cancelled_in_an_except_star(virtual, handle):
    def root():
        with ThreadGroup() as group:
            group.spawn(lambda: sleep(2) or group.cancel())
            handle()
        return "ended"

    assert ("ended" if handle is handle_in_except_star else ExceptionGroup) == outcome(virtual, root)


def test_the_first_failure_has_no_cancellation_in_it(virtual):
    def root():
        with ThreadGroup(errors="first") as group:
            group.spawn(lambda: sleep(2) or group.cancel())
            handle_and_fail()

    with pytest.raises(ExceptionGroup) as caught:
        virtual(root)
    assert [IndexError] == [type(error) for error in caught.value.exceptions]


def test_a_loser_of_a_race_that_is_cancelled_in_an_except_star_is_dropped(virtual):
    def root():
        return vthreads.race(lambda: sleep(2) or "winner", handle_and_fail, handle_in_except_star)

    assert "winner" == virtual(root)


def test_an_offloaded_call_that_was_cancelled_in_an_except_star_is_no_cancellation_of_the_caller():
    def call():
        raise BaseExceptionGroup("cancelled", [Cancelled(), Cancelled()])

    def root():
        with CancelScope():
            vthreads.offload(call)

    assert concurrent.futures.CancelledError is outcome(lambda: vthreads.run(root, patch=False))
