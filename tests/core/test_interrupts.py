"""Interrupts: an exception that another thread or a signal handler raises in a virtual thread."""

import signal

import pytest

import vthreads
from tests.core.outcomes import outcome
from vthreads import CancelScope, ThreadGroup, checkpoint, shield, sleep
from vthreads.errors import Cancelled, Interrupted

pytestmark = pytest.mark.unpatched


def test_an_interrupt_is_raised_once_and_may_be_handled(virtual):
    def root():
        def child():
            log = [outcome(sleep, 10)]
            sleep(1)
            return log, vthreads.now()

        with ThreadGroup() as g:
            future = g.spawn(child)
            assert future.thread.interrupt()
        return future.result()

    assert ([Interrupted], 1.0) == virtual(root)


def test_an_interrupt_that_finds_no_checkpoint_comes_at_the_next_one(virtual):
    def root():
        vthreads.current_thread().interrupt(KeyError("mine"))
        with pytest.raises(KeyError, match="mine"):
            checkpoint()
        checkpoint()

    virtual(root)


def test_a_pending_cancellation_comes_before_an_interrupt(virtual):
    def root():
        me = vthreads.current_thread()
        with CancelScope() as scope:
            me.interrupt()
            scope.cancel()
            first = outcome(checkpoint)
        return first, outcome(checkpoint), outcome(checkpoint)

    assert (Cancelled, Interrupted, None) == virtual(root)


def test_interrupts_come_in_their_order(virtual):
    def root():
        me = vthreads.current_thread()
        me.interrupt(KeyError)
        me.interrupt(IndexError)
        return outcome(checkpoint), outcome(checkpoint), outcome(checkpoint)

    assert (KeyError, IndexError, None) == virtual(root)


def test_an_interrupt_passes_a_shield(virtual):
    def root():
        vthreads.current_thread().interrupt()
        with shield(None):
            return outcome(sleep, 1)

    assert Interrupted is virtual(root)


def test_an_interrupt_reaches_cleanup(virtual):
    def root():
        log = []

        def child():
            try:
                sleep(10)
            finally:
                log.append(outcome(sleep, 1))

        with ThreadGroup() as g:
            future = g.spawn(child)
            future.cancel()
            sleep(0)
            future.thread.interrupt()
        return log

    assert [Interrupted] == virtual(root)


def test_the_first_ctrl_c_waits_for_cleanup_that_has_met_no_checkpoint_yet(virtual):
    def root():
        log = []
        with CancelScope() as scope:
            scope.cancel()
            try:
                checkpoint()
            finally:
                signal.raise_signal(signal.SIGINT)
                log.append(outcome(sleep, 1))
        return [*log, outcome(checkpoint)]

    assert [None, KeyboardInterrupt] == virtual(root)


def test_an_interrupt_does_not_wait_behind_a_first_ctrl_c_that_waits(virtual):
    def root():
        with shield(None):
            vthreads.spawn(lambda: signal.raise_signal(signal.SIGINT))
            vthreads.current_thread().interrupt()
            log = [outcome(checkpoint), outcome(checkpoint)]
        return [*log, outcome(checkpoint)]

    assert [Interrupted, None, KeyboardInterrupt] == virtual(root)
