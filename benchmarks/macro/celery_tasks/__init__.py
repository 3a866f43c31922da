"""A worker of Celery runs tasks that sleep for a second, all at once: what does a task cost the worker?

The broker and the result backend are databases 5 and 6 of the Redis server at VTHREADS_BENCH_REDIS, or at
redis://127.0.0.1:6379. A peer says which pool the worker has, by `POOL` and `ENVIRONMENT`. "gevent_shared" has the
setting `result_backend_thread_safe`, so its tasks share a client of the result backend, as those of vthreads do.
"""

import os
import subprocess
import sys
from pathlib import Path
from urllib.parse import urlsplit

from .. import cores
from ..answering import require_answer
from ..redis import SERVER
from ..watch import cpu_seconds_of_tree

SIZE = "tasks"
SIZES = (1_000,)
OPERATIONS = None
FIGURES = {"cpu": "µs per task", "memory": "MiB, the largest"}
HELPERS = ("application",)

SECONDS = 1.0
WARM_UP = 100


def measure(peer, size, operations):
    """Return the CPU time of a new worker per task, and its largest resident size."""
    place = urlsplit(SERVER)
    require_answer("Redis", place.hostname, place.port or 6379)
    # Imported here, because the packages may be missing.
    from .application import nap, results_of

    command = [sys.executable, "-m", "celery", "-A", "macro.celery_tasks.application", "worker", "-l", "ERROR"]
    cores.pin(cores.MEASURED)
    worker = subprocess.Popen(
        [*command, "-P", peer.POOL, "-c", str(size)],
        cwd=Path(__file__).parents[2],
        env={**os.environ, **peer.ENVIRONMENT},
        stdout=subprocess.DEVNULL,
    )
    cores.pin(cores.LOAD)
    try:
        results_of([nap.s(0)] * min(WARM_UP, size))
        before = cpu_seconds_of_tree(worker.pid)
        if results_of([nap.s(SECONDS)] * operations) != [SECONDS] * operations:
            raise AssertionError("a task has returned something else")
        used = cpu_seconds_of_tree(worker.pid) - before
        return {"cpu": used / operations * 1e6, "memory": peak_memory_of(worker.pid)}
    finally:
        worker.terminate()
        worker.wait()


def peak_memory_of(pid):
    """Return the largest resident size of a process in MiB; Linux."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM"))
