"""Threads that wait for a condition, and notify it."""

from __future__ import annotations


def wait_for_notify(condition, log, name, timeout=None):
    """Wait once, and log the name if notified."""
    with condition:
        if condition.wait(timeout):
            log.append(name)


def notify(condition, n=1):
    """Notify without a checkpoint or a turn for others in between."""
    assert condition.acquire(blocking=False)
    condition.notify(n)
    condition.release()
