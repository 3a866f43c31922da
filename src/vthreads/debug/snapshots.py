"""The whole process as plain data: each carrier with its tree of threads, scopes and groups, calls, OS threads.

A carrier is asked between two switches, so that its tree is of one moment. One that does not answer in time is pinned:
then its tables are read from outside, which is safe but may be torn, and the stack that pins it is part of the answer.
The form of the data is described in docs/reference/dump.md. Nothing here knows how it is shown.
"""

from __future__ import annotations

import os
import platform
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from math import inf
from types import CodeType, FrameType
from typing import Any, TypeVar

from .._core.cancel import CancelNode, CancelScope
from .._core.engine import Scheduler, State, carriers, engine_name
from .._core.group import ThreadGroup
from .._core.originals import allocate_lock, get_ident
from .._core.runtime import frames_of_os_threads, own_os_threads
from .._core.spawn_site import SpawnSite
from .._core.thread import VirtualThread
from ..os_calls import calls_under_way, name_of
from .holders import held_in
from .places import Place, add_source, frame_of, place_of, stack_from
from .waits import LOCKS, Waits

__all__ = ["FORMAT", "ask", "name_of_os_thread", "snapshot", "tree_of"]

T = TypeVar("T")
Data = dict[str, Any]

# Of the data; a change that a reader has to know of raises it.
FORMAT = 1
# Seconds that a carrier has to answer before it counts as pinned.
PATIENCE = 0.5


def snapshot(*, stacks: bool = True, patience: float = PATIENCE) -> Data:
    """Look at all carriers of this process. Not a checkpoint; thread-safe; usable in a signal handler.

    Args:
        stacks: take the stacks as well, which is most of the work.
        patience: seconds that each carrier has to answer.

    Returns:
        What docs/reference/dump.md describes, ready for `json.dumps`.
    """
    found = [_look_at(scheduler, stacks, patience) for scheduler in list(carriers.values())]
    data = {
        "format": FORMAT,
        "pid": os.getpid(),
        "python": platform.python_version(),
        "engine": engine_name,
        "carriers": found,
        "calls": [_call(call) for call in calls_under_way()],
        "os_threads": list(_os_threads(stacks)),
    }
    for places in _all_stacks(data):
        add_source(places)
    return data


def _call(call: Any) -> Data:
    return {
        "kind": call.kind,
        "function": name_of(call.function),
        "since": call.since,
        "abandoned": call.abandoned,
    }


def _all_stacks(data: Data) -> Iterator[list[Place]]:
    for carrier in data["carriers"]:
        yield carrier["stack"]
        yield from (node["stack"] for node in carrier["tree"] if node["type"] == "thread")
    yield from (os_thread["stack"] for os_thread in data["os_threads"])


def _os_threads(stacks: bool) -> Iterator[Data]:
    """Those that are neither carriers nor the runtime's own nor the one that asks."""
    others = frames_of_os_threads()
    for ident in others.keys() - carriers.keys() - own_os_threads - {get_ident()}:
        yield {"ident": ident, "name": name_of_os_thread(ident), "stack": stack_from(others[ident]) if stacks else []}


def name_of_os_thread(ident: int) -> str:
    """Name the OS thread `ident` as `threading` does."""
    known: dict[int, threading.Thread] = threading._active  # type: ignore[attr-defined]  # not in the type stubs
    starting: dict[threading.Thread, Any] = threading._limbo  # type: ignore[attr-defined]  # likewise
    # `Thread.start` returns before the new thread has moved from one to the other.
    os_thread = known.get(ident) or next((one for one in list(starting) if one.ident == ident), None)
    return f"OS thread {ident}" if os_thread is None else os_thread.name


# --- asking a carrier


def ask(scheduler: Scheduler, question: Callable[[], T], patience: float) -> tuple[T, bool]:
    """Have `question()` answered on the carrier of `scheduler`; from here, with False, if that takes too long.

    It must be safe to ask from here, and must not park.
    """
    if get_ident() == scheduler.ident:
        return question(), True
    answered, claim = allocate_lock(), allocate_lock()
    answered.acquire()
    outcome: list[T] = []

    def answer() -> None:
        if claim.acquire(False):
            try:
                outcome.append(question())
            finally:
                answered.release()

    try:
        scheduler.post(answer)
    except OSError:
        # Its poller was closed meanwhile: the carrier has ended.
        return question(), False
    if not answered.acquire(True, patience) and claim.acquire(False):
        return question(), False
    if not outcome:
        # It is answering right now.
        answered.acquire(True, 10 * patience)
    return (outcome[0], True) if outcome else (question(), False)


def _look_at(scheduler: Scheduler, stacks: bool, patience: float) -> Data:
    tree, has_answered = ask(scheduler, lambda: tree_of(scheduler, stacks), patience)
    frame = None if has_answered else frames_of_os_threads().get(scheduler.ident)
    return {
        "os_thread": {"ident": scheduler.ident, "name": name_of_os_thread(scheduler.ident)},
        "pinned": not has_answered,
        "stack": stack_from(frame),
        "now": scheduler.clock.now(),
        "poller": scheduler.poller.name,
        "switches": scheduler.switches,
        "ready": len(scheduler._ready),
        "timers": len(scheduler.timers),
        "threads": dict(Counter(node["state"] for node in tree if node["type"] == "thread")),
        "tree": tree,
    }


# --- the tree of a carrier


def tree_of(scheduler: Scheduler, stacks: bool) -> list[Data]:
    """Every thread, scope and group of `scheduler`, each before what is inside it."""
    return _Tree(scheduler, stacks).nodes


class _Tree:
    """A walk over the cancel tree of one carrier."""

    def __init__(self, scheduler: Scheduler, stacks: bool) -> None:
        self._scheduler = scheduler
        self._stacks = stacks
        self._now = scheduler.clock.now()
        self._waits = Waits(scheduler)
        self._frames: dict[VirtualThread, FrameType | None] = {}
        self._sites: dict[tuple[CodeType, int], str] = {}
        # Waits for a lock that does not say who holds it, by the lock's id.
        self._unowned: dict[int, list[Data]] = {}
        self.nodes: list[Data] = []
        self._walk()
        if self._unowned:
            self._find_holders()

    def _walk(self) -> None:
        scheduler = self._scheduler
        groups = [group for group in (scheduler.background, scheduler.threads, scheduler.daemons) if len(group)]
        roots: list[CancelNode] = [scheduler.root, *(group._scope for group in groups)]
        nodes: list[tuple[CancelNode, int | None, int]] = [(root, None, 0) for root in reversed(roots)]
        while nodes:
            node, parent, depth = nodes.pop()
            number = len(self.nodes)
            self.nodes.append({"id": number, "parent": parent, "depth": depth, **self._describe(node)})
            nodes += [(child, number, depth + 1) for child in reversed(list(node._children or ()))]

    def _describe(self, node: CancelNode) -> Data:
        if isinstance(node, VirtualThread):
            return self._thread(node)
        assert isinstance(node, CancelScope)
        return self._scope(node) if node.group is None else {**self._group(node.group), **self._limits(node)}

    def _thread(self, thread: VirtualThread) -> Data:
        state = thread.state
        frame = self._frames[thread] = frame_of(thread, self._scheduler)
        parked = state is State.PARKED
        affected_by = thread.innermost._affected_by
        return {
            "type": "thread",
            "name": thread.name,
            "ident": thread.ident,
            "function": None if thread._call is None else name_of(thread._call[0]),
            "state": state.value,
            "parked_for": max(0.0, self._now - thread.parked_at) if parked and thread.parked_at > -inf else None,
            "waits_for": self._wait(thread, frame) if parked else None,
            "cancelled": None if affected_by is None else affected_by._cancel_reason or "no reason was given",
            "interrupts": len(thread._interrupts or ()),
            "spawned_at": [self._told(site) for site in thread.sites],
            "stack": stack_from(frame) if self._stacks else [],
        }

    def _told(self, site: SpawnSite) -> str:
        # Looking for the line takes longer than all the rest, and most threads come from the same few places.
        place = site._code, site._instruction
        if place not in self._sites:
            self._sites[place] = str(site)
        return self._sites[place]

    def _wait(self, thread: VirtualThread, frame: FrameType | None) -> Data:
        wait, waited_for = self._waits.of(thread, frame)
        if isinstance(waited_for, LOCKS):
            owner = getattr(waited_for.statistics(), "owner", None)
            wait["owner"] = None if owner is None else {"ident": owner, "name": name_of_os_thread(owner), "at": None}
            self._unowned.setdefault(id(waited_for), []).append(wait)
        return wait

    def _limits(self, scope: CancelScope) -> Data:
        return {
            "cancelled": (scope._cancel_reason or "no reason was given") if scope.cancel_called else None,
            "deadline_in": None if scope.deadline == inf else scope.deadline - self._now,
            "shielded": scope._shielded(),
            "shield_ends_in": scope._shield_until - self._now if -inf < scope._shield_until < inf else None,
        }

    def _scope(self, scope: CancelScope) -> Data:
        return {"type": "scope", **self._limits(scope)}

    def _group(self, group: ThreadGroup) -> Data:
        return {
            "type": "group",
            "name": group.name,
            "state": group._phase.value,
            "members": len(group),
            "queued": len(group._queued),
            "failures": [type(failure).__qualname__ for failure, _ in list(group._failures)],
            "closed": group._closed,
        }

    # --- who holds what

    def _find_holders(self) -> None:
        """Name the owners: those that the lock knew by number, and those that a `with` statement betrays."""
        for thread, innermost in self._frames.items():
            for waits in self._unowned.values():
                for wait in waits:
                    if wait["owner"] is not None and wait["owner"]["ident"] == thread.ident:
                        wait["owner"]["name"] = thread.name
            self._note_held(innermost, thread.ident, thread.name)
        for ident, innermost in frames_of_os_threads().items():
            if ident not in carriers:
                self._note_held(innermost, ident, name_of_os_thread(ident))

    def _note_held(self, frame: FrameType | None, ident: int, name: str) -> None:
        while frame is not None:
            for lock in held_in(frame):
                for wait in self._unowned.get(lock, ()):
                    if wait["owner"] is None or (wait["owner"]["ident"] == ident and wait["owner"]["at"] is None):
                        wait["owner"] = {"ident": ident, "name": name, "at": place_of(frame)}
            frame = frame.f_back
