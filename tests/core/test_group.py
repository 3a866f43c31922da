"""`ThreadGroup`: spawning, the end of the block, and control."""

import threading
from contextvars import ContextVar

import pytest

import vthreads
from tests.core.outcomes import failing, failures_of, outcome
from vthreads import CancelScope, ThreadGroup, move_on_after, sleep, stopping
from vthreads._core.originals import get_ident
from vthreads.errors import Cancelled, GroupClosed, ScopeMisuse

pytestmark = pytest.mark.unpatched


# --- spawning


def test_the_child_runs_at_once_and_then_its_spawner_before_anyone_else(virtual, order):
    def root():
        log = []

        def child():
            log.append("child")
            sleep(0)
            log.append("child again")

        with ThreadGroup() as g:
            g.spawn(lambda: (sleep(0), log.append("other")))
            g.spawn(child)
            log.append("spawner")
        return log[:2]

    assert ["child", "spawner"] == virtual(root, order=order)


def test_children_see_the_loop_variable_of_their_turn(virtual, order):
    def root():
        seen = []
        with ThreadGroup() as g:
            for number in range(5):
                g.spawn(lambda: seen.append(number))
        return seen

    assert [0, 1, 2, 3, 4] == virtual(root, order=order)


def test_arguments_are_passed_on(virtual):
    def root():
        with ThreadGroup() as g:
            return g.spawn(lambda *args, **kwargs: (args, kwargs), 1, 2, fn=3, self=4).result()

    assert ((1, 2), {"fn": 3, "self": 4}) == virtual(root)


def test_the_context_is_copied_at_spawn(virtual):
    var = ContextVar("var")

    def root():
        def child():
            sleep(1)
            return var.get()

        with ThreadGroup() as g:
            var.set("at spawn")
            future = g.spawn(child)
            var.set("later")
        return future.result()

    assert "at spawn" == virtual(root)


def test_spawn_is_no_checkpoint(virtual, clock):
    def root():
        log = []
        with ThreadGroup(max_concurrency=2) as g:
            ThreadGroup.current.spawn(lambda: (sleep(0), log.append("other")))
            clock.advance(1)
            with CancelScope() as scope:
                scope.cancel()
                g.spawn(log.append, "child")
            log.append("body")
        return log

    assert ["child", "body", "other"] == virtual(root)


def test_spawn_works_as_a_decorator(virtual):
    def root():
        with ThreadGroup() as g:

            @g.spawn
            def answer():
                return 42

        return answer.result()

    assert 42 == virtual(root)


def test_any_virtual_thread_may_spawn_into_an_open_group(virtual):
    def root():
        with ThreadGroup() as target:
            with ThreadGroup() as other:
                future = other.spawn(lambda: target.spawn(vthreads.current_thread)).result()
        return future.result().group is target

    assert virtual(root) is True


def test_an_os_thread_may_spawn(virtual):
    def root():
        me = vthreads.current_thread()
        with ThreadGroup() as g:
            futures = []

            def outside():
                futures.append(g.spawn(get_ident))
                futures[0].result()
                me._unpark()

            os_thread = threading.Thread(target=outside)
            os_thread.start()
            me._park()
            os_thread.join()
        return futures[0].result() == get_ident()

    assert virtual(root) is True


def test_an_os_thread_may_spawn_while_the_block_waits_for_its_end(virtual):
    def root():
        futures = []
        with ThreadGroup() as g:
            keeper = g.spawn(lambda: vthreads.current_thread()._park()).thread

            def outside():
                while "LEAVING" not in str(g._phase):
                    pass
                for number in range(20):
                    futures.append(g.spawn(lambda: (sleep(0), number)[1]))
                keeper._unpark()

            os_thread = threading.Thread(target=outside)
            os_thread.start()
        os_thread.join()
        return len([future.result() for future in futures])

    assert 20 == virtual(root)


def test_many_os_threads_spawn_at_once(virtual):
    def root():
        done = []
        with ThreadGroup() as g:
            keeper = g.spawn(lambda: vthreads.current_thread()._park()).thread

            def outside():
                for _ in range(200):
                    g.spawn(lambda: (sleep(0), done.append(1)))

            os_threads = [threading.Thread(target=outside) for _ in range(4)]

            def finish():
                for os_thread in os_threads:
                    os_thread.join()
                keeper._unpark()

            finisher = threading.Thread(target=finish)
            for os_thread in [*os_threads, finisher]:
                os_thread.start()
        finisher.join()
        return len(done)

    assert 800 == virtual(root)


# --- the current group


def test_the_current_group_is_the_innermost_one(virtual):
    def root():
        background = ThreadGroup.current
        with ThreadGroup() as outer:
            seen = [ThreadGroup.current is outer]
            with ThreadGroup() as inner, CancelScope():
                seen.append(ThreadGroup.current is inner)
            seen.append(ThreadGroup.current is outer)
        seen.append(ThreadGroup.current is background)
        return background.name, seen

    assert ("background", [True] * 4) == virtual(root)


def test_the_current_group_follows_membership(virtual):
    def root():
        with ThreadGroup() as g:
            with ThreadGroup():
                return g.spawn(lambda: ThreadGroup.current is g).result()

    assert virtual(root) is True


def test_a_background_thread_is_in_the_background_group(virtual):
    def root():
        with ThreadGroup():
            pass
        background = ThreadGroup.current
        return background.spawn(lambda: ThreadGroup.current is background).result()

    assert virtual(root) is True


# --- refusal


def test_a_group_is_used_inside_its_block_only(virtual):
    def root():
        g = ThreadGroup("g")
        with pytest.raises(GroupClosed, match=r"'g'.*not entered"):
            g.spawn(sleep, 1)
        with g:
            with pytest.raises(GroupClosed, match="entered before"):
                g.__enter__()
        with pytest.raises(GroupClosed, match="block has ended"):
            g.spawn(sleep, 1)
        with pytest.raises(GroupClosed, match="entered before"):
            g.__enter__()

    virtual(root)


def test_a_cancelled_group_refuses_members_and_body_with_cancelled(virtual):
    def root():
        answers = []

        def member():
            try:
                sleep(10)
            finally:
                answers.append(outcome(g.spawn, sleep, 1))

        with ThreadGroup() as g:
            g.spawn(member)
            g.cancel()
            answers.append(outcome(g.spawn, sleep, 1))
        return answers

    assert [Cancelled, Cancelled] == virtual(root)


def test_a_cancelled_group_refuses_members_of_nested_groups_with_cancelled(virtual):
    def root():
        answers = []

        def nested():
            try:
                sleep(10)
            finally:
                answers.append(outcome(g.spawn, sleep, 1))

        def member():
            with ThreadGroup() as inner:
                inner.spawn(nested)

        with ThreadGroup() as g:
            g.spawn(member)
            g.cancel()
        return answers

    assert [Cancelled] == virtual(root)


def test_a_cancelled_group_refuses_strangers_with_group_closed(virtual):
    def root():
        def member():
            try:
                sleep(10)
            finally:
                sleep(1)

        def stranger():
            sleep(0.5)
            with pytest.raises(GroupClosed, match="no longer needed") as caught:
                g.spawn(sleep, 1)
            return caught.value.group is g

        with ThreadGroup() as others:
            with ThreadGroup() as g:
                g.spawn(member)
                future = others.spawn(stranger)
                g.cancel("no longer needed")
        return future.result()

    assert virtual(root) is True


def test_a_failed_group_refuses_with_the_reason(virtual):
    def root():
        def slow():
            try:
                sleep(10)
            finally:
                sleep(1)

        def stranger():
            sleep(0.5)
            with pytest.raises(GroupClosed, match="failed: KeyError: 'broken'"):
                g.spawn(sleep, 1)
            return "refused"

        with ThreadGroup() as others:
            future = others.spawn(stranger)
            with pytest.raises(ExceptionGroup):
                with ThreadGroup() as g:
                    g.spawn(slow)
                    g.spawn(failing, KeyError("broken"))
        return future.result()

    assert "refused" == virtual(root)


def test_a_closed_group_refuses_everybody_and_its_members_go_on(virtual):
    def root():
        with ThreadGroup() as g:
            future = g.spawn(sleep, 5)
            g.close()
            with pytest.raises(GroupClosed, match="closed"):
                g.spawn(sleep, 1)
            member = g
        return future.cancelled(), vthreads.now(), len(member)

    assert (False, 5.0, 0) == virtual(root)


def test_a_groups_own_refusal_is_no_failure_of_its_members(virtual):
    def root():
        with ThreadGroup() as g:
            future = g.spawn(lambda: (sleep(1), g.spawn(sleep, 1)))
            sibling = g.spawn(sleep, 5)
            g.close()
        return type(future.exception()), sibling.cancelled()

    assert (GroupClosed, False) == virtual(root)


def test_a_groups_own_refusal_leaves_the_body_as_it_is(virtual):
    def root():
        with ThreadGroup() as g:
            future = g.spawn(sleep, 5)
            g.close()
            try:
                g.spawn(sleep, 1)
            finally:
                cancelled.append(future)

    cancelled = []
    with pytest.raises(GroupClosed):
        virtual(root)
    assert cancelled[0].cancelled()


# --- the end of the block


def test_the_block_ends_when_all_members_have_ended(virtual):
    def root():
        with ThreadGroup() as g:
            g.spawn(lambda: (sleep(1), g.spawn(sleep, 5)))
        return vthreads.now(), len(g)

    assert (6.0, 0) == virtual(root)


def test_one_failure_comes_out_in_an_exception_group(virtual):
    def root():
        with ThreadGroup("g") as g:
            g.spawn(failing, KeyError("broken"))

    with pytest.raises(ExceptionGroup, match="1 failure in ThreadGroup 'g'") as caught:
        virtual(root)
    assert ["KeyError"] == failures_of(caught)


def test_the_first_failure_cancels_the_others_and_the_body(virtual):
    def root():
        futures = []
        with pytest.raises(ExceptionGroup) as caught:
            with ThreadGroup() as g:
                futures.append(g.spawn(sleep, 60))
                g.spawn(failing, KeyError(), 1)
                sleep(60)
        return failures_of(caught), futures[0].cancelled(), vthreads.now()

    assert (["KeyError"], True, 1.0) == virtual(root)


def test_the_failure_of_the_body_is_one_of_them(virtual):
    def root():
        def fails_in_cleanup():
            try:
                sleep(60)
            finally:
                raise IndexError

        with ThreadGroup() as g:
            g.spawn(fails_in_cleanup)
            raise KeyError

    with pytest.raises(ExceptionGroup) as caught:
        virtual(root)
    assert [KeyError, IndexError] == [type(error) for error in caught.value.exceptions]


def test_the_failure_of_the_body_alone_is_in_a_group_too(virtual):
    def root():
        with ThreadGroup():
            raise KeyError

    with pytest.raises(ExceptionGroup) as caught:
        virtual(root)
    assert ["KeyError"] == failures_of(caught)


def test_an_exception_object_occurs_once(virtual):
    error = KeyError("shared")

    def root():
        with ThreadGroup() as g:
            g.spawn(lambda: g.spawn(failing, error, 1).result())
            g.spawn(failing, error, 1)
            sleep(60)

    with pytest.raises(ExceptionGroup) as caught:
        virtual(root)
    assert [error] == list(caught.value.exceptions)


def test_equal_exceptions_are_not_the_same(virtual):
    def root():
        with ThreadGroup(on_failure="continue") as g:
            g.spawn(failing, KeyError("equal"))
            g.spawn(failing, KeyError("equal"))

    with pytest.raises(ExceptionGroup) as caught:
        virtual(root)
    assert ["KeyError", "KeyError"] == failures_of(caught)


class Final(BaseException):
    pass


def test_other_base_exceptions_come_out_in_a_base_exception_group(virtual):
    def root():
        with ThreadGroup() as g:
            g.spawn(failing, Final())

    with pytest.raises(BaseExceptionGroup) as caught:
        virtual(root)
    assert not isinstance(caught.value, ExceptionGroup)
    assert ["Final"] == failures_of(caught)


@pytest.mark.parametrize("fatal", [KeyboardInterrupt, SystemExit])
@pytest.mark.parametrize("options", [{}, {"on_failure": "continue"}, {"errors": "first"}])
def test_fatal_exceptions_come_out_bare_and_the_others_are_noted(virtual, fatal, options):
    def root():
        def fails_in_cleanup():
            try:
                sleep(60)
            finally:
                raise KeyError("in cleanup")

        with ThreadGroup(**options) as g:
            g.spawn(fails_in_cleanup)
            g.spawn(failing, fatal(3), 1)

    with pytest.raises(fatal) as caught:
        virtual(root)
    assert any("KeyError: 'in cleanup'" in note for note in caught.value.__notes__)


def test_a_fatal_exception_of_the_body_comes_out_bare(virtual):
    def root():
        with ThreadGroup() as g:
            future = g.spawn(sleep, 60)
            futures.append(future)
            raise SystemExit(3)

    futures = []
    with pytest.raises(SystemExit):
        virtual(root)
    assert futures[0].cancelled()


def test_nested_groups_nest_their_failures(virtual):
    def root():
        def member():
            with ThreadGroup("inner") as inner:
                inner.spawn(failing, KeyError())

        with ThreadGroup("outer") as g:
            g.spawn(member)

    with pytest.raises(ExceptionGroup, match="outer") as caught:
        virtual(root)
    (inner,) = caught.value.exceptions
    assert [KeyError] == [type(error) for error in inner.exceptions]


def test_failures_win_over_an_outer_cancellation(virtual):
    def root():
        def fails_in_cleanup():
            try:
                sleep(60)
            finally:
                raise KeyError

        with move_on_after(1), ThreadGroup() as g:
            g.spawn(fails_in_cleanup)

    with pytest.raises(ExceptionGroup) as caught:
        virtual(root)
    assert ["KeyError"] == failures_of(caught)


def test_an_outer_cancellation_goes_on_without_failures(virtual):
    def root():
        with move_on_after(1) as scope:
            with ThreadGroup() as g:
                g.spawn(sleep, 60)
            raise AssertionError("not reached")
        return scope.cancelled_caught, vthreads.now()

    assert (True, 1.0) == virtual(root)


def test_an_outer_cancellation_during_the_end_of_an_empty_body_comes_out(virtual):
    def root():
        with CancelScope() as scope:
            with ThreadGroup() as g:
                g.spawn(lambda: (sleep(1), scope.cancel()))
            raise AssertionError("not reached")
        return scope.cancelled_caught

    assert virtual(root) is True


def test_leaving_a_block_is_a_checkpoint(virtual):
    def root():
        with CancelScope() as scope:
            with ThreadGroup():
                scope.cancel()
            raise AssertionError("not reached")
        return scope.cancelled_caught

    assert virtual(root) is True


def test_the_wait_for_members_is_not_given_up_when_cancelled(virtual):
    def root():
        def slow_to_end():
            try:
                sleep(60)
            finally:
                sleep(1.5)
                ended.append(vthreads.now())

        ended = []
        with move_on_after(1):
            with ThreadGroup() as g:
                g.spawn(slow_to_end)
        return ended, vthreads.now()

    assert ([2.5], 2.5) == virtual(root)


def test_the_wait_for_members_is_not_given_up_when_interrupted_again_and_again(virtual):
    def root():
        me = vthreads.current_thread()

        def slow_to_end():
            try:
                sleep(60)
            finally:
                sleep(1.5)
                ended.append(vthreads.now())

        def interrupter():
            for _ in range(3):
                sleep(0.25)
                me.interrupt()
            sleep(0.25)
            me.interrupt(KeyError)

        ended = []
        with ThreadGroup() as others:
            others.spawn(interrupter)
            with pytest.raises(ExceptionGroup) as caught:
                with ThreadGroup() as g:
                    g.spawn(slow_to_end)
            return failures_of(caught), ended, vthreads.now()

    assert (["Interrupted", "Interrupted", "Interrupted", "KeyError"], [1.75], 1.75) == virtual(root)


def test_an_interrupt_at_the_end_cancels_the_members(virtual):
    def root():
        me = vthreads.current_thread()
        with ThreadGroup() as others:
            others.spawn(lambda: (sleep(1), me.interrupt(KeyboardInterrupt)))
            with pytest.raises(KeyboardInterrupt):
                with ThreadGroup() as g:
                    future = g.spawn(sleep, 60)
            return future.cancelled(), vthreads.now()

    assert (True, 1.0) == virtual(root)


def test_groups_are_left_in_the_reverse_order_and_no_thread_outlives_its_own(virtual):
    def root():
        outer, inner = ThreadGroup(), ThreadGroup()
        outer.__enter__()
        inner.__enter__()
        futures = [outer.spawn(sleep, 60), inner.spawn(sleep, 60)]
        with pytest.raises(ScopeMisuse, match="reverse order"):
            outer.__exit__(None, None, None)
        return [future.cancelled() for future in futures]

    assert [True, True] == virtual(root)


# --- control


def test_cancelling_a_group_ends_members_and_body_normally(virtual):
    def root():
        with ThreadGroup() as g:
            future = g.spawn(sleep, 60)
            g.cancel()
            sleep(60)
            raise AssertionError("not reached")
        return future.cancelled(), vthreads.now()

    assert (True, 0.0) == virtual(root)


def test_cancelling_a_group_reaches_nested_groups(virtual):
    def root():
        def member():
            with ThreadGroup() as inner:
                futures.append(inner.spawn(sleep, 60))

        futures = []
        with ThreadGroup() as g:
            futures.append(g.spawn(member))
            g.cancel()
        return [future.cancelled() for future in futures]

    assert [True, True] == virtual(root)


def test_a_group_cancelled_from_an_os_thread_ends(virtual):
    def root():
        with ThreadGroup() as g:
            g.spawn(lambda: vthreads.current_thread()._park())
            os_thread = threading.Thread(target=g.cancel)
            os_thread.start()
        os_thread.join()
        return "ended"

    assert "ended" == virtual(root)


def test_shutdown_asks_members_at_any_depth_to_stop(virtual):
    def root():
        def worker():
            while not stopping():
                sleep(1)
            return vthreads.now()

        def member():
            with ThreadGroup() as inner:
                return inner.spawn(worker).result()

        with ThreadGroup() as g:
            shallow, deep = g.spawn(worker), g.spawn(member)
            sleep(2.5)
            before = stopping()
            g.shutdown()
            assert vthreads.now() == 2.5
            after = stopping()
            with pytest.raises(GroupClosed, match="shutting down"):
                g.spawn(worker)
        return before, after, shallow.result(), deep.result(), stopping()

    assert (False, True, 3.0, 3.0, False) == virtual(root)


@pytest.mark.parametrize(("grace", "end"), [(None, 60.0), (5, 5.0), (0, 0.0)])
def test_shutdown_cancels_after_its_grace(virtual, grace, end):
    def root():
        with ThreadGroup() as g:
            future = g.spawn(sleep, 60)
            g.shutdown(grace)
        return future.cancelled(), vthreads.now()

    assert (end < 60, end) == virtual(root)


def test_members_that_end_within_the_grace_are_not_cancelled(virtual):
    def root():
        with ThreadGroup() as g:
            future = g.spawn(sleep, 2)
            g.shutdown(5)
        return future.cancelled(), vthreads.now()

    assert (False, 2.0) == virtual(root)


def test_nobody_is_stopping_outside_of_a_group(virtual):
    assert virtual(stopping) is False
    assert stopping() is False


# --- inspection


def test_as_completed_yields_each_member_once_as_they_end(virtual):
    def root():
        with ThreadGroup() as g:
            futures = [g.spawn(lambda seconds: (sleep(seconds), seconds)[1], seconds) for seconds in (3, 1, 0, 2)]
            done = [(future.result(), vthreads.now()) for future in g.as_completed()]
        return done, len(futures)

    assert ([(0, 0.0), (1, 1.0), (2, 2.0), (3, 3.0)], 4) == virtual(root)


def test_as_completed_yields_those_spawned_meanwhile(virtual):
    def root():
        def child(generation):
            sleep(1)
            if generation < 3:
                g.spawn(child, generation + 1)
            return generation

        with ThreadGroup() as g:
            g.spawn(child, 0)
            return [future.result() for future in g.as_completed()]

    assert [0, 1, 2, 3] == virtual(root)


def test_as_completed_of_an_empty_group_ends_at_once(virtual):
    def root():
        with ThreadGroup() as g:
            return list(g.as_completed())

    assert [] == virtual(root)


def test_as_completed_yields_failures_and_cancelled_ones_too(virtual):
    def root():
        with ThreadGroup(on_failure="continue") as g:
            g.spawn(failing, KeyError(), 1)
            g.spawn(sleep, 60).cancel()
            return [future.cancelled() or type(future.exception()) for future in g.as_completed()]

    assert [True, KeyError] == virtual(root)


def test_a_member_may_wait_for_the_others_with_as_completed(virtual):
    def root():
        with ThreadGroup() as g:
            g.spawn(sleep, 2)
            future = g.spawn(lambda: len(list(g.as_completed())))
            g.spawn(sleep, 1)
        return future.result(), vthreads.now()

    assert (2, 2.0) == virtual(root)


def test_members_are_counted_and_listed_until_they_end(virtual):
    def root():
        with ThreadGroup(max_concurrency=2) as g:

            def member():
                queued = g.spawn(sleep, 1).thread
                return queued, len(g), queued in list(g)

            running = g.spawn(sleep, 1).thread
            queued, length, listed = g.spawn(member).result()
            listed_running = running in list(g)
        return length, listed, listed_running, len(g), list(g), bool(g)

    assert (3, True, True, 0, [], True) == virtual(root)


def test_the_repr_tells_name_state_and_counts(virtual):
    def root():
        g = ThreadGroup("g")
        seen = [repr(g)]
        with g:
            g.spawn(sleep, 1)
            seen.append(repr(g))
            g.close()
            seen.append(repr(g))
            g.cancel()
            seen.append(repr(g))
        return seen

    assert [
        "<ThreadGroup 'g' new members=0 failures=0>",
        "<ThreadGroup 'g' open members=1 failures=0>",
        "<ThreadGroup 'g' closed members=1 failures=0>",
        "<ThreadGroup 'g' cancelled members=1 failures=0>",
    ] == virtual(root)


def test_groups_without_a_name_get_one_each():
    assert ThreadGroup().name != ThreadGroup().name
