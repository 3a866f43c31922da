"""The virtual thread that runs on this OS thread, for the layers above it. Each blocking call begins with it.

Also the instruction that runs, as a number, for callers that need it at every switch. The engine and the start of the
runtime return threads of any kind; here they have the type that users see.
"""

from __future__ import annotations

from sys import _getframe
from typing import TYPE_CHECKING

from .engine import carriers, compiled
from .originals import get_ident
from .repeated import repeated_in

if TYPE_CHECKING:
    from types import CodeType

    from .thread import VirtualThread

    def running() -> VirtualThread | None:
        """Return the virtual thread that runs here; None on a plain OS thread and inside the scheduler."""

    def started_here() -> VirtualThread:
        """Return the running virtual thread; make a plain OS thread a carrier first, with its code as the root."""
else:
    from .engine import running
    from .starter import started_here

__all__ = [
    "carriers",
    "check_here",
    "current_ident",
    "give_way",
    "instruction_here",
    "instruction_number",
    "on_carrier",
    "running",
    "started_here",
]


def on_carrier() -> bool:
    """Return whether this OS thread is a carrier."""
    return get_ident() in carriers


@compiled
def check_here() -> None:
    """Deliver pending cancellations and interrupts to the running virtual thread. Does nothing on a plain OS thread."""
    thread = running()
    if thread is not None:
        thread._check()


@compiled
def give_way() -> None:
    """Let others run if the running virtual thread has used up its time slice; raises nothing."""
    thread = running()
    if thread is not None:
        thread._give_way()


@repeated_in("_sync/compiled/locks.pxi")
def current_ident() -> int:
    """Return the ident of the running virtual thread, or of the OS thread if there is none."""
    thread = running()
    if thread is None:
        return get_ident()
    return thread._thread_ident


@compiled
def instruction_here(depth: int) -> int:
    """Return the instruction of the caller, or of the call `depth` levels above, as a number; 0 if there is none."""
    try:
        frame = _getframe(depth + 1)
    except ValueError:
        return 0
    return instruction_number(frame.f_code, frame.f_lasti)


@repeated_in("_core/compiled/current.pxi")
def instruction_number(code: CodeType, instruction: int) -> int:
    """Return a number that is unique to the instruction while `code` (of less than 2 MiB) is alive."""
    # CPython aligns its objects to 16 bytes, so the addresses of two code objects leave room for their instructions.
    return (id(code) << 17) + instruction
