"""`dump`: all virtual threads of the process, as text or JSON. What it takes is loaded at the first call."""

from __future__ import annotations

__all__ = ["dump"]


def dump(format: str = "text", *, stacks: bool = True, patience: float = 0.5) -> str:
    """Show every virtual thread of the process: what it waits for, since when, where it is and where it was spawned.

    Not a checkpoint: source files are read in place. Thread-safe; may be called from any OS thread and from a signal
    handler. While a carrier looks at its threads it runs none of them, for some 20 µs each.

    Args:
        format: "text" for people, "json" for programs (docs/reference/dump.md).
        stacks: show the stacks as well.
        patience: seconds that each other carrier has to answer; one that does not is shown as pinned.

    Raises:
        ValueError: `format` is something else.
    """
    if format not in ("text", "json"):
        raise ValueError(f'format={format!r}: choose "text" or "json"')
    import json

    from .snapshots import snapshot
    from .text import render

    data = snapshot(stacks=stacks, patience=patience)
    return render(data, stacks=stacks) if format == "text" else json.dumps(data, indent=1)
