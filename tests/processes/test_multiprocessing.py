"""multiprocessing on virtual threads: locks, queues, connections, children, managers, in and between processes."""

from __future__ import annotations

import multiprocessing
import multiprocessing.connection
import os
import queue
import subprocess
import sys
import textwrap
import threading
import time

import pytest

import vthreads
from vthreads import ThreadGroup
from vthreads import _patching as patching
from vthreads.testing import VirtualClock

pytestmark = [pytest.mark.real, pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")]

mp = multiprocessing.get_context("fork")


# The file behind shared memory stays open in the process that has made some.
shared_memory = mp.Value("i", 0)


def virtual(fn):
    return vthreads.run(fn, clock=VirtualClock())


def script(text, *args):
    ended = subprocess.run(
        [sys.executable, "-W", "error", "-W", "ignore:This process:DeprecationWarning", "-c", textwrap.dedent(text)]
        if not args
        else [sys.executable, *args],
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    assert (0, "") == (ended.returncode, ended.stderr)
    return ended.stdout


# --- locks and semaphores between virtual threads


@pytest.mark.parametrize("make", [mp.Lock, mp.RLock, mp.Semaphore, mp.BoundedSemaphore, mp.Condition])
def test_one_at_a_time(make):
    inside, most = [], []

    def work(guard):
        with guard:
            inside.append(1)
            most.append(len(inside))
            vthreads.sleep(1)
            inside.pop()

    def root():
        guard = make()
        with ThreadGroup() as group:
            for _ in range(5):
                group.spawn(work, guard)
        return vthreads.now()

    # Released in this process, it is handed over at once.
    assert 5 == virtual(root)
    assert [1] * 5 == most


def test_the_owner_of_a_recursive_lock_is_a_virtual_thread():
    def other(lock):
        assert not lock.acquire(block=False)
        with pytest.raises(AssertionError, match="not owned"):
            lock.release()

    def root():
        lock = mp.RLock()
        with lock, lock:
            assert lock._semlock._is_mine()
            assert 2 == lock._semlock._count()
            vthreads.gather(lambda: other(lock))
        assert not lock._semlock._is_mine()
        with pytest.raises(AssertionError, match="not owned"):
            lock.release()
        assert vthreads.gather(lambda: lock.acquire(block=False)) == [True]

    virtual(root)


def test_a_lock_released_too_often_says_so():
    def root():
        with pytest.raises(ValueError, match="too many times"):
            mp.Lock().release()

    virtual(root)


@pytest.mark.parametrize("make", [mp.Lock, mp.RLock, lambda: mp.Semaphore(1)])
def test_a_time_limit_is_on_the_clock(make):
    def root():
        lock = make()
        lock.acquire()
        [taken] = vthreads.gather(lambda: lock.acquire(timeout=3))
        assert not taken
        return vthreads.now()

    assert 3 == virtual(root)


def test_the_forms_that_do_not_wait_are_no_checkpoints():
    def root():
        lock, event, items = mp.Lock(), mp.Event(), mp.Queue(1)
        with vthreads.move_on_after(0) as scope:
            assert lock.acquire(block=False)
            assert not lock.acquire(timeout=0)
            lock.release()
            event.set()
            assert event.is_set()
            event.clear()
            with pytest.raises(queue.Empty):
                items.get_nowait()
        assert not scope.cancelled_caught
        items.close()

    virtual(root)


def test_in_a_cancelled_scope_a_free_lock_is_not_taken():
    def root():
        lock = mp.Lock()
        with vthreads.move_on_after(0) as scope:
            lock.acquire()
        assert scope.cancelled_caught
        assert lock.acquire(block=False)

    virtual(root)


def test_condition_event_and_barrier():
    def root():
        condition, event, barrier = mp.Condition(), mp.Event(), mp.Barrier(3)
        woken = []

        def wait(name):
            with condition:
                condition.wait()
                woken.append(name)
            event.wait()
            barrier.wait()

        with ThreadGroup() as group:
            waiting = [group.spawn(wait, name) for name in "ab"]
            with condition:
                condition.notify()
            vthreads.sleep(1)
            assert 1 == len(woken)
            with condition:
                condition.notify_all()
            vthreads.sleep(1)
            assert 2 == len(woken)
            event.set()
            vthreads.sleep(1)
            assert not waiting[0].done()
            barrier.wait()

    virtual(root)


def test_a_cancelled_wait_for_a_condition_has_its_lock_again_and_loses_no_notification():
    def root():
        for make in (mp.Lock, mp.RLock):
            condition = mp.Condition(make())

            def wait():
                with condition:
                    try:
                        condition.wait()
                    finally:
                        assert condition._lock._semlock._is_mine()

            with ThreadGroup() as group:
                one, two = group.spawn(wait), group.spawn(wait)
                with condition:
                    one.cancel()
                    vthreads.sleep(1)
                vthreads.wait(one)
                assert one.cancelled()
                with condition:
                    condition.notify()
                assert two.result() is None

    virtual(root)


def test_locks_made_before_the_runtime_started_park_too():
    out = script(
        """
        import multiprocessing, sys
        lock, rlock, condition = multiprocessing.Lock(), multiprocessing.RLock(), multiprocessing.Condition()
        event, items, semaphore = multiprocessing.Event(), multiprocessing.Queue(), multiprocessing.Semaphore(1)
        import vthreads
        def work(guard):
            with guard:
                inside.append(1)
                vthreads.sleep(0.01)
                assert [1] == inside
                inside.pop()
        def wait():
            with condition:
                condition.wait()
        for guard in (lock, rlock, condition, semaphore):
            inside = []
            with vthreads.ThreadGroup() as group:
                for _ in range(3):
                    group.spawn(work, guard)
        with vthreads.ThreadGroup() as group:
            group.spawn(event.wait)
            waiting, getting = group.spawn(wait), group.spawn(items.get)
            event.set()
            with condition:
                condition.notify()
            items.put("through")
            print(getting.result())
        child = multiprocessing.get_context("fork").Process(target=work, args=(lock,))
        child.start()
        child.join()
        print(child.exitcode)
        """
    )
    assert "through\n0\n" == out


HELD_BEFORE = """
    import multiprocessing, sys, threading
    lock, rlock, condition = multiprocessing.Lock(), multiprocessing.RLock(), multiprocessing.Condition()
    semaphore, bounded = multiprocessing.Semaphore(2), multiprocessing.BoundedSemaphore(2)
    items = multiprocessing.Queue(1)
    permits = [semaphore, semaphore, bounded, bounded]
    for held in lock, rlock, rlock, condition, *permits:
        held.acquire()
    items.put("first")
    import vthreads
"""


def test_locks_held_before_the_runtime_started_park_and_are_released():
    out = script(
        HELD_BEFORE
        + """
    def acquire(guard):
        with guard:
            acquired.append(guard)
    acquired, guards = [], [lock, rlock, condition, semaphore, bounded]
    with vthreads.ThreadGroup() as group:
        for guard in guards:
            group.spawn(acquire, guard)
        putting = group.spawn(items.put, "second")
        vthreads.sleep(0.1)
        assert not acquired and not putting.done()
        # The thread that held them is the root now.
        rlock.acquire()
        with condition:
            pass
        for held in lock, rlock, rlock, rlock, condition, *permits:
            held.release()
        assert ["first", "second"] == [items.get(), items.get()]
    assert set(guards) == set(acquired)
    # All permits are free again, and no more than that.
    assert (2, 2) == (semaphore.get_value(), bounded.get_value())
    for guard, error in (lock, ValueError), (rlock, AssertionError), (condition, AssertionError), (bounded, ValueError):
        try:
            guard.release()
        except error:
            print("refused")
    """
    )
    assert "refused\n" * 4 == out


def test_a_fork_does_not_inherit_what_its_parent_held_before_the_runtime_started():
    out = script(
        HELD_BEFORE
        + """
    def child():
        # Its parent holds them: the child may neither release the recursive one nor acquire the others.
        assert [False] * 3 == [guard.acquire(timeout=0.01) for guard in (lock, rlock, semaphore)]
        try:
            rlock.release()
        except AssertionError:
            sys.exit(3)
    vthreads.patch()
    process = multiprocessing.get_context("fork").Process(target=child)
    process.start()
    process.join()
    print(process.exitcode)
    for held in lock, rlock, rlock, condition, *permits:
        held.release()
    items.get()
    """
    )
    assert "3\n" == out


def test_a_recursive_lock_that_another_os_thread_holds_is_reported():
    out = script(
        """
        import multiprocessing, threading, warnings
        lock, held, over = multiprocessing.RLock(), threading.Event(), threading.Event()
        def hold():
            with lock:
                held.set()
                over.wait()
        holder = threading.Thread(target=hold)
        holder.start()
        held.wait()
        import vthreads
        with warnings.catch_warnings(record=True) as issued:
            warnings.simplefilter("always")
            vthreads.patch()
        [text] = [str(warning.message) for warning in issued if "another OS thread holds" in str(warning.message)]
        print(repr(lock) in text)
        over.set()
        holder.join()
        """
    )
    assert "True\n" == out


def test_unpatched_the_locks_made_are_the_originals_again():
    def root():
        assert "vthreads" in type(mp.Lock()._semlock).__module__

    virtual(root)
    vthreads.unpatch()
    try:
        assert "_multiprocessing" == type(mp.Lock()._semlock).__module__
        assert "vthreads" not in multiprocessing.connection.Connection._recv_bytes.__code__.co_filename
    finally:
        patching.state.refused = False


# --- between processes


def holding(lock, held, let_go):
    with lock:
        held.set()
        let_go.wait()


@pytest.mark.sampled(1)
@pytest.mark.everywhere
@pytest.mark.parametrize("make", [mp.Lock, mp.RLock, lambda: mp.Semaphore(1)])
def test_others_run_while_one_waits_for_a_lock_of_another_process(make):
    def root():
        lock, held, let_go = make(), mp.Event(), mp.Event()
        child = mp.Process(target=holding, args=(lock, held, let_go))
        child.start()
        held.wait()
        with ThreadGroup() as group:
            with vthreads.move_on_after(0.02) as scope:
                lock.acquire()
            assert scope.cancelled_caught
            waiting = [group.spawn(lock.acquire) for _ in range(2)]
            let_go.set()
            vthreads.wait(waiting, return_when="FIRST_COMPLETED")
            assert 1 == sum(future.done() for future in waiting)
            group.cancel()
        child.join()

    vthreads.run(root)


def counting(lock, value, times):
    for _ in range(times):
        with lock:
            value.value += 1


def test_counts_are_kept_between_processes_and_virtual_threads():
    def root():
        lock, value = mp.Lock(), mp.Value("i", 0, lock=False)
        children = [mp.Process(target=counting, args=(lock, value, 200)) for _ in range(2)]
        for child in children:
            child.start()
        with ThreadGroup() as group:
            for _ in range(4):
                group.spawn(counting, lock, value, 50)
        for child in children:
            child.join()
        return value.value

    assert 600 == vthreads.run(root)


def doubling(items, results):
    for item in iter(items.get, None):
        results.put(2 * item)


def test_queues_carry_items_there_and_back():
    def root():
        items, results = mp.Queue(2), mp.SimpleQueue()
        child = mp.Process(target=doubling, args=(items, results))
        child.start()
        with ThreadGroup() as group:
            for number in range(10):
                group.spawn(items.put, number)
            doubled = [group.spawn(results.get) for _ in range(10)]
            found = sorted(future.result() for future in doubled)
        items.put(None)
        child.join()
        items.close()
        items.join_thread()
        results.close()
        return found

    assert list(range(0, 20, 2)) == vthreads.run(root)


def working(items):
    for _ in iter(items.get, None):
        items.task_done()
    items.task_done()


def test_a_joinable_queue_is_joined():
    def root():
        items = mp.JoinableQueue()
        child = mp.Process(target=working, args=(items,))
        with ThreadGroup() as group:
            items.put(1)
            joining = group.spawn(items.join)
            assert not joining.done()
            child.start()
            joining.result()
        items.put(None)
        items.join()
        child.join()
        items.close()
        items.join_thread()

    vthreads.run(root)


def test_a_put_that_has_its_place_goes_to_its_end():
    def root():
        items = mp.Queue(1)
        with ThreadGroup() as group:
            with items._notempty:
                putting = group.spawn(items.put, "item")
                assert "parked" == putting.thread.state.value
                putting.cancel()
            vthreads.wait(putting)
            assert "item" == items.get()
        items.put("next")
        assert "next" == items.get()
        items.close()
        items.join_thread()

    # On the clock that stands still: with a slice that can end, `put` might not have got that far.
    virtual(root)


def cancelling(scope):
    scope.cancel()
    time.sleep(0.01)


def test_a_child_is_not_inside_the_scopes_that_it_was_started_in():
    def root():
        with vthreads.CancelScope() as scope:
            child = mp.Process(target=cancelling, args=(scope,))
            child.start()
            child.join()
        assert not scope.cancel_called
        return child.exitcode

    assert 0 == vthreads.run(root)


# --- connections


def test_many_talk_over_connections_at_once():
    def echo(connection):
        connection.send(connection.recv())

    def root():
        pairs = [mp.Pipe() for _ in range(20)]
        with ThreadGroup() as group:
            for _, far in pairs:
                group.spawn(echo, far)
            for number, (near, _) in enumerate(pairs):
                near.send(number)
            assert list(range(20)) == [near.recv() for near, _ in pairs]
        for pair in pairs:
            for connection in pair:
                connection.close()

    virtual(root)


@pytest.mark.parametrize("duplex", [True, False], ids=["socket", "pipe"])
def test_a_message_that_was_begun_is_sent_whole(duplex):
    def root():
        reader, writer = mp.Pipe(duplex)
        with reader, writer, ThreadGroup() as group:
            sending = group.spawn(lambda: [writer.send_bytes(b"x" * 1_000_000), vthreads.checkpoint()])
            assert "parked" == sending.thread.state.value
            sending.cancel()
            assert 1_000_000 == len(reader.recv_bytes())
            vthreads.wait(sending)
            assert sending.cancelled()
            writer.send("next")
            assert "next" == reader.recv()

    virtual(root)


@pytest.mark.parametrize("duplex", [True, False], ids=["socket", "pipe"])
def test_a_message_that_was_begun_is_received_whole(duplex):
    def root():
        reader, writer = mp.Pipe(duplex)
        received = []
        with reader, writer, ThreadGroup() as group:
            receiving = group.spawn(lambda: [received.append(reader.recv_bytes()), vthreads.checkpoint()])
            # The length first, as the other end would write it.
            os.write(writer.fileno(), b"\0\0\0\x04ab")
            vthreads.sleep(1)
            receiving.cancel()
            vthreads.sleep(1)
            assert not receiving.done()
            os.write(writer.fileno(), b"cd")
            vthreads.wait(receiving)
            assert receiving.cancelled()
            assert [b"abcd"] == received
            writer.send("next")
            assert "next" == reader.recv()

    virtual(root)


def test_the_end_of_a_connection_is_told():
    def root():
        reader, writer = mp.Pipe(duplex=False)
        with reader, ThreadGroup(on_failure="continue") as group:
            receiving = group.spawn(reader.recv)
            writer.close()
            assert isinstance(receiving.exception(), EOFError)

    virtual(root)


def test_poll_and_wait_have_their_time():
    def root():
        reader, writer = mp.Pipe(duplex=False)
        with reader, writer:
            assert not reader.poll()
            with ThreadGroup() as group:
                waiting = group.spawn(multiprocessing.connection.wait, [reader], 3600)
                polling = group.spawn(reader.poll, 3600)
                writer.send(1)
                assert [reader] == waiting.result()
                assert polling.result()
            reader.recv()

    virtual(root)


def test_a_listener_and_its_clients():
    def serve(listener):
        with listener.accept() as connection:
            connection.send(connection.recv() + 1)

    def root():
        with multiprocessing.connection.Listener(authkey=b"secret") as listener, ThreadGroup() as group:
            for _ in range(3):
                group.spawn(serve, listener)
            for number in range(3):
                with multiprocessing.connection.Client(listener.address, authkey=b"secret") as client:
                    client.send(number)
                    assert number + 1 == client.recv()

    vthreads.run(root)


# --- children


def ending(gate, code):
    gate.wait()
    sys.exit(code)


def test_several_join_one_child():
    def root():
        gate = mp.Event()
        child = mp.Process(target=ending, args=(gate, 3))
        child.start()
        with ThreadGroup() as group:
            joining = [group.spawn(child.join), group.spawn(child.join, 60)]
            child.join(0.01)
            assert child.is_alive()
            gate.set()
            vthreads.wait(joining)
        assert 3 == child.exitcode
        child.close()

    vthreads.run(root)


def test_a_cancelled_join_leaves_the_child_to_be_joined():
    def root():
        gate = mp.Event()
        child = mp.Process(target=ending, args=(gate, 3))
        child.start()
        for timeout in (None, 60):
            with vthreads.move_on_after(0.01) as scope:
                child.join(timeout)
            assert scope.cancelled_caught
        gate.set()
        child.join()
        assert 3 == child.exitcode

    vthreads.run(root)


def test_in_a_cancelled_scope_no_child_is_started():
    def root():
        child = mp.Process(target=sys.exit)
        with vthreads.move_on_after(0) as scope:
            child.start()
        assert scope.cancelled_caught
        assert child.pid is None
        assert [] == multiprocessing.active_children()

    virtual(root)


def in_a_child(results):
    with ThreadGroup() as group:
        squares = [group.spawn(lambda number=number: [vthreads.sleep(0.001), number**2][1]) for number in range(5)]
    results.put([future.result() for future in squares])
    results.put(threading.current_thread().name)


def test_a_child_has_virtual_threads_of_its_own():
    def parent():
        results = mp.SimpleQueue()
        child = mp.Process(target=in_a_child, args=(results,))
        child.start()
        assert [0, 1, 4, 9, 16] == results.get()
        assert "MainThread" == results.get()
        child.join()
        assert 0 == child.exitcode
        results.close()

    def root():
        with ThreadGroup() as group:
            group.spawn(parent)
            group.spawn(parent)

    vthreads.run(root)


START_METHODS = """
import multiprocessing, sys
import vthreads

def work(items, lock, connection):
    with lock:
        connection.send([item * 2 for item in iter(items.get, None)])

def root():
    items, lock = multiprocessing.Queue(), multiprocessing.RLock()
    near, far = multiprocessing.Pipe()
    child = multiprocessing.Process(target=work, args=(items, lock, far))
    with vthreads.ThreadGroup() as group:
        with lock:
            child.start()
            receiving = group.spawn(near.recv)
            for item in [1, 2, 3, None]:
                items.put(item)
        print(receiving.result())
        group.spawn(child.join).result()
    print(child.exitcode)
    with multiprocessing.Manager() as manager, vthreads.ThreadGroup() as group:
        event, lock = manager.Event(), manager.Lock()
        with lock:
            waiting = group.spawn(event.wait)
            event.set()
        print(waiting.result())

if __name__ == "__main__":
    multiprocessing.set_start_method(sys.argv[1])
    vthreads.run(root)
"""


@pytest.mark.sampled(1)
@pytest.mark.everywhere
@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_every_start_method(method, tmp_path):
    path = tmp_path / "program.py"
    path.write_text(START_METHODS)
    assert "[2, 4, 6]\n0\nTrue\n" == script("", str(path), method)


# --- managers


def test_each_virtual_thread_has_its_connection_to_a_manager():
    def root():
        with mp.Manager() as manager:
            numbers, items = manager.dict(), manager.Queue()
            with ThreadGroup() as group:
                getting = [group.spawn(items.get) for _ in range(2)]
                for number in range(5):
                    group.spawn(numbers.__setitem__, number, number)
                for number in range(2):
                    items.put(number)
                assert [0, 1] == sorted(future.result() for future in getting)
            assert dict(enumerate(range(5))) == dict(numbers)

    vthreads.run(root)


def test_after_a_cancelled_call_to_a_manager_the_next_gets_its_own_answer():
    def root():
        with mp.Manager() as manager:
            event, numbers = manager.Event(), manager.list([1, 2, 3])
            with vthreads.move_on_after(0.05) as scope:
                event.wait()
            assert scope.cancelled_caught
            assert 3 == len(numbers)
            assert not event.is_set()
            event.set()
            assert event.wait()
            with pytest.raises(IndexError):
                numbers[7]
            assert 1 == numbers[0]

    vthreads.run(root)


def test_a_manager_used_before_the_runtime_started_serves_virtual_threads():
    out = script(
        """
        import multiprocessing, time
        if __name__ == "__main__":
            manager = multiprocessing.get_context("fork").Manager()
            import vthreads
            events = [manager.Event() for _ in range(3)]
            with vthreads.ThreadGroup() as group:
                waiting = [group.spawn(event.wait) for event in events]
                for event in events:
                    vthreads.sleep(0.01)
                    event.set()
                print([future.result() for future in waiting])
            manager.shutdown()
        """
    )
    assert "[True, True, True]\n" == out


def test_a_signal_handler_can_end_a_child_that_was_forked_on_a_virtual_thread():
    script = """
        import multiprocessing, os, signal, sys, time, vthreads

        def child(ready):
            signal.signal(signal.SIGTERM, lambda *_: sys.exit(7))
            ready.set()
            while True:
                time.sleep(60)

        def root():
            context = multiprocessing.get_context("fork")
            ready = context.Event()
            process = context.Process(target=child, args=(ready,))
            process.start()
            ready.wait()
            os.kill(process.pid, signal.SIGTERM)
            process.join(100)
            print(process.exitcode)
            process.kill()

        vthreads.run(root)
    """
    ended = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)], capture_output=True, text=True, timeout=200, check=False
    )
    assert ("7\n", 0) == (ended.stdout, ended.returncode)


# --- functions of these tests


def test_the_thread_that_shares_descriptors_blocks_signals_for_itself_alone():
    told = script("""
        import os, signal
        from multiprocessing import resource_sharer
        import vthreads

        def root():
            reader, writer = os.pipe()
            shared = resource_sharer.DupFd(reader)
            received = shared.detach()
            os.write(writer, b"x")
            assert b"x" == os.read(received, 1)
            print(*signal.pthread_sigmask(signal.SIG_BLOCK, []))
            resource_sharer.stop(timeout=20)

        vthreads.patch(threads=True)
        vthreads.run(root)
        """)
    assert "\n" == told
