"""Random programs over scopes, shields and threads, compared at each step with a simple model of the rules.

Without cleanup grace the rule is simple: a checkpoint raises `Cancelled` if and only if some cancelled scope around it
is not hidden by a shield.
"""

import pytest
from hypothesis import given
from hypothesis import strategies as st

import vthreads
from vthreads import CancelScope, ThreadGroup, shield, sleep
from vthreads._core.deadlock import threads_below
from vthreads.errors import Cancelled
from vthreads.testing import SeededOrder, VirtualClock

# Five hundred programs take some seconds, and more where others use the machine.
pytestmark = [pytest.mark.timeout(300), pytest.mark.unpatched]

# Small on purpose: the calls have to collide.
which = st.integers(0, 3)
seconds = st.integers(0, 2)
leaf = st.one_of(
    st.just(("check",)),
    st.tuples(st.just("sleep"), seconds),
    st.tuples(st.just("cancel"), which),
    st.tuples(st.just("cancel_thread"), which),
    st.tuples(st.just("set_shield"), which, st.booleans()),
    st.tuples(st.just("set_deadline"), which, seconds),
)


def nested(steps):
    block = st.lists(steps, max_size=4)
    return st.one_of(
        st.tuples(st.just("scope"), st.booleans(), st.none() | seconds, block),
        st.tuples(st.just("shield"), st.none() | seconds, block),
        st.tuples(st.just("swallow"), block),
        st.tuples(st.just("spawn"), block),
        st.tuples(st.just("group"), block),
    )


programs = st.lists(st.recursive(leaf, nested, max_leaves=12), max_size=6)


def affecting(node):
    """By which cancelled node `node` is affected, worked out from scratch."""
    found, hidden = None, False
    while node is not None and not hidden:
        if node._cancel_called:
            found = node
        hidden = node._shielded()
        node = node._parent
    return found


def check_tree():
    scheduler = vthreads.current_thread()._scheduler
    nodes = [scheduler.root, scheduler.background._scope]
    while nodes:
        node = nodes.pop()
        assert affecting(node) is node._affected_by, node
        for child in node._nodes_below():
            assert child._parent is node
            nodes.append(child)
    for thread in threads_below(scheduler):
        assert thread._pending or affecting(thread._innermost) is None, thread


class Program:
    """An interpreter; `scopes` and `threads` are those that steps refer to by number."""

    def __init__(self):
        self.scopes = []
        self.threads = []

    def run(self, steps):
        for name, *arguments in steps:
            check_tree()
            getattr(self, name)(*arguments)
            check_tree()

    def check(self):
        self.checkpoint(vthreads.checkpoint)

    def sleep(self, seconds):
        self.checkpoint(sleep, seconds)

    def checkpoint(self, call, *arguments):
        innermost = vthreads.current_thread()._innermost
        due = affecting(innermost) is not None
        try:
            call(*arguments)
        except Cancelled:
            assert due or affecting(innermost) is not None
            raise
        assert not due
        # A cancellation during the wait is raised as well, unless the wait had ended before.

    def cancel(self, number):
        if self.scopes:
            self.scopes[number % len(self.scopes)].cancel()

    def cancel_thread(self, number):
        if self.threads:
            self.threads[number % len(self.threads)].cancel()

    def set_shield(self, number, on):
        # Only the thread inside sets it: a shield cannot hide a cancellation that was already delivered.
        own = [scope for scope in self.scopes if scope._thread_inside() is vthreads.current_thread()]
        if own:
            own[number % len(own)].shield = on

    def set_deadline(self, number, seconds):
        if self.scopes:
            self.scopes[number % len(self.scopes)].deadline = vthreads.now() + seconds

    def scope(self, shielded, seconds, block):
        deadline = None if seconds is None else vthreads.now() + seconds
        scope = CancelScope(deadline, shield=shielded)
        self.enter(scope, block)

    def shield(self, seconds, block):
        self.enter(shield(seconds), block)

    def enter(self, scope, block):
        with scope:
            self.scopes.append(scope)
            self.run(block)
        self.scopes.remove(scope)

    def swallow(self, block):
        try:
            self.run(block)
        except Cancelled:
            pass

    def spawn(self, block):
        group = ThreadGroup.current
        if group.name != "background" and group._why_over() is None:
            self.threads.append(group.spawn(self.run, block).thread)

    def group(self, block):
        with ThreadGroup() as g:
            self.scopes.append(g._scope)
            self.run(block)
        self.scopes.remove(g._scope)


@given(program=programs, seed=st.integers(0, 3))
def test_every_checkpoint_raises_if_and_only_if_a_scope_around_it_is_cancelled(program, seed):
    def root():
        scheduler = vthreads.current_thread()._scheduler
        with CancelScope(cleanup_grace=0):
            Program().group(program)
        check_tree()
        assert 0 == len(scheduler.timers)
        assert scheduler.root._innermost is scheduler.root
        assert [scheduler.root] == list(threads_below(scheduler))

    vthreads.run(root, clock=VirtualClock(), order=SeededOrder(seed), patch=False)
