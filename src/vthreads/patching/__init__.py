"""Make the standard library's blocking calls park a virtual thread instead of blocking its carrier, and take it back.

Only leaves are replaced: the call that blocks, not the machinery around it. Each replacement asks whether it runs on a
virtual thread and otherwise does what the original did. Starting the runtime patches, unless it is told not to.
"""

from __future__ import annotations

import os
from typing import Any

from .._core.engine import Scheduler
from .._core.runtime import start_hooks
from .instances import exchange_instances
from .references import Undo, mend

__all__ = ["patch", "unpatch"]


class _Patch:
    """What is in force, and what takes it back."""

    def __init__(self) -> None:
        self.undo: list[Undo] = []
        self.active = False
        # After an explicit unpatch() nothing patches again by itself.
        self.refused = os.environ.get("VTHREADS_PATCH") == "0"


state = _Patch()


def patch() -> None:
    """Make blocking calls of the standard library virtual-thread-aware. Idempotent; not a checkpoint.

    Names captured before (`from time import sleep`) are mended. To be called from the main thread, best before other
    OS threads run.
    """
    state.refused = False
    if state.active:
        return
    from .table import functions, methods

    state.active = True
    for replacement in methods():
        state.undo.append(_set(replacement.holder, replacement.name, replacement.new))
    mended: dict[int, tuple[Any, Any]] = {}
    for replacement in functions():
        old = getattr(replacement.holder, replacement.name)
        if replacement.everywhere:
            mended[id(old)] = (old, replacement.new)
        else:
            state.undo.append(_set(replacement.holder, replacement.name, replacement.new))
    state.undo += mend(list(mended.values()))
    exchange_instances()


def unpatch() -> None:
    """Put the originals back, everywhere. Idempotent; not a checkpoint.

    Virtual threads alive now end normally; their further calls block the carrier.
    """
    state.refused = True
    if not state.active:
        return
    from ..net.socket import release_all

    state.active = False
    while state.undo:
        state.undo.pop()()
    release_all()


def _set(holder: Any, name: str, new: Any) -> Undo:
    if name in vars(holder):
        old = vars(holder)[name]
        setattr(holder, name, new)
        return lambda: setattr(holder, name, old)
    # Inherited from the C class below.
    setattr(holder, name, new)
    return lambda: delattr(holder, name)


def _patch_at_start(scheduler: Scheduler, wanted: bool) -> None:
    if wanted and not state.refused:
        patch()


start_hooks.append(_patch_at_start)
