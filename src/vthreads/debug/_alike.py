"""Fold similar threads into one entry with their number: a server has thousands of them.

Threads are similar if they belong to the same group, are in the same state at the same place, and wait for the same
kind of object. If they wait for a lock, it must be the same lock. A thread that contains a scope or group is always
shown by itself.
"""

from __future__ import annotations

from typing import Any

__all__ = ["SimilarThreads", "folded"]

Data = dict[str, Any]


class SimilarThreads:
    """The first thread of each kind, which counts the similar ones under "more"."""

    def __init__(self) -> None:
        self._first: dict[Any, Data] = {}

    def joins(self, thread: Data, *, is_shown: bool = True) -> bool:
        """Return whether a similar thread was shown before; if so, that thread counts this one."""
        key = _similarity_key(thread)
        first = self._first.setdefault(key, thread) if is_shown else self._first.get(key, thread)
        if first is thread:
            return False
        name, parked_for = thread["name"], thread["parked_for"]
        more = first.setdefault("more", {"count": 0, "first": name, "last": name, "parked_for": None})
        more["count"] += 1
        more["last"] = name
        if parked_for is not None:
            more["parked_for"] = max(parked_for, more["parked_for"] or 0.0)
        return True


def folded(tree: list[Data]) -> list[Data]:
    """Return the nodes of a tree without the threads that are similar to an earlier one."""
    parents = {node["parent"] for node in tree}
    similar = SimilarThreads()
    # Copy the nodes, because those that stay get a new key.
    return [
        node
        for node in map(dict, tree)
        if node["type"] != "thread" or "more" in node or node["id"] in parents or not similar.joins(node)
    ]


def _similarity_key(thread: Data) -> Any:
    wait = thread["waits_for"] or {"kind": None, "call": None, "object": None, "at": None}
    stack = tuple((place["file"], place["line"]) for place in thread["stack"])
    place = wait["at"] and (wait["at"]["file"], wait["at"]["line"])
    lock = wait["object"] if wait["kind"] == "lock" else None
    what = wait["kind"], wait["call"], lock, place, stack
    return thread["parent"], thread["state"], thread["function"], thread["cancelled"], what
