"""Requests to a carrier from another OS thread: slices between its switches, and a carrier that stops switching."""

from __future__ import annotations

import threading
from _thread import allocate_lock

import pytest

import vthreads
from vthreads.debug import _slices as inquiry
from vthreads.debug._slices import ask

pytestmark = [pytest.mark.real, pytest.mark.unpatched]


@pytest.fixture
def single_steps(monkeypatch):
    """Each slice is one step."""
    monkeypatch.setattr(inquiry, "SLICE", 0.0)


def asked_of(body, question, patience=30):
    """Return the answer that a plain OS thread gets from the carrier that runs `body(is_over)`."""
    heard = []

    def asking(scheduler):
        try:
            heard.append(ask(scheduler, question, patience))
        except ArithmeticError as error:
            heard.append(error)

    def root():
        os_thread = threading.Thread(target=asking, args=[vthreads.current_thread()._scheduler])
        os_thread.start()
        body(lambda: bool(heard))
        os_thread.join()

    vthreads.run(root, patch=False)
    return heard[0]


def test_every_ready_thread_runs_between_two_slices(single_steps):
    rounds = [0, 0]

    def turn(number, is_over):
        while not is_over():
            rounds[number] += 1
            vthreads.checkpoint()

    def body(is_over):
        with vthreads.ThreadGroup() as group:
            for number in range(2):
                group.spawn(turn, number, is_over)

    def question():
        seen = []
        for _ in range(20):
            seen.append(tuple(rounds))
            yield
        return seen

    seen, has_answered = asked_of(body, question)
    assert has_answered
    for column in zip(*seen, strict=True):
        assert 20 == len(set(column))


def test_an_idle_carrier_answers(single_steps):
    def question():
        for _ in range(20):
            yield
        return threading.get_ident()

    def body(is_over):
        while not is_over():
            vthreads.sleep(0.001)

    assert (threading.get_ident(), True) == asked_of(body, question)


def test_what_the_question_raises_is_raised_where_it_was_asked():
    def question():
        yield
        raise ArithmeticError("no answer")

    def body(is_over):
        while not is_over():
            vthreads.sleep(0.001)

    assert "no answer" == str(asked_of(body, question))


def test_a_carrier_that_stops_to_switch_is_read_from_outside_from_there_on(single_steps):
    on_carrier = threading.get_ident()
    is_half_way = allocate_lock()
    is_half_way.acquire()
    places = []

    def question():
        for number in range(10):
            places.append(threading.get_ident() == on_carrier)
            if number == 4:
                is_half_way.release()
            yield
        return "all"

    def body(is_over):
        while not is_half_way.acquire(False):
            vthreads.checkpoint()
        while not is_over():
            # It computes, and does not switch.
            pass

    assert ("all", False) == asked_of(body, question, patience=0.05)
    assert [True] * 5 == places[:5]
    assert not places[-1]
