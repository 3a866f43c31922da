"""Blocking code awaits `asyncio.sleep(0)`, on the OS thread of uvloop: what does one cost?"""

import asyncio

from ..in_process import in_process

SIZE = "threads"
SIZES = (1,)
OPERATIONS = 20_000
FIGURES = {"cpu": "µs per call"}
PEERS = "await_done"

__all__ = ["FIGURES", "OPERATIONS", "PEERS", "SIZE", "SIZES", "measure"]


async def sleep():
    """Yield to the loop once."""
    await asyncio.sleep(0)


def measure(peer, size, operations):
    """Run the peers of `await_done` with another coroutine."""
    return in_process(peer, size, operations, sleep)
