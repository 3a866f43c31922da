"""Describe a deadlock: which thread waits for which."""

from __future__ import annotations

import threading
from typing import Any

from ..._core.deadlock import describe_wait, shown
from ..._core.thread import VirtualThread
from .operations import Operations
from .source_lines import describe_place

__all__ = ["describe_deadlock"]


def describe_deadlock(parked: list[VirtualThread], operations: Operations) -> str:
    """Return the message of the error: the cycle, if there is one, and what each thread waits for."""
    lines = ["no thread can continue"]
    cycle = _cycle(parked, operations)
    if cycle:
        names = [f"'{thread.name}'" for thread in [*cycle, cycle[0]]]
        lines[0] += ": " + " waits for ".join(names)
    lines += [f"  '{thread.name}' {_describe(thread, operations)}" for thread in parked]
    return "\n".join(lines)


def _describe(thread: VirtualThread, operations: Operations) -> str:
    awaited = operations.awaited.get(thread)
    place = describe_place(operations.place_of_program(thread._frame()))
    if awaited is None:
        return f"waits in {describe_wait(thread)}"
    if isinstance(awaited, threading.Thread):
        return f"waits at {place} for the end of '{awaited.name}'"
    held = operations.holder(awaited)
    if held is None:
        return f"waits at {place} for {shown(awaited)}, which no living thread holds"
    who = "itself" if held.thread is thread else f"'{held.thread.name}'"
    return f"waits at {place}\n    for {shown(awaited)}\n    held by {who}, acquired at {describe_place(held.place)}"


def _cycle(parked: list[VirtualThread], operations: Operations) -> list[VirtualThread]:
    """Return threads of which each waits for the next, and the last for the first; an empty list if there are none."""
    for first in parked:
        chain = [first]
        while (after := _awaited_thread(chain[-1], operations)) is not None and after not in chain:
            chain.append(after)
        if after is not None:
            return chain[chain.index(after) :]
    return []


def _awaited_thread(thread: VirtualThread, operations: Operations) -> VirtualThread | None:
    awaited: Any = operations.awaited.get(thread)
    if awaited is None:
        return None
    if not isinstance(awaited, threading.Thread):
        held = operations.holder(awaited)
        return None if held is None else held.thread
    assert operations.run is not None
    return next((other for other in operations.run.threads if other.ident == awaited.ident), None)
