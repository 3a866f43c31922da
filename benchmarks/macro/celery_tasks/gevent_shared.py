"""`-P gevent` with `result_backend_thread_safe`."""

from .gevent import POOL

__all__ = ["ENVIRONMENT", "POOL"]

ENVIRONMENT = {"VTHREADS_BENCH_SHARED": "1"}
