"""asyncio: a separate running loop for each virtual thread, so that several on one carrier can call `asyncio.run`.

A loop waits in a patched `select` object, which parks. If the root runs it, the scheduler becomes its guest instead.
"""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType
from typing import Any

from .._core.current import running
from .._event_loops.guests import loop_of_root
from .._event_loops.running_loops import note_running_loop

__all__ = ["fit"]


def fit(events: ModuleType) -> list[Callable[[], None]]:
    """Replace the function with which `asyncio.events` stores the running loop; return the function that undoes it."""
    original = events._set_running_loop

    def set_running_loop(loop: Any, /) -> None:
        """`asyncio._set_running_loop`. Not a checkpoint."""
        original(loop)
        thread = running()
        if thread is not None:
            note_running_loop(thread, loop)
            if thread is thread._scheduler.root:
                loop_of_root(thread, loop)

    events._set_running_loop = set_running_loop  # type: ignore[attr-defined]  # not in the type stubs
    return [lambda: setattr(events, "_set_running_loop", original)]
