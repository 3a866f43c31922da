"""uvloop: its loops wait in C, so on a carrier the scheduler becomes the guest of the loop that runs."""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType
from typing import Any

from .._core.current import running
from .._event_loops.guests import host, loop_hosts
from .._event_loops.running_loops import note_running_loop

__all__ = ["fit"]


def fit(uvloop: ModuleType) -> list[Callable[[], None]]:
    """Replace `uvloop.Loop.run_forever`, which all ways to run a loop call; return what undoes it."""
    original = uvloop.Loop.run_forever

    def run_forever(loop: Any) -> None:
        """`Loop.run_forever`. The virtual threads of this carrier run beside the loop."""
        thread = running()
        if thread is None or loop.is_running() or loop_hosts(loop, thread):
            original(loop)
            return
        guest = host(loop, thread)
        if guest is None:
            original(loop)
            return
        # uvloop itself may call the original function of asyncio, depending on the order of imports.
        note_running_loop(thread, loop)
        try:
            original(loop)
        finally:
            guest.end()
            note_running_loop(thread, None)

    uvloop.Loop.run_forever = run_forever
    return [lambda: delattr(uvloop.Loop, "run_forever")]
