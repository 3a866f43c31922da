"""Attributes and methods of a virtual thread."""

import threading
from contextvars import ContextVar

import pytest

import vthreads
from vthreads import ThreadGroup, VirtualThread, sleep
from vthreads._core.engine import State
from vthreads.errors import Cancelled, Interrupted

pytestmark = pytest.mark.unpatched


def test_a_virtual_thread_is_a_threading_thread(virtual):
    def root():
        with ThreadGroup() as g:
            return g.spawn(vthreads.current_thread).result()

    thread = virtual(root)
    assert isinstance(thread, threading.Thread)
    assert isinstance(thread, VirtualThread)


def test_a_thread_has_a_name_that_can_be_set(virtual):
    def root():
        with ThreadGroup() as g:
            first, second = (g.spawn(sleep, 1).thread for _ in range(2))
            given = first.name, second.name
            first.name = "worker"
            return given, first.name

    given, name = virtual(root)
    number = int(given[0].removeprefix("virtual-"))
    assert (f"virtual-{number}", f"virtual-{number + 1}") == given
    assert "worker" == name


def test_identities_are_never_given_out_twice(virtual):
    def root():
        with ThreadGroup() as g:
            return [g.spawn(lambda: None).thread.ident for _ in range(100)]

    assert 100 == len(set(virtual(root)))


def test_a_thread_knows_its_group(virtual):
    def root():
        with ThreadGroup() as g:
            return g.spawn(sleep, 1).thread.group is g, vthreads.current_thread().group

    assert (True, None) == virtual(root)


def test_a_thread_runs_in_a_copy_of_its_spawners_context(virtual):
    var = ContextVar("var")

    def root():
        def child():
            seen = var.get()
            var.set("child's")
            sleep(1)
            return seen

        var.set("root's")
        with ThreadGroup() as g:
            future = g.spawn(child)
            childs = future.thread.context[var]
        return future.result(), childs, var.get()

    assert ("root's", "child's", "root's") == virtual(root)


def test_the_states_of_a_thread(virtual):
    def root():
        with ThreadGroup(max_concurrency=1) as g:

            def member():
                queued = g.spawn(lambda: None).thread
                states = [vthreads.current_thread().state, queued.state]
                sleep(1)
                return states, queued

            future = g.spawn(member)
            parked = future.thread.state
        states, queued = future.result()
        return parked, states, queued.state

    assert (State.PARKED, [State.RUNNING, State.PARKED], State.ENDED) == virtual(root)
    assert ["new", "ready", "running", "parked", "ended"] == [state.value for state in State]


def test_the_repr_tells_name_state_and_group(virtual):
    def root():
        with ThreadGroup("workers") as g:
            thread = g.spawn(sleep, 1).thread
            thread.name = "one"
            return repr(thread)

    assert "<VirtualThread 'one' parked of group 'workers'>" == virtual(root)


def test_a_thread_is_alive_until_it_has_ended(virtual):
    def root():
        with ThreadGroup() as g:
            thread = g.spawn(sleep, 1).thread
            before = thread.is_alive()
        return before, thread.is_alive()

    assert (True, False) == virtual(root)


def test_a_thread_is_no_daemon(virtual):
    def root():
        me = vthreads.current_thread()
        with pytest.raises(RuntimeError, match="belongs to its group"):
            me.daemon = True
        return me.daemon

    assert virtual(root) is False


# --- join


def test_join_waits_for_the_end(virtual):
    def root():
        with ThreadGroup() as g:
            thread = g.spawn(sleep, 5).thread
            answer = thread.join()
            return answer, vthreads.now(), thread.is_alive()

    assert (None, 5.0, False) == virtual(root)


def test_join_of_an_ended_thread_returns_at_once(virtual):
    def root():
        with ThreadGroup() as g:
            g.spawn(lambda: None).thread.join()
            return vthreads.now()

    assert 0.0 == virtual(root)


def test_join_gives_up_after_its_timeout(virtual):
    def root():
        with ThreadGroup() as g:
            thread = g.spawn(sleep, 5).thread
            thread.join(2)
            return vthreads.now(), thread.is_alive()

    assert (2.0, True) == virtual(root)


def test_join_never_raises_what_the_thread_raised(virtual):
    def root():
        def failing():
            sleep(1)
            raise KeyError

        with ThreadGroup(on_failure="continue") as g:
            future = g.spawn(failing)
            future.thread.join()
            future.exception()
        return vthreads.now()

    assert 1.0 == virtual(root)


def test_join_is_a_checkpoint_and_leaves_the_thread_alone(virtual):
    def root():
        with ThreadGroup() as g:
            future = g.spawn(sleep, 5)
            with vthreads.move_on_after(1) as scope:
                future.thread.join()
            caught = scope.cancelled_caught, vthreads.now()
        return caught, future.cancelled()

    assert ((True, 1.0), False) == virtual(root)


def test_join_of_an_ended_thread_is_a_checkpoint_all_the_same(virtual):
    def root():
        with ThreadGroup() as g:
            thread = g.spawn(lambda: None).thread
        with vthreads.CancelScope() as scope:
            scope.cancel()
            thread.join()
        return scope.cancelled_caught

    assert virtual(root) is True


def test_several_threads_may_join_one(virtual):
    def root():
        with ThreadGroup() as g:
            thread = g.spawn(sleep, 5).thread
            joiners = [g.spawn(lambda: (thread.join(), vthreads.now())[1]) for _ in range(3)]
        return [joiner.result() for joiner in joiners]

    assert [5.0] * 3 == virtual(root)


def test_a_thread_cannot_join_itself(virtual):
    def root():
        with pytest.raises(RuntimeError, match="cannot join itself"):
            vthreads.current_thread().join()

    virtual(root)


def test_an_os_thread_may_join_a_virtual_thread(virtual):
    def root():
        with ThreadGroup() as g:
            me, log = vthreads.current_thread(), []
            thread = g.spawn(lambda: vthreads.current_thread()._park()).thread

            def outside():
                thread.join(0.001)
                log.append(thread.is_alive())
                thread._unpark()
                thread.join()
                log.append(thread.is_alive())
                me._unpark()

            os_thread = threading.Thread(target=outside)
            os_thread.start()
            me._park()
            os_thread.join()
            return log

    assert [True, False] == virtual(root)


# --- interrupting and cancelling


@pytest.mark.parametrize("exc", [KeyError, KeyError("given")])
def test_an_interrupt_takes_a_class_or_an_instance(virtual, exc):
    def root():
        def child():
            try:
                sleep(5)
            except KeyError as error:
                return error

        with ThreadGroup() as g:
            future = g.spawn(child)
            assert future.thread.interrupt(exc)
        return future.result()

    assert exc in (virtual(root), type(virtual(root)))


def test_the_default_interrupt_is_interrupted(virtual):
    def root():
        with ThreadGroup(on_failure="continue") as g:
            future = g.spawn(sleep, 5)
            future.thread.interrupt()
            return future.exception()

    assert isinstance(virtual(root), Interrupted)


def test_an_unhandled_interrupt_is_an_ordinary_failure(virtual):
    def root():
        with ThreadGroup() as g:
            future = g.spawn(sleep, 5)
            sibling = g.spawn(sleep, 5)
            future.thread.interrupt()
            with pytest.raises(Cancelled):
                sleep(1)
        return sibling

    with pytest.raises(ExceptionGroup) as caught:
        virtual(root)
    assert [Interrupted] == [type(error) for error in caught.value.exceptions]


def test_an_ended_thread_cannot_be_interrupted(virtual):
    def root():
        with ThreadGroup() as g:
            thread = g.spawn(lambda: None).thread
            return thread.interrupt()

    assert virtual(root) is False


def test_an_interrupt_has_to_be_an_exception(virtual):
    def root():
        for wrong in ("text", int, None):
            with pytest.raises(TypeError, match="exception or an exception class"):
                vthreads.current_thread().interrupt(wrong)

    virtual(root)


def test_an_interrupt_comes_from_any_os_thread(virtual):
    def root():
        interrupter = threading.Thread(target=vthreads.current_thread().interrupt)
        interrupter.start()
        with pytest.raises(Interrupted):
            vthreads.current_thread()._park()
        interrupter.join()

    virtual(root)


def test_an_interrupt_before_the_first_run_comes_at_the_first_checkpoint(virtual):
    def root():
        log = []

        def child():
            log.append("started")
            try:
                sleep(5)
            except Interrupted:
                log.append("interrupted")

        with ThreadGroup(max_concurrency=1) as g:

            def member():
                g.spawn(child).thread.interrupt()
                sleep(1)
                log.append("member")

            g.spawn(member)
        return log

    assert ["member", "started", "interrupted"] == virtual(root)


def test_cancelling_a_thread_cancels_what_it_runs(virtual):
    def root():
        with ThreadGroup() as g:

            def child():
                with ThreadGroup() as inner:
                    inner.spawn(sleep, 5)

            future = g.spawn(child)
            future.thread.cancel()
        return future.cancelled(), vthreads.now()

    assert (True, 0.0) == virtual(root)


def test_a_cancelled_thread_that_returns_has_a_result(virtual):
    def root():
        def child():
            try:
                sleep(5)
            except Cancelled:
                return "tidy"

        with ThreadGroup() as g:
            future = g.spawn(child)
            future.thread.cancel()
        return future.cancelled(), future.result()

    assert (False, "tidy") == virtual(root)


def test_a_cancelled_thread_that_fails_has_failed(virtual):
    def root():
        def child():
            try:
                sleep(5)
            finally:
                raise KeyError

        with ThreadGroup(on_failure="continue") as g:
            future = g.spawn(child)
            future.thread.cancel()
            return type(future.exception())

    assert KeyError is virtual(root)


# --- stack


def parked_here():
    sleep(5)


def test_the_stack_of_a_parked_thread_is_the_users_code(virtual):
    def root():
        def outer():
            parked_here()

        with ThreadGroup() as g:
            thread = g.spawn(outer).thread
            return thread.stack()

    stack = virtual(root)
    assert ["outer", "parked_here"] == [frame.name for frame in stack]
    assert parked_here.__code__.co_firstlineno + 1 == stack[-1].lineno
    assert "sleep(5)" == stack[-1].line


def test_the_stack_of_the_running_thread_ends_where_it_asks(virtual):
    def root():
        with ThreadGroup() as g:
            return g.spawn(lambda: vthreads.current_thread().stack()).result()

    assert ["<lambda>"] == [frame.name for frame in virtual(root)]


def test_a_thread_that_has_not_started_or_has_ended_has_no_stack(virtual):
    def root():
        with ThreadGroup(max_concurrency=1) as g:

            def member():
                queued = g.spawn(sleep, 1).thread
                return len(queued.stack()), queued

            before, thread = g.spawn(member).result()
            thread.join()
            return before, len(thread.stack())

    assert (0, 0) == virtual(root)


# --- spawn sites


def test_a_failure_says_where_its_thread_was_spawned_up_to_the_root(virtual):
    def failing():
        raise KeyError("broken")

    def middle():
        with ThreadGroup("inner") as inner:
            inner.spawn(failing).thread.name = "deep"

    def root():
        with ThreadGroup("outer") as g:
            g.spawn(middle)

    with pytest.raises(ExceptionGroup) as caught:
        virtual(root)
    (inner,) = caught.value.exceptions
    (failure,) = inner.exceptions
    (note,) = failure.__notes__
    assert "of group 'inner', spawned at" in note
    assert "in test_a_failure_says_where_its_thread_was_spawned_up_to_the_root.<locals>.middle" in note
    assert "whose spawner was spawned at" in note
    assert "in test_a_failure_says_where_its_thread_was_spawned_up_to_the_root.<locals>.root" in note
    assert f"line {middle.__code__.co_firstlineno + 2}, in" in note
    assert 1 == len(inner.__notes__)


@pytest.mark.parametrize("name", [None, 3, b"vthreads", "", "vthreads_tools", "\ud800"])
@pytest.mark.parametrize("limit", [None, 1])
def test_a_spawn_site_is_in_code_with_any_name_of_its_module(virtual, name, limit):
    namespace = {"__name__": name}
    exec(compile("def spawn_there(spawn, *call):\n    return spawn(*call)", "there.py", "exec"), namespace)
    spawn_there = namespace["spawn_there"]

    def failing():
        raise KeyError("broken")

    def root():
        background = ThreadGroup.current
        with ThreadGroup(max_concurrency=limit, on_failure="continue") as g:
            future = spawn_there(background.spawn, spawn_there, g.spawn, failing)
            return future.result().exception()

    (note,) = virtual(root).__notes__
    assert 2 == note.count('File "there.py", line 2, in spawn_there')


def test_the_chain_of_spawners_that_is_kept_is_bounded(virtual):
    def root():
        def respawn(depth):
            if depth == 0:
                raise KeyError
            ThreadGroup.current.spawn(respawn, depth - 1)

        with ThreadGroup() as g:
            g.spawn(respawn, 40)

    with pytest.raises(ExceptionGroup) as caught:
        virtual(root)
    (note,) = caught.value.exceptions[0].__notes__
    assert 16 == note.count("File ")
    assert "earlier spawners are not kept" in note


def test_the_traceback_of_a_failure_is_the_users_code(virtual):
    def failing():
        raise KeyError("broken")

    def root():
        with ThreadGroup() as g:
            g.spawn(failing)

    with pytest.raises(ExceptionGroup) as caught:
        virtual(root)
    traceback = caught.value.exceptions[0].__traceback__
    assert "failing" == traceback.tb_frame.f_code.co_name
    assert traceback.tb_next is None
