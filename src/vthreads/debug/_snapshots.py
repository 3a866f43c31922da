"""The whole process as plain data: each carrier with its tree of threads, scopes and groups; calls; OS threads.

A carrier collects its data between its switches, in slices, so each node shows the moment at which it was read. A
carrier that does not answer in time is pinned: then its tables are read from outside, which is safe but may be
inconsistent, and the stack that pins it is included. docs/reference/dump.md describes the data. This module does not
depend on how they are shown.
"""

from __future__ import annotations

import os
import platform
from collections import Counter
from collections.abc import Generator, Iterator
from math import inf
from types import CodeType, FrameType
from typing import Any, NamedTuple

from .._core.arguments import checked_count, checked_span
from .._core.cancel import CancelNode, CancelScope
from .._core.engine import Scheduler, State, carriers, engine_name
from .._core.members import Members
from .._core.originals import get_ident
from .._core.os_thread_kinds import frames_of_os_threads, own_os_threads
from .._core.spawn_site import SpawnSite
from .._core.thread import VirtualThread
from .._os_threads.calls import calls_under_way, name_of
from .._sync.locks import Lock
from ._alike import SimilarThreads
from ._garbage_collector import promote_young_objects
from ._holders import held_in
from ._os_thread_names import name_of_os_thread
from ._slices import ask, finish
from ._stacks import Place, add_source, frame_of, place_of, positions_from, stack_from
from ._waits import LOCKS, Waits

__all__ = ["circle_of", "snapshot"]

Data = dict[str, Any]

# Version of the format; incremented by changes that readers must handle.
FORMAT = 1
# Seconds after which a carrier that has not answered counts as pinned.
PATIENCE = 0.5
# Number of threads whose descriptions are promoted together.
PROMOTED_AT_ONCE = 1000


def snapshot(*, stacks: bool = True, patience: float = PATIENCE, fold: bool = False, limit: int | None = None) -> Data:
    """Collect the data of all carriers of this process. Not a checkpoint; thread-safe; usable in a signal handler.

    Args:
        stacks: include the stacks, which take most of the time.
        patience: seconds that each carrier has to answer.
        fold: of similar threads, include the first and the number of the others.
        limit: most threads, scopes and groups to include per carrier; None for all. Other threads are only counted.

    Returns:
        The data that docs/reference/dump.md describes, ready for `json.dumps`.
    """
    limit = None if limit is None else checked_count(limit, "limit", 1)
    patience = checked_span(patience, "patience")
    collected = [_collect(scheduler, stacks, patience, fold, limit) for scheduler in list(carriers.values())]
    found = [data for data, _ in collected]
    _count_threads(collected)
    data = {
        "format": FORMAT,
        "pid": os.getpid(),
        "python": platform.python_version(),
        "engine": engine_name,
        "carriers": found,
        "calls": [_call(call) for call in calls_under_way()],
        "os_threads": list(_os_threads(stacks)),
    }
    # Threads share the lists of places, so add the source to each list once.
    for places in {id(places): places for places in _all_stacks(data)}.values():
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
    """Yield the OS threads that are neither carriers, nor private ones of the runtime, nor the caller."""
    others = frames_of_os_threads()
    for ident in others.keys() - carriers.keys() - own_os_threads - {get_ident()}:
        yield {"ident": ident, "name": name_of_os_thread(ident), "stack": stack_from(others[ident]) if stacks else []}


# --- a carrier


def _collect(scheduler: Scheduler, stacks: bool, patience: float, fold: bool, limit: int | None) -> tuple[Data, _Tree]:
    tree, has_answered = ask(scheduler, lambda: _Tree(scheduler, stacks, fold, limit).grow(), patience)
    frame = None if has_answered else frames_of_os_threads().get(scheduler.ident)
    data = {
        "os_thread": {"ident": scheduler.ident, "name": name_of_os_thread(scheduler.ident)},
        "pinned": not has_answered,
        "stack": stack_from(frame),
        "now": scheduler.clock.now(),
        "poller": scheduler.poller.name,
        "switches": scheduler.switches,
        "ready": len(scheduler._ready),
        "timers": len(scheduler.timers),
        "threads": {},
        "circle": tree.circle,
        "left_out": tree.left_out,
        "tree": tree.nodes,
    }
    return data, tree


def _count_threads(collected: list[tuple[Data, _Tree]]) -> None:
    """Add to the data of each carrier the number of its threads, which may be in the trees of other carriers."""
    states: dict[int, Counter[str]] = {}
    for _, tree in collected:
        for ident, counted in tree.states.items():
            states.setdefault(ident, Counter()).update(counted)
    for data, _ in collected:
        data["threads"] = dict(states.get(data["os_thread"]["ident"], {}))


def circle_of(scheduler: Scheduler) -> list[Data]:
    """Return the threads of `scheduler` that wait for each other's locks in a circle, in order; call on its carrier."""
    return finish(_Tree(scheduler, stacks=False, fold=True, limit=None).grow()).circle


class _LockWait(NamedTuple):
    """A thread that waits for a lock.

    Attributes:
        parked_at: the start of the wait: if that is the same later, it waited all the time.
        holder: `Lock._holder` if a `with` statement has acquired the lock, else 0.
    """

    thread: VirtualThread
    parked_at: float
    wait: Data
    holder: int

    def goes_on(self) -> bool:
        return self.thread.state is State.PARKED and self.thread._parked_at == self.parked_at


class _Tree:
    """A walk over the cancel tree of one carrier, which can be interrupted after each node.

    Attributes:
        nodes: every thread, scope and group to show, each before its content.
        states: number of threads by state, for each carrier by the ident of its OS thread.
        left_out: number of threads beyond the limit.
        circle: the threads that wait for each other's locks in a circle.
    """

    def __init__(self, scheduler: Scheduler, stacks: bool, fold: bool, limit: int | None) -> None:
        self._scheduler = scheduler
        self._stacks = stacks
        self._limit = inf if limit is None else limit
        self._similar = SimilarThreads() if fold else None
        # Of each carrier: members of a group may run on several.
        self._waits: dict[Scheduler, Waits] = {}
        self._threads: list[VirtualThread] = []
        self._sites: dict[tuple[CodeType, int], str] = {}
        # The descriptions that threads share. Most are at few places; and with a list and several dicts for each thread
        # of 100,000, the garbage collector would stop the process for a tenth of a second, to traverse all objects.
        self._stacks_known: dict[tuple[tuple[CodeType, int], ...], list[Place]] = {}
        self._spawned_known: dict[tuple[str, ...], list[str]] = {}
        # Waits for locks, by id of the lock.
        self._lock_waits: dict[int, list[_LockWait]] = {}
        self.nodes: list[Data] = []
        self.states: dict[int, Counter[str]] = {}
        self.left_out = 0
        self.circle: list[Data] = []

    def grow(self) -> Generator[None, None, _Tree]:
        """Walk the tree and search for a circle; return the tree itself."""
        yield from self._walk()
        if self._lock_waits:
            yield from self._find_holders()
            yield from self._find_circle()
        return self

    def _walk(self) -> Iterator[None]:
        scheduler = self._scheduler
        groups = [group for group in (scheduler.background, scheduler.threads, scheduler.daemons) if len(group)]
        roots: list[CancelNode] = [scheduler.root, *(group._scope for group in groups)]
        levels: list[tuple[Iterator[CancelNode], int | None]] = [(iter(roots), None)]
        while levels:
            nodes, parent = levels[-1]
            node = next(nodes, None)
            if node is None:
                levels.pop()
            elif not isinstance(node, VirtualThread) or node.state is not State.ENDED:
                # Other threads ran since the list was made, so skip threads that have ended meanwhile.
                number = self._add(node, parent, len(levels) - 1)
                levels.append((iter(node._nodes_below()), number))
            yield

    def _add(self, node: CancelNode, parent: int | None, depth: int) -> int | None:
        """Describe a node; return its number if it is shown."""
        if isinstance(node, VirtualThread):
            self._threads.append(node)
            self.states.setdefault(node._scheduler.ident, Counter())[node.state.value] += 1
            if len(self._threads) % PROMOTED_AT_ONCE == 0:
                promote_young_objects()
        number = len(self.nodes)
        has_room = number < self._limit
        if has_room or self._similar is not None:
            data = {"id": number, "parent": parent, "depth": depth, **self._describe(node)}
            if self._is_counted_elsewhere(node, data, has_room):
                return None
            if has_room:
                self.nodes.append(data)
                return number
        self.left_out += isinstance(node, VirtualThread)
        return None

    def _is_counted_elsewhere(self, node: CancelNode, data: Data, is_shown: bool) -> bool:
        if self._similar is None or not isinstance(node, VirtualThread) or node._children:
            return False
        return self._similar.joins(data, is_shown=is_shown)

    def _describe(self, node: CancelNode) -> Data:
        if isinstance(node, VirtualThread):
            return self._thread(node)
        assert isinstance(node, CancelScope)
        limits = _limits(node, self._scheduler.clock.now())
        return {"type": "scope", **limits} if node._group is None else {**_group(node._group), **limits}

    def _thread(self, thread: VirtualThread) -> Data:
        state, parked_at = thread.state, thread._parked_at
        scheduler = thread._scheduler
        frame = frame_of(thread, scheduler)
        parked = state is State.PARKED
        affected_by = thread._innermost._affected_by
        return {
            "type": "thread",
            "name": thread.name,
            "ident": thread.ident,
            "function": None if thread._call is None else name_of(thread._call[0]),
            "state": state.value,
            **({} if scheduler is self._scheduler else {"carrier": name_of_os_thread(scheduler.ident)}),
            "parked_for": max(0.0, scheduler.clock.now() - parked_at) if parked and parked_at > -inf else None,
            "waits_for": self._wait(thread, frame) if parked else None,
            "cancelled": None if affected_by is None else affected_by._cancel_reason or "no reason was given",
            "interrupts": len(thread._interrupts or ()),
            "spawned_at": self._spawned_at(thread),
            "stack": self._stack(frame) if self._stacks else [],
        }

    def _spawned_at(self, thread: VirtualThread) -> list[str]:
        texts = tuple(map(self._site_text, thread._sites))
        return self._spawned_known.setdefault(texts, list(texts))

    def _stack(self, frame: FrameType | None) -> list[Place]:
        key = positions_from(frame)
        known = self._stacks_known.get(key)
        if known is None:
            known = self._stacks_known[key] = stack_from(frame)
        return known

    def _site_text(self, site: SpawnSite) -> str:
        # Finding the line takes longer than all the rest, and most threads are spawned at a few places: cache it.
        place = site._code, site._instruction
        if place not in self._sites:
            self._sites[place] = str(site)
        return self._sites[place]

    def _wait(self, thread: VirtualThread, frame: FrameType | None) -> Data:
        waits = self._waits.get(thread._scheduler)
        if waits is None:
            waits = self._waits[thread._scheduler] = Waits(thread._scheduler)
        wait, waited_for = waits.of(thread, frame)
        if isinstance(waited_for, LOCKS):
            owner = getattr(waited_for.statistics(), "owner", None)
            wait["owner"] = None if owner is None else {"ident": owner, "name": name_of_os_thread(owner), "at": None}
            holder = waited_for._holder if isinstance(waited_for, Lock) and waited_for._in_block else 0
            found = _LockWait(thread, thread._parked_at, wait, holder)
            self._lock_waits.setdefault(id(waited_for), []).append(found)
        return wait

    # --- holders of locks

    def _find_holders(self) -> Iterator[None]:
        """Name the owners: those that the lock records, and those whose source shows that they are in its block."""
        owners: dict[int, list[Data]] = {}
        held_in_blocks: dict[int, list[Data]] = {}
        for one in self._waits_for_locks():
            if one.wait["owner"] is not None:
                owners.setdefault(one.wait["owner"]["ident"], []).append(one.wait["owner"])
            elif one.holder:
                held_in_blocks.setdefault(one.holder, []).append(one.wait)
            yield
        for thread in self._threads:
            for owner in owners.get(thread.ident, ()):
                owner["name"] = thread.name
                yield
            for wait in held_in_blocks.get(id(thread), ()):
                wait["owner"] = {"ident": thread.ident, "name": thread.name, "at": None}
            self._note_held(frame_of(thread, thread._scheduler), thread.ident, thread.name)
            yield
        for ident, innermost in frames_of_os_threads().items():
            if ident not in carriers:
                for wait in held_in_blocks.get(ident, ()):
                    wait["owner"] = {"ident": ident, "name": name_of_os_thread(ident), "at": None}
                self._note_held(innermost, ident, name_of_os_thread(ident))

    def _waits_for_locks(self) -> Iterator[_LockWait]:
        for waits in self._lock_waits.values():
            yield from waits

    def _note_held(self, frame: FrameType | None, ident: int, name: str) -> None:
        while frame is not None:
            for lock in held_in(frame):
                for _, _, wait, _ in self._lock_waits.get(lock, ()):
                    if wait["owner"] is None or (wait["owner"]["ident"] == ident and wait["owner"]["at"] is None):
                        wait["owner"] = {"ident": ident, "name": name, "at": place_of(frame)}
            frame = frame.f_back

    def _find_circle(self) -> Iterator[None]:
        """Follow the owners to a circle of threads that all wait at the same time."""
        waiting: dict[int, _LockWait] = {}
        for one in self._waits_for_locks():
            waiting[one.thread.ident] = one
            yield
        seen: set[int] = set()
        for start in waiting:
            chain: dict[int, _LockWait] = {}
            ident: int | None = start
            while ident in waiting and ident not in seen:
                seen.add(ident)
                chain[ident] = waiting[ident]
                owner = waiting[ident].wait["owner"]
                ident = None if owner is None else owner["ident"]
                yield
            if ident in chain:
                members = list(chain.values())[list(chain).index(ident) :]
                # No other thread runs between these checks, so those that are still in the same wait are so together.
                if all(one.goes_on() for one in members):
                    self.circle = [
                        {"ident": one.thread.ident, "name": one.thread.name, "waits_for": one.wait} for one in members
                    ]
                    return


def _limits(scope: CancelScope, now: float) -> Data:
    return {
        "cancelled": (scope._cancel_reason or "no reason was given") if scope._cancel_called else None,
        "deadline_in": None if scope.deadline == inf else scope.deadline - now,
        "shielded": scope._shielded(),
        "shield_ends_in": scope._shield_until - now if -inf < scope._shield_until < inf else None,
    }


def _group(group: Members) -> Data:
    return {
        "type": "group",
        "name": group.name,
        "state": group._phase.value,
        "members": len(group),
        "queued": len(group._queued),
        "failures": [type(failure).__qualname__ for failure in list(group._failures.values())],
        "closed": group._closed,
    }
