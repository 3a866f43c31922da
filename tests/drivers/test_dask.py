"""Dask: members of groups on the workers of a real cluster of processes."""

import subprocess
import sys

import pytest

pytest.importorskip("distributed", reason="distributed is not installed")

from tests.test_documentation import DOCS, blocks  # a skipped module needs none of it

pytestmark = pytest.mark.real

LIMIT = 280  # seconds: against a hang

# In a process of its own, because the loop of Dask keeps its OS thread and its descriptors.
PROGRAM = """
import contextvars
import logging
import multiprocessing
import os
import sys
import threading
import time
import warnings
import weakref
from concurrent.futures import ProcessPoolExecutor

from dask import annotate
from distributed import Client, Future, LocalCluster
from distributed.client import ClosedClientError
from distributed.scheduler import KilledWorker

import vthreads
from vthreads import ThreadGroup, fail_after
from vthreads.integrations import dask


def record(path):
    with open(path, "a") as file:
        file.write("x")
    return os.getpid()


def fail_when(path):
    while not os.path.exists(path):
        time.sleep(0.01)
    raise ZeroDivisionError("on the worker")


def run_until_cancelled(begun, ended):
    record(begun)
    while not dask.cancelled():
        time.sleep(0.01)
    record(ended)


def run_until_cancelled_in_a_thread(begun, ended):
    context = contextvars.copy_context()
    other = threading.Thread(target=context.run, args=(run_until_cancelled, begun, ended))
    other.start()
    other.join()


def never_look(begun, released, ended):
    record(begun)
    while not os.path.exists(released):
        time.sleep(0.01)
    record(ended)
    return ended


def run_until_cancelled_at_the_second_time(begun, ended):
    record(begun)
    if os.path.getsize(begun) == 1:
        os._exit(1)
    run_until_cancelled("begun again", ended)


class Arriving:
    '''A result that calls a function of the client when it arrives there.'''

    def __reduce__(self):
        return arrive, (os.getpid(),)


def arrive(sender):
    if os.getpid() != sender:
        return sys.modules["__main__"].arrivals.pop()()


arrivals = []


def seen(path, size=1):
    # Waits, as a virtual thread.
    while not os.path.exists(path) or os.path.getsize(path) < size:
        vthreads.sleep(0.01)
    return os.path.getsize(path)


def end_process():
    os._exit(1)


def keywords(first, *, workers, pure):
    return first, workers, pure


def test_equal_calls_run_once_each(client):
    with ThreadGroup() as group:
        pids = [dask.submit(group, client, record, "equal") for _ in range(4)]
    assert 4 == seen("equal", 4)
    assert os.getpid() not in [pid.result() for pid in pids]


def test_arguments_are_those_of_the_function(client):
    with ThreadGroup() as group:
        called = dask.submit(group, client, keywords, 1, workers=2, pure=3)
    assert (1, 2, 3) == tuple(called.result())


def test_a_failure_cancels_the_siblings_and_reaches_their_workers(client):
    try:
        with ThreadGroup() as group:
            running = dask.submit(group, client, run_until_cancelled, "begun", "ended")
            dask.submit(group, client, fail_when, "begun")
    except ExceptionGroup as raised:
        assert [ZeroDivisionError] == [type(error) for error in raised.exceptions]
    assert running.cancelled()
    seen("ended")


def test_the_cancellation_of_one_of_two_equal_calls_is_not_that_of_the_other(client):
    with ThreadGroup() as group:
        futures = [dask.submit(group, client, never_look, "equal-2", "go-2", "gone-2") for _ in range(2)]
        seen("equal-2", 2)
        futures[0].cancel()
        vthreads.wait(futures[0])
        record("go-2")
    assert "gone-2" == futures[1].result()
    seen("gone-2", 2)


def test_a_deadline_reaches_the_worker(client):
    try:
        with fail_after(30) as limit, ThreadGroup() as group:
            dask.submit(group, client, run_until_cancelled, "begun-3", "ended-3")
            seen("begun-3")
            limit.deadline = vthreads.now()
    except TimeoutError:
        seen("ended-3")
    assert not dask.cancelled()


def test_a_cancellation_without_grace_reaches_an_os_thread_of_the_call(client):
    with ThreadGroup(cleanup_grace=0) as group:
        dask.submit(group, client, run_until_cancelled_in_a_thread, "begun-4", "ended-4")
        seen("begun-4")
        group.cancel()
    seen("ended-4")


def test_a_call_that_waits_for_its_slot_is_never_submitted(client):
    def submits_and_cancels():
        future = dask.submit(group, client, record, "limited")
        future.cancel()
        vthreads.wait(future)
        return future.cancelled(), len(client.futures)

    with ThreadGroup(max_concurrency=1) as group:
        before = len(client.futures)
        member = group.spawn(submits_and_cancels)
    assert (True, before) == member.result()


def test_calls_that_no_worker_has_begun_never_run(client):
    with ThreadGroup() as group:
        for number in range(20):
            dask.submit(group, client, run_until_cancelled, f"busy-{number}", f"free-{number}")
        while not any(os.path.exists(f"busy-{number}") for number in range(20)):
            vthreads.sleep(0.01)
        group.cancel()
    with ThreadGroup() as group:
        for _ in range(4):
            dask.submit(group, client, record, "later")
    begun = [number for number in range(20) if os.path.exists(f"busy-{number}")]
    for number in begun:
        seen(f"free-{number}")
    assert len(begun) < 20


def test_the_scheduler_of_dask_keeps_nothing_of_what_was_cancelled_or_has_failed(client):
    with ThreadGroup() as group:
        for number in range(5):
            dask.submit(group, client, never_look, f"begun-{number}-5", "go-5", "ended-5")
        while not any(os.path.exists(f"begun-{number}-5") for number in range(5)):
            vthreads.sleep(0.01)
        group.cancel()
    record("go-5")
    while client.run_on_scheduler(
        lambda dask_scheduler: [*dask_scheduler.tasks, *dask_scheduler.extensions["events"]._events]
    ):
        vthreads.sleep(0.01)


def test_a_call_that_dask_runs_again_is_cancelled_there(client):
    with ThreadGroup() as group:
        dask.submit(group, client, run_until_cancelled_at_the_second_time, "begun-6", "ended-6")
        seen("begun again")
        group.cancel()
    seen("ended-6")


def test_what_other_code_cancels_in_dask_is_a_cancelled_member(client):
    def cancels():
        client.cancel([Future(key, client) for key in client.futures])

    for number, cancel in enumerate((cancels, client.restart)):
        with ThreadGroup() as group:
            called = dask.submit(group, client, run_until_cancelled, f"begun-7-{number}", f"ended-7-{number}")
            seen(f"begun-7-{number}")
            cancel()
            vthreads.wait(called)
            sibling = group.spawn(int)
        assert called.cancelled()
        assert 0 == sibling.result()


def test_a_result_that_the_client_cannot_load_is_a_failure(client):
    def fails():
        raise LookupError("not here")

    arrivals.append(fails)
    logging.getLogger("distributed").setLevel(logging.CRITICAL + 1)
    try:
        with fail_after(60), ThreadGroup() as group:
            dask.submit(group, client, Arriving)
    except ExceptionGroup as raised:
        assert ["not here"] == [str(error) for error in raised.exceptions]
    else:
        raise AssertionError("no failure")


def test_a_result_that_comes_after_the_end_of_its_group_is_dropped(client):
    def arrives():
        # Before the client has the result.
        called.cancel()
        go_on.acquire()
        result = Result()
        results.append(weakref.ref(result))
        return result

    class Result:
        pass

    results = []
    go_on = threading.Lock()
    go_on.acquire()
    arrivals.append(arrives)
    records = []
    handler = logging.Handler()
    handler.emit = records.append
    logging.getLogger("tornado.application").addHandler(handler)
    with ThreadGroup() as group:
        called = dask.submit(group, client, Arriving)
    assert called.cancelled()
    go_on.release()
    while not records and (not results or results[0]() is not None):
        vthreads.sleep(0.01)
    # After the loop of the client has dropped the result, it reports what went wrong.
    client.run(int)
    assert [] == [record.getMessage() for record in records]


def test_a_failure_comes_as_it_is_with_its_traceback(client):
    try:
        with ThreadGroup() as group:
            dask.submit(group, client, next, iter(()))
    except ExceptionGroup as raised:
        assert [StopIteration] == [type(error) for error in raised.exceptions]
    try:
        with ThreadGroup(errors="first") as group:
            dask.submit(group, client, fail_when, ".")
    except ZeroDivisionError as error:
        places = []
        place = error.__traceback__
        while place is not None:
            places.append(place.tb_frame.f_code.co_name)
            place = place.tb_next
        assert "fail_when" == places[-1], places


def test_a_closed_client_fails_the_group(client):
    closed = Client(client.scheduler.address)
    closed.close()
    try:
        with ThreadGroup() as group:
            dask.submit(group, closed, int)
    except ExceptionGroup as raised:
        assert [ClosedClientError] == [type(error) for error in raised.exceptions]
    else:
        raise AssertionError("no failure")


def test_a_call_runs_in_the_process_of_a_pool_and_does_not_learn_of_its_cancellation(client):
    with (
        ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool,
        LocalCluster(n_workers=1, processes=False, dashboard_address=None) as here,
        Client(here) as other,
    ):
        here.workers[0].executors["pool"] = pool
        with annotate(executor="pool"), ThreadGroup() as group:
            called = dask.submit(group, other, os.getpid)
    assert os.getpid() != called.result()


def test_a_call_that_kills_its_workers_is_bounded(client):
    try:
        with fail_after(5), ThreadGroup() as group:
            dask.submit(group, client, end_process)
    except (TimeoutError, ExceptionGroup) as ended:
        if isinstance(ended, ExceptionGroup):
            assert [KilledWorker] == [type(error) for error in ended.exceptions]


def main():
    warnings.simplefilter("ignore")
    with LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None, silence_logs=50) as cluster:
        with Client(cluster) as client:
            for name, test in list(globals().items()):
                if name.startswith("test_"):
                    test(client)
                    print(name, flush=True)
            # distributed fails if it closes while it replaces a worker that has ended.
            client.wait_for_workers(2)


if __name__ == "__main__":
    main()
"""


def run(folder, program):
    (folder / "program.py").write_text(program)
    done = subprocess.run(
        [sys.executable, "program.py"], cwd=folder, timeout=LIMIT, capture_output=True, text=True, check=False
    )
    assert 0 == done.returncode, done.stdout + done.stderr
    return done.stdout


def test_members_on_real_workers(tmp_path):
    assert PROGRAM.count("\ndef test_") == len(run(tmp_path, PROGRAM).splitlines())


def test_the_page_sweeps_over_parameters_and_loses_a_worker(tmp_path):
    printed = run(tmp_path, blocks(DOCS / "how-to" / "use-dask.md"))
    assert ["best: (5, 4)", "42"] == printed.splitlines()[::2]
