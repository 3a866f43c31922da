"""Make the standard library's blocking calls park a virtual thread instead of blocking its carrier, and take it back.

Only leaves are replaced: the call that blocks, not the machinery around it. Each replacement asks whether it runs on a
virtual thread and otherwise does what the original did. Starting the runtime patches, unless it is told not to.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable
from functools import partial
from types import ModuleType
from typing import TYPE_CHECKING, Any

from .. import integrations
from .._core.current import started_here
from .._core.engine import Scheduler
from .._core.runtime import start_hooks
from ..errors import Empty
from ..integrations.imports import watch_imports
from ..preemption import preempt as preempt_carrier
from ..queues import SimpleQueue
from .instances import exchange_instances
from .references import Undo, mend
from .stand_in import stand_in

if TYPE_CHECKING:
    from .table import Replacement

__all__ = ["patch", "unpatch"]


class _Patch:
    """What is in force, and what takes it back."""

    def __init__(self) -> None:
        self.undo: list[Undo] = []
        self.undo_threads: list[Undo] = []
        self.active = False
        self.threads = False
        # After an explicit unpatch() nothing patches again by itself.
        self.refused = os.environ.get("VTHREADS_PATCH") == "0"


state = _Patch()


def patch(*, threads: bool = False, preempt: float | None = None) -> None:
    """Make blocking calls of the standard library virtual-thread-aware. Idempotent; not a checkpoint.

    Names captured before (`from time import sleep`) are mended. To be called from the main thread, best before other
    OS threads run.

    Args:
        threads: `threading.Thread` starts virtual threads, too, when it is started by one or by the main thread. Left
            out, a thread stays an OS thread, and shares locks, queues and futures with virtual threads. Once on, it
            stays so until `unpatch`.
        preempt: seconds, as for `run`, for programs that do not call it: the main thread becomes a carrier here, unless
            it is one, and who computes on it for longer lets others run, as long as that carrier lasts; None: as it is.

    Raises:
        RuntimeError: the caller cannot be preempted.
        ValueError: the seconds are out of their range.
    """
    state.refused = False
    if not state.active:
        from .table import functions, methods

        state.active = True
        for replacement in methods():
            new = stand_in(getattr(replacement.holder, replacement.name), replacement.new)
            state.undo.append(_set(replacement.holder, replacement.name, new))
        _replace_functions(functions(), state.undo)
        exchange_instances()
        _exchange_standard_input()
        state.undo.append(watch_imports({"_queue"}, _queue_imported_again))
        state.undo += integrations.activate()
    if threads and not state.threads:
        from .table import thread_functions

        state.threads = True
        _replace_functions(thread_functions(), state.undo_threads)
    if preempt is not None:
        preempt_carrier(started_here().scheduler, preempt)


def _exchange_standard_input() -> None:
    """Like locks, it is not put back: on OS threads the new one is as good, and it may have read ahead."""
    from ..files.standard_input import successor_of

    new = successor_of(sys.stdin)
    if new is not None:
        mend([(sys.stdin, new)])


def _queue_imported_again(copy: ModuleType) -> None:
    """C code makes new types for each import. Like locks, those that are found here are not put back."""
    vars(copy).update(SimpleQueue=SimpleQueue, Empty=Empty)


def _replace_functions(replacements: Iterable[Replacement], undo: list[Undo]) -> None:
    mended: dict[int, tuple[Any, Any]] = {}
    for replacement in replacements:
        old = getattr(replacement.holder, replacement.name)
        new = stand_in(old, replacement.new)
        undo += _with_abilities(old, new)
        if replacement.everywhere:
            mended[id(old)] = (old, new)
        else:
            undo.append(_set(replacement.holder, replacement.name, new))
    undo += mend(list(mended.values()))


def unpatch() -> None:
    """Put the originals back, everywhere. Idempotent; not a checkpoint.

    Virtual threads alive now end normally; their further calls block the carrier.
    """
    state.refused = True
    if not state.active:
        return
    from ..net.socket import release_all

    unpatch_threads()
    state.active = False
    while state.undo:
        state.undo.pop()()
    release_all()


def unpatch_threads() -> None:
    """Let `threading.Thread` start OS threads again; what else is patched stays so."""
    state.threads = False
    while state.undo_threads:
        state.undo_threads.pop()()


def _with_abilities(old: Any, new: Any) -> list[Undo]:
    """Let `os` say of `new` what it says of `old`: `shutil.rmtree` is safe only if `os.open` takes a `dir_fd`."""
    undo: list[Undo] = []
    for abilities in (os.supports_dir_fd, os.supports_fd, os.supports_follow_symlinks):
        if old in abilities and new not in abilities:
            abilities.add(new)
            undo.append(partial(abilities.discard, new))
    return undo


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
