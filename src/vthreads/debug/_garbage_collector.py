"""Keep the data of a large dump from causing a full garbage collection, which stops the whole process.

A full collection comes when the objects that have survived younger collections are a quarter of the old ones. A dump
of many threads makes about three objects for each: its node, its wait, and a frame object that CPython makes when the
stack is read and keeps as long as the frame. With 100,000 threads such a collection takes 0.4 s.
"""

from __future__ import annotations

import gc

__all__ = ["promote_young_objects"]

# Whether the program has frozen objects.
_has_frozen = False


def promote_young_objects() -> None:
    """Move all young objects to the oldest generation, as survivors that do not count.

    `gc.freeze` moves all objects to the permanent generation, and `gc.unfreeze` those to the oldest one; both only join
    lists. The cost: cyclic garbage among the young objects stays until the next full collection. If the program has
    frozen objects itself, they must stay frozen, so this does nothing.
    """
    global _has_frozen
    if _has_frozen or not gc.isenabled():
        return
    # The count takes time for each frozen object, 5 ms for 100,000 threads. So a program is not asked again.
    _has_frozen = bool(gc.get_freeze_count())
    if not _has_frozen:
        gc.freeze()
        gc.unfreeze()
