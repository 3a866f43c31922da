"""The application of Celery, for the worker and for the process that sends the tasks."""

import os
import time
import uuid

import redis  # noqa: F401  # the transport of Celery needs it, and imports it late
from celery import Celery, group

from ..redis import SERVER

app = Celery("celery_tasks", broker=f"{SERVER}/5", backend=f"{SERVER}/6")
# The worker inherits the name.
app.conf.task_default_queue = os.environ.setdefault("VTHREADS_BENCH_QUEUE", f"vthreads-bench-{uuid.uuid4().hex}")
app.conf.worker_prefetch_multiplier = 1
app.conf.result_expires = 600
app.conf.result_backend_thread_safe = "VTHREADS_BENCH_SHARED" in os.environ


@app.task
def nap(seconds):
    """Sleep."""
    time.sleep(seconds)
    return seconds


def results_of(signatures):
    """Run the tasks; return their results."""
    return group(signatures)().get(timeout=120)
