"""urllib3: a request that is cancelled while it waits for a connection of a blocking pool must not release a permit.

The queue of the pool holds one permit per connection. `urlopen` releases one after every failure except
`EmptyPoolError`, whether it had acquired one or not. The pool would then have one permit too many, and refuse the
connection of another request with `FullPoolError`.
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
    """Adapt `urllib3.connectionpool`; return the functions that undo it."""
    module: Any = connectionpool
    pool = module.HTTPConnectionPool
    get, put = pool._get_conn, pool._put_conn
    # Frames of `urlopen` calls that were cancelled before they acquired a permit.
    without_permit: set[FrameType] = set()

    @functools.wraps(get)
    def get_connection(self: Any, *args: Any, **kwargs: Any) -> Any:
        try:
            return get(self, *args, **kwargs)
        except (Cancelled, Interrupted):
            without_permit.add(sys._getframe(1))
            raise

    @functools.wraps(put)
    def put_connection(self: Any, conn: Any) -> None:
        caller = sys._getframe(1)
        if conn is None and caller in without_permit:
            without_permit.remove(caller)
        else:
            put(self, conn)

    pool._get_conn, pool._put_conn = get_connection, put_connection
    return [partial(setattr, pool, "_get_conn", get), partial(setattr, pool, "_put_conn", put)]
