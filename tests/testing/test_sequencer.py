"""`Sequencer`."""

import threading
from itertools import permutations

import pytest

from vthreads import CancelScope, ThreadGroup, move_on_after, sleep
from vthreads.testing import SeededOrder, Sequencer

pytestmark = pytest.mark.unpatched


@pytest.mark.parametrize("order", [None, SeededOrder(1), SeededOrder(2)])
@pytest.mark.parametrize("numbers", list(permutations(range(3))))
def test_blocks_run_in_the_order_of_their_numbers(numbers, order, virtual):
    def block(number):
        with sequencer(number):
            events.append(("in", number))
            sleep(1)
            events.append(("out", number))

    def root():
        with ThreadGroup() as g:
            for number in numbers:
                g.spawn(block, number)

    sequencer, events = Sequencer(), []
    virtual(root, order=order)
    assert [(event, number) for number in range(3) for event in ("in", "out")] == events


def test_one_thread_may_have_several_blocks(virtual):
    def root():
        with ThreadGroup() as g:

            @g.spawn
            def even():
                for number in (0, 2, 4):
                    with sequencer(number):
                        events.append(number)

            for number in (1, 3):
                with sequencer(number):
                    events.append(number)

    sequencer, events = Sequencer(), []
    virtual(root)
    assert [0, 1, 2, 3, 4] == events


def test_os_threads_take_part():
    def block(number):
        with sequencer(number):
            events.append(number)

    sequencer, events = Sequencer(), []
    os_threads = [threading.Thread(target=block, args=(number,)) for number in (2, 1, 0)]
    for os_thread in os_threads:
        os_thread.start()
    for os_thread in os_threads:
        os_thread.join()
    assert [0, 1, 2] == events


def test_a_number_is_used_once():
    sequencer = Sequencer()
    with sequencer(0):
        pass
    with pytest.raises(RuntimeError, match="number 0 already"), sequencer(0):
        pass
    with pytest.raises(ValueError, match="numbered from 0"), sequencer(-1):
        pass


def test_a_block_that_fails_lets_the_next_one_come():
    sequencer = Sequencer()
    with pytest.raises(ZeroDivisionError), sequencer(0):
        raise ZeroDivisionError
    with sequencer(1):
        pass


def test_a_wait_that_is_given_up_breaks_the_sequence(virtual):
    def block(number):
        with sequencer(number):
            events.append(number)

    def root():
        with ThreadGroup(on_failure="continue", errors="first") as g:
            later = g.spawn(block, 2)
            with move_on_after(1) as scope:
                block(1)
            assert scope.cancelled_caught
            with pytest.raises(RuntimeError, match="block 1 has failed"):
                later.result()
            with pytest.raises(RuntimeError, match="block 1 has failed"):
                block(0)

    sequencer, events = Sequencer(), []
    virtual(root)
    assert [] == events


def test_entering_is_a_checkpoint_and_leaving_is_none(virtual):
    def root():
        with CancelScope() as scope:
            with sequencer(0):
                scope.cancel()
            events.append("left")
            with sequencer(1):
                events.append("never")
        assert scope.cancelled_caught

    sequencer, events = Sequencer(), []
    virtual(root)
    assert ["left"] == events
