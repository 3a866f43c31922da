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
import os
import time
import warnings

from distributed import Client, LocalCluster
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


def seen(path):
    # Waits, as a virtual thread.
    while not os.path.exists(path):
        vthreads.sleep(0.01)
    return os.path.getsize(path)


def end_process():
    os._exit(1)


def keywords(first, *, workers, pure):
    return first, workers, pure


def test_equal_calls_run_once_each(client):
    with ThreadGroup() as group:
        pids = [dask.submit(group, client, record, "equal") for _ in range(4)]
    assert 4 == seen("equal")
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


def test_a_deadline_reaches_the_worker_and_the_events_are_removed(client):
    try:
        with fail_after(30) as limit, ThreadGroup() as group:
            dask.submit(group, client, run_until_cancelled, "begun-2", "ended-2")
            seen("begun-2")
            limit.deadline = vthreads.now()
    except TimeoutError:
        seen("ended-2")
    assert not dask.cancelled()
    while client.run_on_scheduler(lambda dask_scheduler: len(dask_scheduler.extensions["events"]._events)):
        vthreads.sleep(0.01)


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
