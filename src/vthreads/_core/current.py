"""Who runs on this OS thread: the registry of carriers, and the one question that every blocking call asks.

And where in the code that is, as a number: for those who ask it at every switch.
"""

from __future__ import annotations

from collections.abc import Callable
from sys import _getframe
from typing import TYPE_CHECKING, Any

from .engine import carriers, compiled
from .originals import get_ident

if TYPE_CHECKING:
    from types import CodeType

    from .thread import VirtualThread

    def running() -> VirtualThread | None:
        """The virtual thread that runs on this OS thread; None on a plain OS thread and inside the scheduler."""
else:
    from .engine import running

__all__ = [
    "carriers",
    "checkpoint",
    "current_ident",
    "give_way",
    "instruction_here",
    "instruction_number",
    "on_carrier",
    "running",
    "set_starter",
    "started_here",
]


def on_carrier() -> bool:
    """Whether this OS thread is a carrier."""
    return get_ident() in carriers


@compiled
def checkpoint() -> None:
    """Deliver what is pending for the virtual thread that runs here. On a plain OS thread nothing happens."""
    thread = running()
    if thread is not None:
        thread.check()


@compiled
def give_way() -> None:
    """Let others run if the virtual thread that runs here has run for long; nothing is raised."""
    thread = running()
    if thread is not None:
        thread.give_way()


def current_ident() -> int:
    """Identity of whatever runs here: the virtual thread's, or the OS thread's."""
    thread = running()
    if thread is None:
        return get_ident()
    return thread.thread_ident


@compiled
def instruction_here(depth: int) -> int:
    """The instruction that the caller is at, or `depth` calls above it, as a number; 0 if there is no such call."""
    try:
        frame = _getframe(depth + 1)
    except ValueError:
        return 0
    return instruction_number(frame.f_code, frame.f_lasti)


def instruction_number(code: CodeType, instruction: int) -> int:
    """The same for the same instruction, as long as somebody keeps its code (of less than two MiB)."""
    # CPython aligns its objects to 16 bytes.
    return (id(code) << 17) + instruction


def _no_starter() -> Any:
    raise RuntimeError("the runtime is not there yet: import vthreads before using its parts")


_starter: Callable[[], VirtualThread] = _no_starter


def set_starter(starter: Callable[[], VirtualThread]) -> None:
    """Called by the runtime, which alone can make an OS thread a carrier."""
    global _starter
    _starter = starter


def started_here() -> VirtualThread:
    """The virtual thread that runs here; a plain OS thread becomes a carrier by this, its code the root thread."""
    thread = running()
    return _starter() if thread is None else thread
