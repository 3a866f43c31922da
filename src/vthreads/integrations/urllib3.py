"""urllib3: who is cancelled while waiting for a connection of a blocking pool must not give a place back.

`urlopen` gives a place back after every failure but `EmptyPoolError`, whether it had got one or not. The pool would
have one too many, and refuse a connection of somebody else as `FullPoolError`.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable
from functools import partial
from types import FrameType, ModuleType
from typing import Any

from ..errors import Cancelled, Interrupted

__all__ = ["fit"]


def fit(connectionpool: ModuleType) -> list[Callable[[], None]]:
    """Fit `urllib3.connectionpool`; what takes it back."""
    module: Any = connectionpool
    pool = module.HTTPConnectionPool
    get, put = pool._get_conn, pool._put_conn
    # Calls of `urlopen` that have got no place.
    without_place: set[FrameType] = set()

    @functools.wraps(get)
    def get_connection(self: Any, *args: Any, **kwargs: Any) -> Any:
        try:
            return get(self, *args, **kwargs)
        except (Cancelled, Interrupted):
            without_place.add(sys._getframe(1))
            raise

    @functools.wraps(put)
    def put_connection(self: Any, conn: Any) -> None:
        caller = sys._getframe(1)
        if conn is None and caller in without_place:
            without_place.remove(caller)
        else:
            put(self, conn)

    pool._get_conn, pool._put_conn = get_connection, put_connection
    return [partial(setattr, pool, "_get_conn", get), partial(setattr, pool, "_put_conn", put)]
