"""`dump`: all virtual threads of the process, as text or JSON. Its modules are imported at the first call."""

from __future__ import annotations

from typing import Literal

__all__ = ["dump"]


def dump(
    format: Literal["text", "json"] = "text",
    *,
    stacks: bool = True,
    patience: float = 0.5,
    limit: int | None = None,
) -> str:
    """Show every virtual thread of the process: what it waits for, since when, where it is and where it was spawned.

    Not a checkpoint: source files are read in place. Thread-safe; may be called from any OS thread and from a signal
    handler. The calling carrier reads all its threads at once, at some 15 µs each. Other carriers do it in slices of
    1 ms, and let every ready thread run between two slices.

    Args:
        format: "text" for people, "json" for programs (docs/reference/dump.md).
        stacks: include the stacks.
        patience: seconds that each other carrier has to answer; a carrier that does not is shown as pinned.
        limit: most threads, scopes and groups to show per carrier; None for all. In text, similar threads count as
            one.

    Raises:
        TypeError: `limit` is not a whole number, or `patience` not a number.
        ValueError: `format` is neither "text" nor "json", `limit` is below 1, or `patience` is negative.
    """
    if format not in ("text", "json"):
        raise ValueError(f'format={format!r}: pass "text" or "json"')
    import json

    from ._snapshots import snapshot
    from ._text import render

    data = snapshot(stacks=stacks, patience=patience, fold=format == "text", limit=limit)
    return render(data, stacks=stacks) if format == "text" else json.dumps(data, indent=1)
