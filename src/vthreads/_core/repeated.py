"""The mark of Python code that the compiled engine repeats inside a larger part.

Code that is replaced as a whole is decorated with `@compiled` instead. `tests/engine/test_repetitions.py` lists both,
and fails if one side changes alone. If the compiled function has another name, a comment `# Repeats` above it names
the marked code.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

__all__ = ["repeated_in"]

T = TypeVar("T")


def repeated_in(part: str) -> Callable[[T], T]:
    """Mark a class, method or function that the compiled `part` repeats (a path below the package). Changes nothing.

    Code that several parts repeat has a mark for each.
    """
    return lambda marked: marked
