"""`check_nothing_leaked`."""

import os
import socket
import threading

import pytest

import vthreads
from vthreads import BoundedSemaphore, Lock, RLock, RwLock, Semaphore, ThreadGroup, move_on_after, sleep, spawn
from vthreads._core.placement import schedulers_beside
from vthreads.testing import LeakError, VirtualClock, check_nothing_leaked


def on_virtual_time(fn, *args, **options):
    return vthreads.run(fn, *args, clock=VirtualClock(), **options)


def leaks_of(fn, undo):
    """The report of the check for a block that calls `fn`; `undo` then takes it back."""

    def root():
        with pytest.raises(LeakError) as caught, check_nothing_leaked():
            things.append(fn())
        undo(things.pop())
        return caught.value.leaks

    things = []
    return on_virtual_time(root)


def entered(scope):
    scope.__enter__()
    return scope


def taken(thing):
    thing.acquire()
    return thing


def os_thread_waiting_for(event):
    os_thread = threading.Thread(target=event.wait, name="forgotten")
    os_thread.start()
    return os_thread, event


def let_end(os_thread_and_event):
    os_thread, event = os_thread_and_event
    event.set()
    os_thread.join()


def close_both(pair):
    for end in pair:
        end.close()


KINDS = {
    "virtual thread": (
        lambda: spawn(lambda: sleep(3)),
        lambda future: sleep(3),
        ["parked in sleep()", "test_leaks.py"],
    ),
    "scope": (
        lambda: entered(vthreads.CancelScope()),
        lambda scope: scope.__exit__(None, None, None),
        ["<CancelScope"],
    ),
    "timer": (lambda: entered(move_on_after(9)), lambda scope: scope.__exit__(None, None, None), ["due at 9"]),
    "Lock": (lambda: taken(Lock()), Lock.release, ["<Lock locked", "not released"]),
    "RLock": (lambda: taken(RLock()), RLock.release, ["<RLock locked", "not released"]),
    "threading.Lock": (lambda: taken(threading.Lock()), lambda lock: lock.release(), ["locked", "not released"]),
    "threading.RLock": (lambda: taken(threading.RLock()), lambda lock: lock.release(), ["locked", "not released"]),
    "Semaphore": (lambda: taken(Semaphore(2)), Semaphore.release, ["permits", "value=1"]),
    "BoundedSemaphore": (lambda: taken(BoundedSemaphore(2)), lambda s: s.release(), ["permits", "value=1"]),
    "threading.BoundedSemaphore": (
        lambda: taken(threading.BoundedSemaphore()),
        lambda semaphore: semaphore.release(),
        ["permits of <threading.BoundedSemaphore"],
    ),
    "RwLock": (lambda: entered(RwLock(0).read()), lambda access: access.__exit__(None, None, None), ["<RwLock"]),
    "descriptor": (lambda: os.open("/dev/null", os.O_RDONLY), os.close, ["/dev/null"]),
    "sockets": (socket.socketpair, close_both, ["socket:"]),
    "OS thread": (lambda: os_thread_waiting_for(threading.Event()), let_end, ["OS thread", "forgotten"]),
}


@pytest.mark.parametrize(("leak", "undo", "told"), KINDS.values(), ids=KINDS)
def test_what_is_left_behind_is_named(leak, undo, told):
    leaks = "\n".join(leaks_of(leak, undo))
    assert [] == [words for words in told if words not in leaks], leaks


def test_a_leaked_thread_is_told_with_its_spawn_sites():
    def grandchild():
        sleep(3)

    def child():
        spawn(grandchild)

    leaks = leaks_of(lambda: spawn(child), lambda future: sleep(3))
    assert 1 == len(leaks)
    assert "in test_a_leaked_thread_is_told_with_its_spawn_sites.<locals>.child" in leaks[0]
    assert "whose spawner was spawned at" in leaks[0]


@pytest.mark.parametrize("kind", [Semaphore, threading.Semaphore])
def test_permits_of_a_semaphore_that_was_there_before(kind):
    def root():
        semaphore = kind(3)
        semaphore.acquire()
        with check_nothing_leaked():
            semaphore.acquire()
            semaphore.release()
        with pytest.raises(LeakError, match="permits"), check_nothing_leaked():
            semaphore.acquire()

    on_virtual_time(root)


def test_a_waiter_that_has_ended():
    def root():
        lock = Lock()
        ended = spawn(lambda: None).thread
        with pytest.raises(LeakError, match="waiters that have ended"), check_nothing_leaked():
            lock._waiting.add(ended)

    on_virtual_time(root)


def test_what_was_there_before_is_no_leak():
    def root():
        held = Lock()
        held.acquire()
        here, there = socket.socketpair()
        with here, there, move_on_after(60), ThreadGroup() as g:
            g.spawn(sleep, 5)
            with check_nothing_leaked():
                sleep(1)

    on_virtual_time(root)


def test_work_that_cleans_up_leaves_nothing():
    def root():
        with check_nothing_leaked():
            with ThreadGroup(max_concurrency=2) as g:
                for _ in range(5):
                    g.spawn(sleep, 1)
            here, there = socket.socketpair()
            with here, there:
                here.sendall(b"x")
                assert b"x" == there.recv(1)
            vthreads.offload(lambda: None)
            os_thread = threading.Thread(target=lambda: None)
            os_thread.start()
            os_thread.join()

    on_virtual_time(root)


def test_a_failure_comes_out_with_a_note():
    def root():
        with pytest.raises(ZeroDivisionError) as caught, check_nothing_leaked():
            lock.acquire()
            raise ZeroDivisionError
        lock.release()
        return caught.value.__notes__

    lock = Lock()
    (note,) = on_virtual_time(root)
    assert "1 thing was left behind" in note
    assert "<Lock locked" in note


def test_garbage_is_not_left_behind():
    class Cycle:
        def __init__(self):
            self.me = self
            self.fd = os.open("/dev/null", os.O_RDONLY)

        def __del__(self):
            os.close(self.fd)

    def root():
        with check_nothing_leaked():
            Cycle()

    on_virtual_time(root)


def test_around_a_whole_runtime_and_one_that_starts_by_itself():
    with check_nothing_leaked():
        on_virtual_time(sleep, 1)
    with pytest.raises(LeakError, match="/dev/null"), check_nothing_leaked():
        fd = on_virtual_time(os.open, "/dev/null", os.O_RDONLY)
    os.close(fd)


def test_the_descriptors_of_a_carrier_belong_to_the_runtime():
    def start():
        with check_nothing_leaked():
            sleep(0)
        told.append("nothing")

    told = []
    os_thread = threading.Thread(target=start)
    os_thread.start()
    os_thread.join()
    assert ["nothing"] == told


def test_an_os_thread_that_is_about_to_end_has_time_to():
    def root():
        with check_nothing_leaked():
            os_thread = threading.Thread(target=gate.wait)
            os_thread.start()
            # The OS thread ends but is not joined.
            gate.set()

    gate = threading.Event()
    on_virtual_time(root)


def test_a_thread_that_a_member_on_another_carrier_has_left_behind():
    def leave():
        spawn(sleep, 3600).thread.name = "left"

    def root():
        with pytest.raises(LeakError) as caught, check_nothing_leaked():
            with ThreadGroup(placement="spread") as group:
                for _ in range(2):
                    # On both carriers: a member that has started another one goes on before it.
                    group.spawn(lambda: (both.wait(), leave()))
        for scheduler in schedulers_beside(vthreads.current_thread()._scheduler):
            scheduler.background.cancel()
        return caught.value.leaks

    both = vthreads.Barrier(2)
    leaks = vthreads.run(root, carriers=2, patch=False)
    assert ["virtual thread 'left' of group 'background'"] * 2 == [
        leak.partition(", spawned")[0].partition(": ")[2] for leak in leaks
    ]
