"""What each poller must do, and the descriptors that the scheduler keeps for it."""

import os
import select
import socket
import threading
import typing
import weakref

import pytest

import vthreads
from vthreads import ThreadGroup, sleep
from vthreads._core.engine import CLOSED, READ, TIMED_OUT, WRITE, make_poller
from vthreads._core.engine.pollers import POLLERS

pytestmark = pytest.mark.unpatched


def scheduler_here():
    return vthreads.current_thread()._scheduler


def wait_for(fd, direction, timeout=None):
    """Park until `fd`, known by its number alone, is ready."""
    me = vthreads.current_thread()
    descriptors = me._scheduler.descriptors
    entry = descriptors.borrow(fd)
    if entry.always_ready:
        return True
    me._check()
    descriptors.enlist(entry, direction, me, by_number=True)
    try:
        return me._park(lambda: True, timeout)
    finally:
        descriptors.withdraw(entry, direction, me)


@pytest.fixture(params=POLLERS)
def poller(request):
    return request.param


@pytest.fixture(params=["pipe", "socketpair"])
def pair(request):
    """Two descriptors: what is written to the second is read from the first."""
    if request.param == "pipe":
        receiving, sending = os.pipe()
        yield receiving, sending
        for fd in (receiving, sending):
            try:
                os.close(fd)
            except OSError:
                pass  # the test closed it
    else:
        left, right = socket.socketpair()
        yield left.fileno(), right.fileno()
        left.close()
        right.close()


def test_a_reader_waits_until_there_is_something(virtual, poller, pair):
    receiving, sending = pair

    def root():
        log = []

        def reader():
            for _ in range(3):
                log.append(wait_for(receiving, READ))
                log.append(os.read(receiving, 10))

        with ThreadGroup() as g:
            g.spawn(reader)
            for text in (b"a", b"b", b"c"):
                sleep(1)
                log.append("writing")
                os.write(sending, text)
        return log

    assert ["writing", True, b"a", "writing", True, b"b", "writing", True, b"c"] == virtual(root, poller=poller)


def test_a_descriptor_that_is_ready_already_is_reported(virtual, poller, pair):
    receiving, sending = pair
    os.write(sending, b"x")
    assert (True, True) == virtual(lambda: (wait_for(receiving, READ), wait_for(receiving, READ)), poller=poller)


def test_a_writer_waits_until_there_is_room(virtual, poller, pair):
    receiving, sending = pair
    os.set_blocking(sending, False)
    filled = 0
    while True:
        try:
            filled += os.write(sending, b"x" * 65_536)
        except BlockingIOError:
            break

    def root():
        log = []

        def writer():
            wait_for(sending, WRITE)
            log.append("room")

        with ThreadGroup() as g:
            g.spawn(writer)
            sleep(1)
            log.append("reading")
            left = filled
            while left:
                left -= len(os.read(receiving, left))
        return log

    assert ["reading", "room"] == virtual(root, poller=poller)


def test_both_directions_of_a_socket_are_waited_for_apart(virtual, poller):
    left, right = socket.socketpair()

    def root():
        log = []
        with ThreadGroup() as g:
            g.spawn(lambda: (wait_for(left.fileno(), READ), log.append("readable")))
            g.spawn(lambda: (wait_for(left.fileno(), WRITE), log.append("writable")))
            sleep(1)
            right.send(b"x")
        return log

    with left, right:
        assert ["writable", "readable"] == virtual(root, poller=poller)


def test_all_readers_of_a_descriptor_are_woken(virtual, poller, pair):
    receiving, sending = pair

    def root():
        with ThreadGroup() as g:
            futures = [g.spawn(wait_for, receiving, READ) for _ in range(3)]
            os.write(sending, b"x")
        return [future.result() for future in futures]

    assert [True] * 3 == virtual(root, poller=poller)


def test_the_end_of_the_stream_wakes_the_reader(virtual, poller):
    def root():
        receiving, sending = os.pipe()
        with ThreadGroup() as g:
            g.spawn(wait_for, receiving, READ)
            sleep(1)
            os.close(sending)
        end = os.read(receiving, 1)
        os.close(receiving)
        return end

    assert b"" == virtual(root, poller=poller)


def test_a_wait_for_a_descriptor_times_out_and_is_forgotten(virtual, poller, pair):
    def root():
        return wait_for(pair[0], READ, 2), vthreads.now()

    assert (TIMED_OUT, 2.0) == virtual(root, poller=poller)


def test_a_cancelled_wait_for_a_descriptor_is_forgotten(virtual, poller, pair):
    receiving, sending = pair

    def root():
        with vthreads.move_on_after(1):
            wait_for(receiving, READ)
        os.write(sending, b"x")
        return wait_for(receiving, READ)

    assert virtual(root, poller=poller) is True


def test_forgetting_a_descriptor_tells_those_who_wait(virtual, poller, pair):
    receiving, _ = pair

    def root():
        with ThreadGroup() as g:
            future = g.spawn(wait_for, receiving, READ)
            scheduler_here().descriptors.forget(receiving)
        return future.result()

    assert CLOSED is virtual(root, poller=poller)


def test_a_number_given_out_again_belongs_to_its_new_owner(virtual, poller):
    class Opener:
        pass

    def wait_as_owner(owner, fd):
        me = vthreads.current_thread()
        descriptors = me._scheduler.descriptors
        entry = descriptors.claim(fd, weakref.ref(owner))
        descriptors.enlist(entry, READ, me, by_number=False)
        try:
            return me._park(lambda: True)
        finally:
            descriptors.withdraw(entry, READ, me)

    def root():
        first, second = Opener(), Opener()
        receiving, sending = os.pipe()
        with ThreadGroup() as g:
            stale = g.spawn(wait_as_owner, first, receiving)
            # Closed behind the scheduler's back; the lowest free number is given out again.
            os.close(receiving)
            new_receiving, new_sending = os.pipe()
            assert new_receiving == receiving
            fresh = g.spawn(wait_as_owner, second, new_receiving)
            os.write(new_sending, b"x")
        scheduler_here().descriptors.forget(new_receiving)
        for fd in (sending, new_receiving, new_sending):
            os.close(fd)
        return stale.result(), fresh.result()

    assert (CLOSED, True) == virtual(root, poller=poller)


def test_a_regular_file_is_always_ready(virtual, poller, tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"text")

    def root():
        with path.open("rb") as file:
            entry = scheduler_here().descriptors.borrow(file.fileno())
            answers = entry.always_ready, wait_for(file.fileno(), READ)
            scheduler_here().descriptors.forget(file.fileno())
        return answers

    assert (True, True) == virtual(root, poller=poller)


def test_a_closed_descriptor_is_refused(virtual, poller):
    def root():
        receiving, sending = os.pipe()
        os.close(receiving)
        os.close(sending)
        with pytest.raises(OSError, match="Bad file descriptor"):
            wait_for(receiving, READ)

    virtual(root, poller=poller)


def test_select_refuses_a_number_that_is_too_high_for_it(virtual):
    import fcntl

    low = os.open("/dev/zero", os.O_RDONLY)
    high = fcntl.fcntl(low, fcntl.F_DUPFD, 1_024)

    def root():
        with pytest.raises(ValueError, match="out of range"):
            wait_for(high, READ)
        return "alive"

    try:
        assert "alive" == virtual(root, poller="select")
    finally:
        os.close(low)
        os.close(high)


def test_an_unknown_poller_is_refused_with_the_names_of_those_there_are():
    with pytest.raises(ValueError, match=r"no poller named 'kqueen'.*poll"):
        vthreads.run(lambda: None, poller="kqueen", patch=False)


def test_the_best_poller_of_linux_is_epoll():
    best = make_poller()
    best.close()
    assert ("epoll" if hasattr(select, "epoll") else best.name) == best.name


def test_interrupting_a_poller_many_times_neither_blocks_nor_is_remembered(poller):
    waiting = make_poller(poller)
    try:
        for _ in range(100_000):
            waiting.interrupt()
        assert [] == waiting.wait(None)
        assert [] == waiting.wait(0)
    finally:
        waiting.close()


def test_threads_that_start_one_from_the_other_begin_with_the_same_recursion_depth(virtual):
    # Spawned by an OS thread, they are not started by their spawner but each by whichever parked before.
    def recurse(n):
        return 0 if n == 0 else 1 + recurse(n - 1)

    def root():
        def child():
            sleep(0)
            return recurse(500)

        with ThreadGroup() as g:
            os_thread = threading.Thread(target=lambda: [futures.append(g.spawn(child)) for _ in range(1_000)])
            os_thread.start()
            os_thread.join()
        return {future.result() for future in futures}

    futures = []
    assert {500} == virtual(root)


def test_run_names_each_poller():
    annotation = typing.get_type_hints(vthreads.run)["poller"]
    names = {name for part in typing.get_args(annotation) for name in typing.get_args(part)}
    assert POLLERS.keys() <= names, "add it to the annotation of `poller` of `run`"
    assert [] == [name for name in POLLERS if f'"{name}"' not in vthreads.run.__doc__]


@pytest.mark.parametrize("poller", POLLERS)
def test_a_ready_descriptor_is_seen_while_two_threads_keep_the_carrier_busy(virtual, poller):
    def root():
        turns = 0

        def player():
            nonlocal turns
            for _ in range(1_000):
                turns += 1
                sleep(0)

        def reader(fd):
            wait_for(fd, READ)
            return turns

        receiving, sending = os.pipe()
        with ThreadGroup() as g:
            future = g.spawn(reader, receiving)
            os.write(sending, b"x")
            g.spawn(player)
            g.spawn(player)
        os.close(receiving)
        os.close(sending)
        return future.result()

    assert virtual(root, poller=poller) <= 130
