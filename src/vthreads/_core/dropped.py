"""Warnings about objects that were created and dropped without use, such as a deadline that limits nothing.

The objects call it in their `__del__`, like files that were not closed.
"""

from __future__ import annotations

import warnings

__all__ = ["warn_dropped"]


def warn_dropped(
    dropped: object,
    consequence: str,
    *,
    when: str = "without being entered",
    remedy: str = "use it in a with statement",
) -> None:
    """Report that `dropped` was not used; called in its `__del__`.

    Args:
        dropped: the object. With tracemalloc, the warning shows where it was created.
        consequence: the effect, as a clause.
        when: what had not been done with it.
        remedy: what to do.
    """
    # Attribute the warning to the frame that dropped the object, above `__del__` and this function.
    warnings.warn(
        f"{dropped!r} was dropped {when}, so {consequence}; {remedy}", ResourceWarning, stacklevel=3, source=dropped
    )
