"""Each cell of the table of delivery has a program that gets into that state and condition, and sees that action."""

import signal

import pytest

import vthreads
from vthreads import (
    Cancelled,
    CancelScope,
    Condition,
    Interrupted,
    ThreadGroup,
    checkpoint,
    current_thread,
    now,
    shield,
    sleep,
)
from vthreads._core import delivery_table
from vthreads._core.delivery_table import ACTIONS, Action, Pending

pytestmark = pytest.mark.unpatched

GRACE = 10.0
# Longer than the grace.
LONG = 100.0
# After these seconds of a wait, what is pending arrives.
LATER = 1.0

FREE, SHIELDED, HURRIED, NOT_RUN, DEFERRED = delivery_table.Condition


# --- getting into a state


def press():
    """Press Ctrl-C. Not to be called by the root, in which it would be raised at once."""
    signal.raise_signal(signal.SIGINT)


def nothing(thread, scope):
    pass


def first_ctrl_c(thread, scope):
    vthreads.spawn(press)


def interrupt(thread, scope):
    # Behind an older Ctrl-C, which only the root gets: so it shows which of the two is raised.
    vthreads.spawn(press)
    thread.interrupt()


def interrupt_alone(thread, scope):
    thread.interrupt()


def cancel(thread, scope):
    scope.cancel()


def cancel_and_interrupt(thread, scope):
    thread.interrupt()
    scope.cancel()


# What has to arrive for a state; those in cleanup are in it by then.
ARRIVALS = {
    Pending.NOTHING: nothing,
    Pending.POLITE: first_ctrl_c,
    Pending.PLAIN: interrupt,
    Pending.CANCELLED: cancel,
    Pending.CANCELLED_AND_INTERRUPTED: cancel_and_interrupt,
    Pending.CLEANUP: nothing,
    Pending.CLEANUP_AND_POLITE: first_ctrl_c,
    Pending.CLEANUP_AND_PLAIN: interrupt,
}
CLEANUP = {Pending.CLEANUP, Pending.CLEANUP_AND_POLITE, Pending.CLEANUP_AND_PLAIN}
# Only the root gets Ctrl-C, so it is the thread of these.
WITH_CTRL_C = {Pending.POLITE, Pending.PLAIN, Pending.CLEANUP_AND_POLITE, Pending.CLEANUP_AND_PLAIN}


def in_state(pending, body):
    """Call `body(scope)` where what has to arrive for `pending` completes the state."""
    with CancelScope(cleanup_grace=GRACE) as scope:
        if pending not in CLEANUP:
            return body(scope)
        scope.cancel()
        try:
            checkpoint()
        except Cancelled:
            return body(scope)


# --- seeing an action


def action_of(wait, latest_at_once):
    """Wait, and tell what came of it; what ends the wait by `latest_at_once` seconds has not waited for the grace."""
    started = now()
    try:
        wait()
    except Cancelled:
        return Action.CANCEL if now() - started <= latest_at_once else Action.WAIT
    except KeyboardInterrupt:
        return Action.OLDEST
    except Interrupted:
        return Action.PLAIN
    return Action.NOTHING


def action_in_sleep(arrive, scope, when):
    """Sleep, while what is pending arrives: before the checkpoint, or when the thread is parked in it."""
    thread = current_thread()

    def later():
        sleep(LATER)
        arrive(thread, scope)

    if when == "before":
        arrive(thread, scope)
    else:
        vthreads.spawn(later)
    return action_of(lambda: sleep(LONG), LATER)


def drain():
    """Take what is pending still, after the scopes and shields."""
    while action_of(checkpoint, 0) is not Action.NOTHING:
        pass


def with_ctrl_c_ignored(call):
    """The result of `call`, which waits and may be called again."""
    while True:
        try:
            return call()
        except KeyboardInterrupt:
            pass


# --- getting into a condition


def in_plain_code(pending, when):
    return in_state(pending, lambda scope: action_in_sleep(ARRIVALS[pending], scope, when))


def in_shield(pending, when):
    with shield(None):
        return in_plain_code(pending, when)


def after_second_ctrl_c(pending, when):
    def arrive_on_root(thread, scope):
        # The first one is part of these states.
        ARRIVALS[pending](thread, scope)
        vthreads.spawn(press)

    def arrive_elsewhere(thread, scope):
        for _ in range(2):
            vthreads.spawn(press)
        ARRIVALS[pending](thread, scope)

    if pending in WITH_CTRL_C:
        with shield(None):
            return in_state(pending, lambda scope: action_in_sleep(arrive_on_root, scope, when))
    member = vthreads.spawn(lambda: in_state(pending, lambda scope: action_in_sleep(arrive_elsewhere, scope, when)))
    return with_ctrl_c_ignored(member.result)


def before_first_run(pending, when):
    """A member of a full group is queued until there is room."""
    arrive, ran = {**ARRIVALS, Pending.PLAIN: interrupt_alone}[pending], []

    def runs():
        ran.append(True)

    def full(group):
        future = group.spawn(runs)
        if when == "parked":
            sleep(LATER)
        arrive(future.thread, future)
        sleep(LATER)
        return future.done()

    with ThreadGroup(max_concurrency=1) as group:
        ended_in_the_queue = group.spawn(full, group)
    assert ended_in_the_queue.result() is not bool(ran)
    return Action.NOTHING if ran else Action.CANCEL


def in_a_call_that_gives_back(pending, when):
    """A wait for a condition that has been notified takes the lock again, which is given back at last."""
    condition = Condition()

    def notify(thread, scope):
        with condition:
            condition.notify()
            if when == "parked":
                sleep(LATER)
            ARRIVALS[pending](thread, scope)
            sleep(LONG)

    def waits(scope):
        with condition:
            vthreads.spawn(notify, current_thread(), scope)
            return action_of(condition.wait, LATER)

    return in_state(pending, waits)


PROGRAMS = {
    FREE: in_plain_code,
    SHIELDED: in_shield,
    HURRIED: after_second_ctrl_c,
    NOT_RUN: before_first_run,
    DEFERRED: in_a_call_that_gives_back,
}

CELLS = [
    pytest.param(pending, condition, action, id=f"{pending.name}-{condition.name}")
    for pending, row in ACTIONS.items()
    for condition, action in row.items()
    if action is not Action.NEVER
]


@pytest.mark.parametrize("when", ["before", "parked"])
@pytest.mark.parametrize(("pending", "condition", "action"), CELLS)
def test_a_checkpoint_does_what_the_table_says(virtual, pending, condition, action, when):
    def root():
        seen = PROGRAMS[condition](pending, when)
        drain()
        return seen

    assert action == virtual(root)


def test_each_row_and_each_column_has_its_program():
    assert list(Pending) == list(ACTIONS) == list(ARRIVALS)
    assert list(delivery_table.Condition) == list(PROGRAMS)
    assert all(list(delivery_table.Condition) == list(row) for row in ACTIONS.values())
