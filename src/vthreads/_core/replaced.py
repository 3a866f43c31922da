"""The replacement of each original that patching has replaced, for calls that were looked up before.

`spawn(time.sleep, 1)` looks `time.sleep` up before it starts the runtime, and a closure or tuple keeps such an original
for longer. So a virtual thread looks up the replacement of the function that it was given.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from types import FunctionType
from typing import Any

__all__ = ["latest", "note_replaced"]

# By id of the original, which the undo function of the patch keeps alive.
_successors: dict[int, Any] = {}


def latest(call: Any) -> Any:
    """Return the current replacement of `call`, which usually is `call` itself."""
    return _successors.get(id(call), call)


def note_replaced(old: Any, new: Any) -> list[Callable[[], None]]:
    """Record `new` as the replacement of `old`; return the functions that undo it.

    Python functions are left out: the blocking calls inside them are replaced, and a compiled engine does not look them
    up.
    """
    if type(old) is FunctionType:
        return []
    _successors[id(old)] = new
    return [partial(_forget, id(old))]


def _forget(key: int) -> None:
    # An original with two names is recorded twice, so it may be removed already.
    _successors.pop(key, None)
