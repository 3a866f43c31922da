"""SIGTERM as a request to stop: what service managers and container runtimes send. SIGINT stays Python's own."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

from .._calls.signals import quiet_handlers

__all__ = ["stopped_by_sigterm"]


@contextmanager
def stopped_by_sigterm(stop: Callable[[], object]) -> Iterator[None]:
    """Call `stop` on SIGTERM during the block. Does nothing if the program handles SIGTERM, or in another thread."""
    # Only the main OS thread may set handlers. A server in a spawned virtual thread leaves SIGTERM alone as well: it is
    # one part of a program, which knows the order in which its parts stop.
    is_main = threading.current_thread() is threading.main_thread()
    if not is_main or signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL:
        yield
        return

    def handle(signum: int, frame: FrameType | None) -> None:
        stop()

    # When a server has stopped, another SIGTERM ends no wait. So this handler does not exclude a deadlock.
    quiet_handlers.append(handle)
    signal.signal(signal.SIGTERM, handle)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        quiet_handlers.remove(handle)
