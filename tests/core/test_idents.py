"""Idents of virtual threads."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from vthreads._core import idents

pytestmark = pytest.mark.unpatched


@pytest.fixture
def anew(monkeypatch):
    """No number was given out yet, and each region has a few."""
    monkeypatch.setattr(idents, "_current", iter(()))
    monkeypatch.setattr(idents, "_regions", [])
    monkeypatch.setattr(idents, "SIZES", (idents.TAIL + 5 * idents.STEP,))


def test_numbers_go_on_in_another_region_when_one_is_used_up(anew):
    numbers = [idents.next_ident() for _ in range(12)]
    assert 12 == len(set(numbers))
    assert list(range(1, 13)) == [idents.serial_number(number) for number in numbers]
    assert all(map(idents.is_virtual_ident, numbers))


def test_os_threads_that_ask_at_once_get_different_numbers(anew):
    together = threading.Barrier(4)

    def take():
        together.wait()
        return [idents.next_ident() for _ in range(50)]

    with ThreadPoolExecutor(4) as pool:
        taken = [pool.submit(take) for _ in range(4)]
    assert 200 == len({number for numbers in taken for number in numbers.result()})


def test_what_is_no_virtual_thread_keeps_its_number(anew):
    assert threading.get_ident() == idents.serial_number(threading.get_ident())
    assert not idents.is_virtual_ident(threading.get_ident())


def test_without_memory_for_them_numbers_are_small(anew, monkeypatch):
    monkeypatch.setattr(idents, "SIZES", ())
    assert [1, 2, 3] == [idents.next_ident() for _ in range(3)]
