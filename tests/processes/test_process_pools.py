"""Pools of OS threads and of processes, used from virtual threads: working, waiting, cancelling, ending."""

from __future__ import annotations

import concurrent.futures
import multiprocessing
import os
import signal
import subprocess
import sys
import textwrap
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool

import pytest

import vthreads
from vthreads import ThreadGroup

pytestmark = [pytest.mark.real, pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")]

mp = multiprocessing.get_context("fork")


def square(number):
    return number * number


def fail():
    raise ZeroDivisionError("in the pool")


def waits_for(fd):
    """Wait until another process lets it: by a byte in the pipe, or its end."""
    return os.read(fd, 1)


class Gate:
    """Ends `waits_for`, one call for each byte."""

    def __enter__(self):
        self.fd, self._write_fd = os.pipe()
        return self

    def __exit__(self, *_):
        os.close(self.fd)
        os.close(self._write_fd)

    def let_go(self, count=1):
        os.write(self._write_fd, b"x" * count)


EXECUTORS = {
    "threads": lambda workers: ThreadPoolExecutor(workers),  # noqa: PLW0108  # looked up when called: patched by then
    "processes": lambda workers: ProcessPoolExecutor(workers, mp_context=mp),
}


@pytest.fixture(params=EXECUTORS)
def executor(request):
    return EXECUTORS[request.param]


# --- concurrent.futures


def test_many_submit_and_wait_for_their_results(executor):
    def root():
        with executor(2) as pool, ThreadGroup() as group:
            results = [group.spawn(lambda number=number: pool.submit(square, number).result()) for number in range(20)]
            assert [number * number for number in range(20)] == [future.result() for future in results]
            assert [0, 1, 4] == list(pool.map(square, range(3)))

    vthreads.run(root)


def test_others_run_while_one_waits_for_a_result(executor):
    def root():
        with Gate() as gate, executor(1) as pool, ThreadGroup() as group:
            waiting = group.spawn(pool.submit(waits_for, gate.fd).result)
            vthreads.sleep(0.01)
            assert not waiting.done()
            gate.let_go()
            assert b"x" == waiting.result()

    vthreads.run(root)


def test_vthreads_wait_and_as_completed_take_their_futures(executor):
    def root():
        with executor(2) as pool:
            futures = [pool.submit(square, number) for number in range(4)]
            assert set(futures) == set(vthreads.as_completed(futures))
            done, rest = vthreads.wait(futures)
            assert (set(futures), set()) == (set(done), set(rest))
            done, rest = concurrent.futures.wait(futures, timeout=20)
            assert (set(futures), set()) == (set(done), set(rest))

    vthreads.run(root)


def test_a_failure_comes_out_of_the_result(executor):
    def root():
        with executor(1) as pool:
            with pytest.raises(ZeroDivisionError, match="in the pool"):
                pool.submit(fail).result()

    vthreads.run(root)


def test_a_cancelled_wait_leaves_the_work_to_others(executor):
    def root():
        with Gate() as gate, executor(1) as pool:
            future = pool.submit(waits_for, gate.fd)
            with vthreads.move_on_after(0.01) as scope:
                future.result()
            assert scope.cancelled_caught
            assert not future.done()
            gate.let_go()
            assert b"x" == future.result()

    vthreads.run(root)


def test_in_a_cancelled_scope_no_work_is_submitted_to_processes():
    def root():
        with ProcessPoolExecutor(1, mp_context=mp) as pool:
            with vthreads.move_on_after(0) as scope:
                pool.submit(square, 2)
            assert scope.cancelled_caught
            assert {} == pool._pending_work_items
            assert 9 == pool.submit(square, 3).result()

    vthreads.run(root)


def test_work_that_has_not_begun_can_be_cancelled(executor):
    def root():
        with Gate() as gate, executor(1) as pool:
            begun = [pool.submit(waits_for, gate.fd) for _ in range(3)]
            queued = [pool.submit(square, number) for number in range(3)]
            assert queued[-1].cancel()
            gate.let_go(3)
            assert [0, 1] == [future.result() for future in queued[:2]]
            assert [b"x"] * 3 == [future.result() for future in begun]
            assert queued[-1].cancelled()

    vthreads.run(root)


def test_shutdown_parks_until_the_work_is_done(executor):
    def root():
        with Gate() as gate, ThreadGroup() as group:
            pool = executor(1)
            future = pool.submit(waits_for, gate.fd)
            ending = group.spawn(pool.shutdown)
            vthreads.sleep(0.01)
            assert not ending.done()
            with pytest.raises(RuntimeError, match="after shutdown"):
                pool.submit(square, 2)
            gate.let_go()
            ending.result()
            assert b"x" == future.result()

    vthreads.run(root)


def test_a_cancelled_shutdown_goes_on_by_itself(executor):
    def root():
        with Gate() as gate:
            pool = executor(1)
            future = pool.submit(waits_for, gate.fd)
            with vthreads.move_on_after(0.01) as scope:
                pool.shutdown()
            assert scope.cancelled_caught
            gate.let_go()
            assert b"x" == future.result()
            pool.shutdown()

    vthreads.run(root)


def test_shutdown_cancels_what_waits(executor):
    def root():
        with Gate() as gate, ThreadGroup() as group:
            pool = executor(1)
            pool.submit(waits_for, gate.fd)
            # Many: the manager of a process pool passes on as many as its worker takes, until it sees the shutdown.
            queued = [pool.submit(square, number) for number in range(200)]
            while isinstance(pool, ProcessPoolExecutor) and not queued[0].running():
                vthreads.checkpoint()
            ending = group.spawn(pool.shutdown, cancel_futures=True)
            # Those that are let go before could all be done.
            while not (vars(pool)["_shutdown"] if isinstance(pool, ThreadPoolExecutor) else pool._shutdown_thread):
                vthreads.checkpoint()
            gate.let_go()
            ending.result()
            assert queued[-1].cancelled()

    vthreads.run(root)


def test_a_worker_that_dies_breaks_its_pool():
    def root():
        with ProcessPoolExecutor(1, mp_context=mp) as pool, ThreadGroup(on_failure="continue") as group:
            waiting = [group.spawn(pool.submit(os._exit, 3).result) for _ in range(2)]
            assert [BrokenProcessPool] * 2 == [type(future.exception()) for future in waiting]

    vthreads.run(root)


def in_a_worker(number):
    with ThreadGroup() as group:
        squares = [group.spawn(square, number) for _ in range(3)]
    return sum(future.result() for future in squares)


def test_workers_have_virtual_threads_of_their_own():
    def root():
        with ProcessPoolExecutor(2, mp_context=mp) as pool:
            return list(pool.map(in_a_worker, range(4)))

    assert [0, 3, 12, 27] == vthreads.run(root)


def test_pools_are_made_in_several_virtual_threads_at_once():
    def work(number):
        with ProcessPoolExecutor(1, mp_context=mp) as pool:
            return pool.submit(square, number).result()

    def root():
        return vthreads.gather(lambda: work(2), lambda: work(3), lambda: work(4))

    assert [4, 9, 16] == vthreads.run(root)


# --- multiprocessing.Pool


def test_a_pool_of_multiprocessing():
    def root():
        with mp.Pool(2) as pool:
            with ThreadGroup() as group:
                results = [group.spawn(pool.apply, square, (number,)) for number in range(10)]
            assert [number * number for number in range(10)] == [future.result() for future in results]
            assert [0, 1, 4] == pool.map(square, range(3))
            assert [0, 1, 4] == sorted(pool.imap_unordered(square, range(3)))
            assert 16 == pool.apply_async(square, (4,)).get(timeout=20)
            with pytest.raises(ZeroDivisionError):
                pool.apply(fail)
            pool.close()
            pool.join()

    vthreads.run(root)


def test_a_cancelled_wait_for_a_pool_and_the_end_of_the_pool_in_it():
    def root():
        with Gate() as gate:
            with vthreads.move_on_after(0.1) as scope:
                with mp.Pool(2) as pool:
                    pool.apply(waits_for, (gate.fd,))
            assert scope.cancelled_caught

    vthreads.run(root)


def test_a_pool_is_made_and_ended_whole_in_a_cancelled_scope():
    def root():
        with vthreads.move_on_after(0):
            pool = mp.Pool(2)
            assert 2 == len(multiprocessing.active_children())
            pool.terminate()
            assert [] == multiprocessing.active_children()
        pool.join()

    vthreads.run(root)


# --- the end of the interpreter


def outcome(script):
    ended = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", PREAMBLE + textwrap.dedent(script)],
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    return ended.returncode, ended.stdout, ended.stderr


PREAMBLE = """
import multiprocessing, os, signal, sys, time
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
import vthreads
multiprocessing.set_start_method("fork")
def root(fn):
    vthreads.run(fn)
"""


@pytest.mark.parametrize("kind", ["ProcessPoolExecutor", "ThreadPoolExecutor"])
def test_a_pool_that_was_not_shut_down_finishes_its_work_at_exit(kind):
    assert (0, "[1, 4]\nended\n", "") == outcome(
        f"""
        pool = {kind}(1)
        @root
        def _():
            print(list(pool.map(pow, (1, 2), (2, 2))), flush=True)
            pool.submit(time.sleep, 0.05).add_done_callback(lambda future: print("ended", flush=True))
        """
    )


def test_the_background_uses_a_pool_of_processes_at_exit():
    assert (0, "main ends\n8\n", "") == outcome(
        """
        pool = ProcessPoolExecutor(1)
        pool.submit(int).result()
        def work():
            vthreads.sleep(0.05)
            print(pool.submit(pow, 2, 3).result(), flush=True)
        vthreads.spawn(work)
        print("main ends", flush=True)
        """
    )


def test_a_pool_of_multiprocessing_that_was_not_closed_does_not_hold_up_the_exit():
    assert (0, "[0, 1]\n", "") == outcome(
        """
        @root
        def _():
            global pool
            pool = multiprocessing.Pool(2)
            print(pool.map(int, "01"), flush=True)
        """
    )


def test_a_child_that_is_still_at_work_is_joined_at_exit_and_a_daemon_is_ended():
    assert (0, "worked\n", "") == outcome(
        """
        def work():
            time.sleep(0.05)
            print("worked", flush=True)
        @root
        def _():
            multiprocessing.Process(target=work).start()
            multiprocessing.Process(target=time.sleep, args=(3600,), daemon=True).start()
        """
    )


@pytest.mark.parametrize("kind", ["ProcessPoolExecutor", "ThreadPoolExecutor"])
def test_an_exception_while_others_wait_for_a_pool_ends_the_program(kind):
    status, out, err = outcome(
        f"""
        def fail():
            vthreads.sleep(0.02)
            raise ValueError("the reason")
        @root
        def _():
            with {kind}(1) as pool:
                future = pool.submit(time.sleep, 0.2)
                with vthreads.ThreadGroup() as group:
                    group.spawn(future.result)
                    group.spawn(fail)
        """
    )
    assert (1, "") == (status, out)
    assert 1 == err.count("ValueError: the reason")


THREADS_MODE = {
    "a pool": 'pool = multiprocessing.Pool(2); print(pool.map(int, "01"), flush=True)',
    "a queue": """
        def read(items):
            print([len(items.get()) for _ in range(2)], flush=True)
        items = multiprocessing.Queue()
        multiprocessing.Process(target=read, args=(items,)).start()
        for _ in range(2):
            items.put(b"x" * 200_000)
        """,
    "an executor": 'executor = ProcessPoolExecutor(2); print(list(executor.map(int, "01")), flush=True)',
    "a manager": "manager = multiprocessing.Manager(); print(manager.list([1]), flush=True)",
}


@pytest.mark.sampled(1)
@pytest.mark.everywhere
@pytest.mark.parametrize("what", THREADS_MODE)
def test_what_is_alive_at_exit_ends_if_threads_are_virtual_ones(what):
    printed = {"a queue": "[200000, 200000]\n", "a manager": "[1]\n"}.get(what, "[0, 1]\n")
    script = "vthreads.patch(threads=True)\n" + textwrap.dedent(THREADS_MODE[what])
    assert (0, printed, "") == outcome(script)


def test_ctrl_c_ends_a_wait_for_a_lock_of_another_process():
    assert (0, "KeyboardInterrupt\n", "") == outcome(
        """
        lock = multiprocessing.Lock()
        lock.acquire()
        forked, tell = os.pipe()
        def press():
            # A signal during the fork, in the functions that Python calls there, is lost on plain Python, too.
            os.read(forked, 1)
            # The lock was held before the patch, so the wait is in C: the parent cannot report that it has begun. If it
            # has not, the result is the same.
            time.sleep(0.1)
            os.kill(os.getppid(), signal.SIGINT)
        def wait():
            multiprocessing.Process(target=press).start()
            os.write(tell, b"x")
            lock.acquire()
        try:
            root(wait)
        except KeyboardInterrupt:
            print("KeyboardInterrupt")
        """
    )


def test_ctrl_c_ends_a_wait_for_a_pool_of_processes():
    script = """
        forked, tell = os.pipe()
        def work(path):
            signal.signal(signal.SIGINT, signal.SIG_IGN)
            # See above.
            os.read(forked, 1)
            print("at work", flush=True)
            os.read(forked, 1)
        @root
        def _():
            with ProcessPoolExecutor(1) as pool:
                try:
                    with vthreads.ThreadGroup() as group:
                        group.spawn(pool.submit(work, "path").result)
                        os.write(tell, b"x")
                finally:
                    os.write(tell, b"x")
        """
    process = subprocess.Popen(
        [sys.executable, "-c", PREAMBLE + textwrap.dedent(script)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert "at work\n" == process.stdout.readline()
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=200)
    assert -signal.SIGINT == process.returncode
    assert "KeyboardInterrupt" in err


def test_fork_in_a_running_program_with_children_and_pools_around():
    assert (0, "child 9\nparent 4 0\n", "") == outcome(
        """
        @root
        def _():
            pool = ProcessPoolExecutor(1)
            assert 1 == pool.submit(pow, 1, 1).result()
            with vthreads.ThreadGroup() as group:
                group.spawn(vthreads.sleep, 0.05)
                pid = os.fork()
                if not pid:
                    with ProcessPoolExecutor(1) as own:
                        print("child", own.submit(pow, 3, 2).result(), flush=True)
                    os._exit(0)
                status = os.waitpid(pid, 0)[1]
                print("parent", pool.submit(pow, 2, 2).result(), status, flush=True)
            pool.shutdown()
        """
    )
