"""Warnings about blocks that were created and dropped without `with`, such as a deadline that limits nothing.

The objects call it in their `__del__`, like files that were not closed.
"""

from __future__ import annotations

import warnings

__all__ = ["warn_dropped"]


def warn_dropped(block: object, consequence: str) -> None:
    """Report that `block` was dropped; called in its `__del__`.

    Args:
        block: the object that was not entered. With tracemalloc, the warning shows where it was created.
        consequence: the effect, as a clause.
    """
    # Attribute the warning to the frame that dropped the block, above `__del__` and this function.
    warnings.warn(
        f"{block!r} was dropped without being entered, so {consequence}; use it in a with statement",
        ResourceWarning,
        stacklevel=3,
        source=block,
    )
