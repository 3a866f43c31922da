"""Format the data of a snapshot as text: the tree with what each thread waits for, and its stack.

Similar threads are shown once, with their number. Nothing is looked up: the same data give the same text in every
process.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from ._alike import folded
from ._stacks import Place

__all__ = ["describe_circle", "describe_wait", "duration", "render"]

Data = dict[str, Any]

INDENT = "  "


def render(data: Data, *, stacks: bool = True) -> str:
    """Format the data of a snapshot as text, one line for each thread, scope and group.

    Args:
        data: the result of `snapshot`, or its JSON read again.
        stacks: include the stacks.
    """
    lines = [f"process {data['pid']}, Python {data['python']}, {data['engine']} engine"]
    for carrier in data["carriers"]:
        lines += ["", *_carrier(carrier, stacks)]
    if not data["carriers"]:
        lines += ["", "no carrier: no virtual thread has been started, or all have ended"]
    if data["calls"]:
        lines += [
            "",
            "calls on OS threads and in executors",
            *(INDENT + _call(call, data["carriers"]) for call in data["calls"]),
        ]
    for os_thread in data["os_threads"]:
        lines += ["", f"OS thread {os_thread['name']!r}", *(_stack(os_thread["stack"], INDENT) if stacks else ())]
    return "\n".join(lines) + "\n"


def duration(seconds: float) -> str:
    """Format a time span: milliseconds up to a second, then seconds, minutes and hours."""
    if seconds < 0:
        return "-" + duration(-seconds)
    if seconds < 1:
        return f"{seconds * 1000:.0f} ms"
    if seconds < 120:
        return f"{seconds:.1f} s"
    minutes = seconds / 60
    return f"{minutes:.1f} min" if minutes < 120 else f"{minutes / 60:.1f} h"


def _counted(count: int, noun: str) -> str:
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


# --- a carrier and its tree


def _carrier(carrier: Data, stacks: bool) -> Iterator[str]:
    states = ", ".join(f"{count} {state}" for state, count in sorted(carrier["threads"].items()))
    yield (
        f"carrier {carrier['os_thread']['name']!r} ({carrier['poller']}): "
        f"threads {states}; {_counted(carrier['timers'], 'timer')}, {carrier['switches']} switches so far"
    )
    if carrier["pinned"]:
        yield f"{INDENT}PINNED: it did not answer, so the data below may be inconsistent; its stack:"
        yield from _stack(carrier["stack"], INDENT * 2)
    yield from (INDENT + line for line in describe_circle(carrier["circle"]))
    for node in folded(carrier["tree"]):
        margin = INDENT * (node["depth"] + 1)
        yield margin + DESCRIBE[node["type"]](node)
        if node["type"] == "thread" and stacks:
            yield from _details(node, margin + INDENT)
        if "more" in node:
            yield f"{margin}and {_similar_threads(node['more'])}"
    if carrier["left_out"]:
        yield f"{INDENT}and {_counted(carrier['left_out'], 'thread')} beyond the limit"


def _similar_threads(more: Data) -> str:
    text = f"{more['count']} more like it, {more['first']!r}"
    if more["count"] > 1:
        text += f" to {more['last']!r}"
    return text if more["parked_for"] is None else f"{text}, parked for up to {duration(more['parked_for'])}"


def _thread(thread: Data) -> str:
    line = f"thread {thread['name']!r}"
    if thread["function"] is not None:
        line += f", {thread['function']},"
    line += f" {thread['state']}"
    if "carrier" in thread:
        line += f" on {thread['carrier']!r}"
    if thread["parked_for"] is not None:
        line += f" for {duration(thread['parked_for'])}"
    if thread["waits_for"] is not None:
        line += f": {describe_wait(thread['waits_for'])}"
    if thread["cancelled"] is not None:
        line += f" [cancelled: {thread['cancelled']}]"
    if thread["interrupts"]:
        line += f" [interrupts pending: {thread['interrupts']}]"
    return line


def _group(group: Data) -> str:
    parts = [f"group {group['name']!r} {group['state']}", _counted(group["members"], "member")]
    if group["queued"]:
        parts.append(f"{group['queued']} of them queued")
    if group["failures"]:
        parts.append(f"failures: {', '.join(group['failures'])}")
    if group["closed"]:
        parts.append(group["closed"])
    return ", ".join(parts) + _limits(group)


def _limits(scope: Data) -> str:
    parts = []
    if scope["deadline_in"] is not None:
        parts.append(f"deadline in {duration(scope['deadline_in'])}")
    if scope["shielded"]:
        end = scope["shield_ends_in"]
        parts.append("shield without an end" if end is None else f"shield for another {duration(end)}")
    if scope["cancelled"] is not None:
        parts.append(f"cancelled: {scope['cancelled']}")
    return "".join(f" [{part}]" for part in parts)


DESCRIBE: dict[str, Callable[[Data], str]] = {
    "thread": _thread,
    "group": _group,
    "scope": lambda scope: "scope" + _limits(scope),
}


def _details(thread: Data, margin: str) -> Iterator[str]:
    for site in thread["spawned_at"][:1]:
        yield f"{margin}spawned at {site}"
    yield from _stack(thread["stack"], margin)


def _stack(places: list[Place], margin: str) -> Iterator[str]:
    for place in places:
        yield f'{margin}File "{place["file"]}", line {place["line"]}, in {place["function"]}'
        if place.get("source"):
            yield f"{margin}{INDENT}{place['source']}"


def _call(call: Data, carriers: list[Data]) -> str:
    line = f"{call['function']} ({call['kind']})"
    if carriers:
        line += f" for {duration(max(0.0, carriers[0]['now'] - call['since']))}"
    return line + (", abandoned: no thread waits for it any more" if call["abandoned"] else "")


# --- the reason of a wait


def describe_wait(wait: Data) -> str:
    """Describe what a thread waits for, and its deadline."""
    describe = WAITS.get(wait["kind"])
    text = f"waits in {wait['call']}() of {wait['object']}" if describe is None else describe(wait)
    return text if wait["due_in"] is None else f"{text}, due in {duration(wait['due_in'])}"


def _descriptor(wait: Data) -> str:
    return "waits to " + " or ".join(_one_descriptor(one) for one in wait["descriptors"])


def _one_descriptor(one: Data) -> str:
    text = f"{one['until']} fd {one['fd']}"
    if one["file"] != "socket":
        return f"{text} ({one['file']})" if one["file"] else text
    if one["peer"]:
        preposition = "from" if one["until"] == "read" else "to"
        return f"{text} {preposition} {one['peer']}"
    return f"{text}, which is bound to {one['local']}" if one["local"] else text


def _lock(wait: Data) -> str:
    owner, text = wait.get("owner"), f"waits for {wait['object']}"
    if owner is None:
        return text
    place = owner["at"]
    inside = f" in {place['function']} at {place['file']}:{place['line']}" if place else ""
    return f"{text}, held by {owner['name']!r}{inside}"


def _of_thread(wait: Data) -> str:
    thread = wait.get("thread")
    return f"waits for {wait['object']}" if thread is None else f"waits for the end of {thread['name']!r}"


WAITS: dict[str, Callable[[Data], str]] = {
    "descriptor": _descriptor,
    "lock": _lock,
    "thread": _of_thread,
    "future": _of_thread,
    "group": lambda wait: f"waits for {_counted(wait['members'], 'member')} of {wait['object']}",
    "offload": lambda wait: f"waits for {wait['function']} on an OS thread",
    "permit": lambda wait: f"waits to start, for a permit of {wait['object']}",
    "timer": lambda wait: "sleeps",
    "park": lambda wait: f"waits in {wait['call']}()" if wait["call"] else "is parked",
}


# --- circles of locks


def describe_circle(circle: list[Data]) -> list[str]:
    """Describe each wait of a circle in a line; return an empty list for an empty circle."""
    if not circle:
        return []
    lines = ["DEADLOCK: these threads wait for each other's locks in a circle"]
    for thread in circle:
        at = thread["waits_for"]["at"]
        place = f", at {at['file']}:{at['line']}" if at else ""
        lines.append(f"{INDENT}{thread['name']!r} {describe_wait(thread['waits_for'])}{place}")
    return lines
