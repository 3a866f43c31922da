"""`asyncio.run_coroutine_threadsafe`, with a loop that runs in an OS thread."""

import asyncio
import threading

from ..await_done.program import calls


def run(loop, operations, watch):
    """Call from this OS thread for each operation, and wait for each result."""
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    try:
        return calls(lambda call: asyncio.run_coroutine_threadsafe(call, loop).result(), operations, watch)
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()
