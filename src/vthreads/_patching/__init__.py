"""Make the standard library's blocking calls park a virtual thread instead of blocking its carrier, and undo that.

Only leaves are replaced: the call that blocks, not the code around it. Each replacement checks whether it runs on a
virtual thread, and does the same as the original if not. The start of the runtime patches, unless that is disabled.
"""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Iterable
from functools import partial
from types import ModuleType
from typing import TYPE_CHECKING, Any

from .. import integrations
from .._core.arguments import checked_period
from .._core.current import started_here
from .._core.engine import Scheduler
from .._core.originals import PlainRLock
from .._core.participants import Participant, participate
from .._core.replaced import latest, note_replaced, note_replaced_method
from ..errors import Empty
from ..integrations._imports import call_at_end, watch_imports
from .captures import replace_everywhere
from .classes import adopt_classes
from .foreign import is_foreign, refuse_foreign
from .holders import Survey, without_collections
from .instances import exchange_instances
from .leftovers import CLASS_OF_C, Leftover, place_of_caller, warn_of_leftovers
from .open_files import files_that_wait
from .references import Undo, replace_references, set_attribute
from .stand_in import stand_in

if TYPE_CHECKING:
    from .table import Replacement

__all__ = ["patch", "unpatch"]


# Where the timeouts of sockets are; imported with `socket`.
SOCKETS = f"{__name__.partition('.')[0]}._calls.net.managed"
TLS_SOCKETS = f"{__name__.partition('.')[0]}._calls.net.ssl"


class _Patch:
    """The state of the patch, and the functions that undo it."""

    def __init__(self) -> None:
        self.undo: list[Undo] = []
        self.undo_threads: list[Undo] = []
        self.active = False
        self.threads = False
        # After an explicit unpatch() only an explicit patch() patches again.
        self.refused = os.environ.get("VTHREADS_PATCH") == "0"
        self.renew_lock()

    def renew_lock(self) -> None:
        """Create the lock that lets one OS thread at a time patch.

        A second OS thread that starts a runtime meanwhile needs the complete patch, so it waits. The lock is reentrant,
        because the garbage collector may run a finalizer that spawns during the patch.
        """
        self.lock = PlainRLock()


state = _Patch()


def patch(*, threads: bool = False, preempt: float | None = None) -> None:
    """Make blocking calls of the standard library park virtual threads. Idempotent; not a checkpoint.

    References taken before (`from time import sleep`) are replaced too. Call it from the main thread, best before other
    OS threads run.

    Args:
        threads: `threading.Thread` starts a virtual thread too, if it is started by a virtual thread or by the main
            thread. Otherwise threads stay OS threads, and share locks, queues and futures with virtual threads. Once
            true, it stays true until `unpatch`.
        preempt: seconds, as for `run`, for programs that do not call it. The main thread becomes a carrier, unless it
            is one, and a thread that computes on it for longer lets others run, as long as that carrier exists. None
            leaves it as it is.

    Raises:
        RuntimeError: the caller cannot be preempted, or gevent or eventlet has patched the standard library.
        ValueError: the seconds are out of range.
    """
    preempt = None if preempt is None else checked_period(preempt, "preempt")
    with state.lock:
        _patch(threads)
    if preempt is not None:
        from .._preemption import preempt as preempt_carrier

        preempt_carrier(started_here()._scheduler, preempt)


def _patch(threads: bool) -> None:
    state.refused = False
    leftovers = [] if state.active else _replace_all()
    if threads and not state.threads:
        from .table import thread_functions

        state.threads = True
        _replace_functions(thread_functions(), None, state.undo_threads)
    leftovers = [leftover for leftover in leftovers if leftover.thing is not state.lock]
    if leftovers:
        # Last, since the program may have made an error of the warning.
        warn_of_leftovers(leftovers)


def _replace_all() -> list[Leftover]:
    """Replace what the table lists, and the objects that were made before; return those that stay."""
    # First, because modules of the replacements read attributes of these classes when they are imported.
    refuse_foreign()
    from .table import functions, importable, in_use, methods

    state.active = True
    watch = watch_imports(importable(), _imported_later)
    state.undo.append(watch.end)
    imported = in_use() | {module.__name__ for module in watch.present}
    changed = _replace_methods(methods(imported=imported), state.undo)
    # Each collection would read the lists of the survey, which have all objects.
    with without_collections():
        survey = Survey()
        in_modules = list(functions(imported))
        changed.update(id(each.holder) for each in in_modules)
        copies = survey.modules(importable())
        in_copies = _in_copies(copies, changed)
        for copy in copies:
            state.undo += _with_patched_sockets(copy)
        _replace_methods([each for each in in_copies if isinstance(each.holder, type)], state.undo)
        in_modules += [each for each in in_copies if not isinstance(each.holder, type)]
        _replace_functions(in_modules, survey, state.undo, _bound_before(survey))
        _exchange_standard_input(survey)
        refused = [Leftover(cls, CLASS_OF_C) for cls in adopt_classes()]
        leftovers = refused + files_that_wait(survey) + exchange_instances(survey)
        del survey
    state.undo += integrations.activate()
    return leftovers


def _exchange_standard_input(survey: Survey) -> None:
    """Replace `sys.stdin`. Like locks, it is never restored: it works on OS threads too, and may have read ahead."""
    from .._calls.files.standard_input import successor_of

    new = successor_of(sys.stdin)
    if new is not None:
        replace_everywhere([(sys.stdin, new)], survey)


def _imported_later(module: ModuleType) -> None:
    """Patch a module whose import, first or repeated, has ended after the patch. Called on any OS thread."""
    from .table import in_copy, users_of

    if not state.active:
        return
    for user in users_of(module.__name__):
        # The import of one that imports `module` has caused this call: it has not defined its replacements yet.
        if call_at_end(user, partial(_imported_later, module)):
            return
    undo: list[Undo] = []
    replacements = list(in_copy(module))
    _replace_methods([each for each in replacements if isinstance(each.holder, type)], undo)
    # Its functions may come from a module of C code, which nothing but it has imported before.
    _replace_functions([each for each in replacements if not isinstance(each.holder, type)], None, undo)
    if module.__name__ == "_queue":
        vars(module)["Empty"] = Empty
    undo += _with_patched_sockets(module)
    state.undo += undo
    if not state.active:
        # Another OS thread has restored the originals meanwhile.
        _undo_all()


def _with_patched_sockets(module: ModuleType) -> list[Undo]:
    """Make a copy of `ssl` use the patched class: the replacements call the original methods of that class by name."""
    sockets = sys.modules.get(TLS_SOCKETS)
    if module.__name__ != "ssl" or sockets is None:
        return []
    old, context = vars(module).get("SSLSocket"), vars(module).get("SSLContext")
    undo = [set_attribute(module, "SSLSocket", sockets.TLS)]
    if context is not None and context.sslsocket_class is old:
        undo.append(set_attribute(context, "sslsocket_class", sockets.TLS))
    return undo


def _in_copies(copies: list[ModuleType], changed: set[int]) -> list[Replacement]:
    """Replacements in other copies of modules: a program may import a module again and keep the first copy."""
    from .table import in_copy

    return [each for copy in copies for each in in_copy(copy) if id(each.holder) not in changed]


def _replace_methods(replacements: Iterable[Replacement], undo: list[Undo]) -> set[int]:
    """Set the methods; return the ids of the classes."""
    changed: set[int] = set()
    for replacement in replacements:
        old = getattr(replacement.holder, replacement.name)
        new = stand_in(old, replacement.new)
        undo.append(note_replaced_method(old, replacement.holder, replacement.name))
        undo.append(set_attribute(replacement.holder, replacement.name, new))
        changed.add(id(replacement.holder))
    return changed


def _replace_functions(
    replacements: Iterable[Replacement],
    survey: Survey | None,
    undo: list[Undo],
    bound: Iterable[tuple[Any, Any]] = (),
) -> None:
    pairs_by_id: dict[int, tuple[Any, Any]] = {}
    for replacement in replacements:
        old = getattr(replacement.holder, replacement.name)
        if not callable(old):
            # The program has removed the call (`select.epoll = None`). References to None must stay as they are.
            continue
        new = stand_in(old, replacement.new)
        undo += _with_abilities(old, new)
        if replacement.everywhere and not is_foreign(old, replacement.holder.__name__):
            undo += note_replaced(old, new)
            pairs_by_id[id(old)] = (old, new)
        else:
            undo.append(set_attribute(replacement.holder, replacement.name, new))
    pairs = [*pairs_by_id.values(), *bound]
    if pairs:
        undo += replace_references(pairs) if survey is None else replace_everywhere(pairs, survey)


def _bound_before(survey: Survey) -> list[tuple[Any, Any]]:
    """Return pairs of a method that was bound before the patch, such as `receive = connection.recv`, and a new one.

    A bound method keeps the function of its class, so the old one would wait in the original.
    """
    pairs = ((method, latest(method)) for method in survey.bound_methods())
    return [(old, new) for old, new in pairs if new is not old]


def unpatch() -> None:
    """Restore the originals everywhere. Idempotent; not a checkpoint.

    Virtual threads that are alive end normally; their later calls block the carrier.
    """
    with state.lock:
        state.refused = True
        if not state.active:
            return
        unpatch_threads()
        state.active = False
        _undo_all()
        sockets = sys.modules.get(SOCKETS)
        if sockets is not None:
            sockets.release_all()


def _undo_all() -> None:
    while state.undo:
        state.undo.pop()()


def unpatch_threads() -> None:
    """Make `threading.Thread` start OS threads again; all other replacements stay."""
    state.threads = False
    while state.undo_threads:
        state.undo_threads.pop()()


def _with_abilities(old: Any, new: Any) -> list[Undo]:
    """Copy the entries of `old` in `os.supports_*` to `new`: `shutil.rmtree` is safe only if `os.open` has `dir_fd`."""
    undo: list[Undo] = []
    for abilities in (os.supports_dir_fd, os.supports_fd, os.supports_follow_symlinks):
        if old in abilities and new not in abilities:
            abilities.add(new)
            undo.append(partial(abilities.discard, new))
    return undo


def _patch_at_start(scheduler: Scheduler, wanted: bool) -> None:
    if wanted and not state.refused:
        try:
            patch()
        except RuntimeWarning as warning:
            # The program makes errors of warnings. All is patched, and a carrier that has started half would be lost.
            warnings.showwarning(warning, RuntimeWarning, *place_of_caller())


# After a fork only the forking OS thread exists, and another one may have held the lock.
participate(__name__, Participant(started=_patch_at_start, forked=state.renew_lock))
