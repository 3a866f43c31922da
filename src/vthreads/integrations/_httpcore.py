"""httpcore, under httpx: two races of its pool of connections.

A request that is cancelled just after it was assigned a connection must still use it.

The pool may assign a connection, perhaps a new one, to a waiter that was cancelled but has not run yet. If the waiter
left, a new connection that nothing opens would use up a place in the pool forever. It is enough that the waiter takes
the connection: opening or using it is a checkpoint, and there httpcore cleans up.

The pool closes an idle connection that has something to read, because the server has closed it. The question may yield,
and another request may begin on this connection meanwhile: then its response is what can be read.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable
from functools import partial
from types import ModuleType
from typing import Any

from .._core.current import running
from ..errors import Cancelled

__all__ = ["fit"]


def fit(connection_pool: ModuleType) -> list[Callable[[], None]]:
    """Adapt `httpcore._sync.connection_pool`; return the functions that undo it."""
    module: Any = connection_pool
    request = module.PoolRequest
    original = request.wait_for_connection
    # The cancellation is raised again at the next checkpoint. The timeout is obsolete, because there is a connection.
    may_be_dropped = (Cancelled, sys.modules["httpcore._exceptions"].PoolTimeout)

    @functools.wraps(original)
    def wait_for_connection(self: Any, *args: Any, **kwargs: Any) -> Any:
        thread = running()
        try:
            return original(self, *args, **kwargs)
        except BaseException as error:
            # If the pool has assigned a connection meanwhile, accept it, so that it is used or returned (see above). An
            # interrupt is raised again at the next checkpoint.
            if thread is None or self.connection is None:
                raise
            if not isinstance(error, may_be_dropped):
                thread.interrupt(error)
            return self.connection

    request.wait_for_connection = wait_for_connection
    return [partial(setattr, request, "wait_for_connection", original), _fit_expiry()]


def _fit_expiry() -> Callable[[], None]:
    module: Any = sys.modules["httpcore._sync.http11"]
    connection, active = module.HTTP11Connection, module.HTTPConnectionState.ACTIVE
    original = connection.has_expired

    @functools.wraps(original)
    def has_expired(self: Any) -> bool:
        return original(self) and self._state is not active

    connection.has_expired = has_expired
    return partial(setattr, connection, "has_expired", original)
