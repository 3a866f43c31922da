"""Random trees of groups with failures, cancels, deadlines, shields and interrupts, in random orders.

Whatever happens: no thread outlives its group, what comes out of a group is what was thrown in it, a group that is over
takes nobody, and nothing is left behind.
"""

import threading

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

import vthreads
from vthreads import ThreadGroup, move_on_after, shield, sleep
from vthreads._core.deadlock import threads_below
from vthreads.errors import Cancelled, GroupClosed
from vthreads.testing import SeededOrder, VirtualClock

# Five hundred programs take some seconds, and more where others use the machine.
pytestmark = [pytest.mark.timeout(300), pytest.mark.unpatched]

# Small on purpose: the calls have to collide.
which = st.integers(0, 3)
seconds = st.integers(0, 3)
leaf = st.one_of(
    st.tuples(st.just("sleep"), seconds),
    st.just(("fail",)),
    st.tuples(st.just("cancel_group"), which),
    st.tuples(st.just("close_group"), which),
    st.tuples(st.just("shut_down_group"), which, st.none() | seconds),
    st.tuples(st.just("cancel_thread"), which),
    st.tuples(st.just("interrupt_thread"), which),
    st.tuples(st.just("wait_for_thread"), which),
)


def nested(steps):
    block = st.lists(steps, max_size=4)
    return st.one_of(
        st.tuples(st.just("spawn"), which, block),
        st.tuples(st.just("spawn"), which, block),
        st.tuples(
            st.just("group"), st.none() | st.integers(1, 2), st.sampled_from(["cancel", "continue", "report"]), block
        ),
        st.tuples(st.just("time_limit"), seconds, block),
        st.tuples(st.just("shielded"), st.none() | seconds, block),
        st.tuples(st.just("cleaning_up"), block, block),
    )


# The failures that were passed to `threading.excepthook` in the running program, by identity.
reported = {}


@pytest.fixture(autouse=True)
def reports(monkeypatch):
    monkeypatch.setattr(threading, "excepthook", lambda details: reported.update({id(details.exc_value): details}))
    yield
    reported.clear()


programs = st.lists(st.recursive(leaf, nested, max_leaves=15), max_size=6)


class Thrown(Exception):
    pass


class Program:
    """An interpreter; groups and threads are referred to by number."""

    def __init__(self):
        self.groups = []
        self.futures = []
        # By group: the futures of its members.
        self.members = {}
        # How many permits each bounded group has when all is over.
        self.permits = {}
        # Exceptions that were sent to threads, by identity.
        self.interrupts = {}

    def run(self, steps):
        for name, *arguments in steps:
            getattr(self, name)(*arguments)

    def sleep(self, seconds):
        sleep(seconds)

    def fail(self):
        raise Thrown

    def some(self, things, number):
        return things[number % len(things)] if things else None

    def cancel_group(self, number):
        group = self.some(self.groups, number)
        if group:
            group.cancel()

    def close_group(self, number):
        group = self.some(self.groups, number)
        if group:
            group.close()

    def shut_down_group(self, number, grace):
        group = self.some(self.groups, number)
        if group:
            group.shutdown(grace)

    def cancel_thread(self, number):
        future = self.some(self.futures, number)
        if future:
            assert future.cancel() is not future.done()

    def interrupt_thread(self, number):
        future = self.some(self.futures, number)
        if future:
            error = Thrown("interrupt")
            if future.thread.interrupt(error):
                self.interrupts[id(error)] = error

    def wait_for_thread(self, number):
        future = self.some(self.futures, number)
        if future and future.thread is not vthreads.current_thread():
            future.thread.join(1)

    def spawn(self, number, block):
        group = self.some(self.groups, number)
        if group is None:
            return
        over = group._why_over() is not None
        try:
            future = group.spawn(self.run, block)
        except GroupClosed:
            # It may have been closed while the call waited for a permit.
            assert group._why_over() is not None
            raise
        assert not over
        self.futures.append(future)
        self.members[group].append(future)

    def group(self, max_concurrency, on_failure, block):
        group = ThreadGroup(max_concurrency=max_concurrency, on_failure=on_failure)
        body_error = None
        try:
            with group:
                self.groups.append(group)
                self.members[group] = []
                if max_concurrency is not None:
                    self.permits[group] = max_concurrency
                try:
                    self.run(block)
                except BaseException as error:
                    body_error = error
                    raise
        except BaseExceptionGroup as raised:
            if raised is body_error:
                raise
            self.check_ended(group, body_error, list(raised.exceptions))
            raise
        except BaseException:
            self.check_ended(group, body_error, [])
            raise
        else:
            self.check_ended(group, body_error, [])

    def check_ended(self, group, body_error, raised):
        """Run right after the block."""
        self.groups.remove(group)
        assert 0 == len(group)
        assert all(future.done() and not future.thread.is_alive() for future in self.members[group])
        # No result was requested, so no failure was taken.
        thrown = [future.exception(0) for future in self.members[group] if not future.cancelled()]
        if group._on_failure == "report":
            # Each exception object is thrown by one member only.
            assert {id(error) for error in thrown if self.counts(error, group)} <= reported.keys()
            thrown = []
        thrown = [error for error in [*thrown, body_error] if self.counts(error, group)]
        expected, found = {id(error) for error in thrown}, {id(error) for error in raised}
        assert len(found) == len(raised)
        assert expected <= found
        # The rest was sent to the body while it waited for the members.
        assert found - expected <= self.interrupts.keys()
        if group in self.permits:
            # A thread that got the last member's permit releases it as soon as it runs.
            assert 0 == group._permits.statistics().waiting
        if found:
            assert group._on_failure != "cancel" or group._scope.cancel_called

    def counts(self, error, group):
        if error is None or isinstance(error, Cancelled):
            return False
        return not (isinstance(error, GroupClosed) and error.group is group)

    def time_limit(self, seconds, block):
        with move_on_after(seconds):
            self.run(block)

    def shielded(self, seconds, block):
        with shield(seconds):
            self.run(block)

    def cleaning_up(self, block, cleanup):
        try:
            self.run(block)
        finally:
            self.run(cleanup)


@given(program=programs, max_concurrency=st.none() | st.integers(1, 2), seed=st.integers(0, 3))
@example(
    program=[
        ("sleep", 0),
        ("spawn", 0, [("group", 1, "cancel", [("spawn", 1, [("sleep", 0)])])]),
        ("spawn", 1, []),
    ],
    max_concurrency=None,
    seed=1,
)
def test_what_comes_out_of_groups_is_what_was_thrown_in_them_and_nothing_is_left(program, max_concurrency, seed):
    def root():
        scheduler = vthreads.current_thread()._scheduler
        whole = Program()
        try:
            whole.group(max_concurrency, "cancel", program)
        except* (Thrown, GroupClosed, Cancelled):
            pass
        assert whole.permits == {group: group._permits.statistics().value for group in whole.permits}
        assert [scheduler.root] == list(threads_below(scheduler))
        assert scheduler.root._innermost is scheduler.root
        assert 0 == len(scheduler.timers)
        assert 0 == len(scheduler._ready)
        assert [] == scheduler._spawners

    vthreads.run(root, clock=VirtualClock(), order=SeededOrder(seed), patch=False)


@given(program=programs)
def test_the_same_seed_gives_the_same_run(program):
    def trace():
        log = []

        class Tracing(Program):
            def run(self, steps):
                for step in steps:
                    log.append((step[0], vthreads.now()))
                    super().run([step])

        def root():
            try:
                Tracing().group(None, "cancel", program)
            except* (Thrown, GroupClosed, Cancelled):
                pass
            return vthreads.now()

        return vthreads.run(root, clock=VirtualClock(), order=SeededOrder(1), patch=False), log

    assert trace() == trace()
