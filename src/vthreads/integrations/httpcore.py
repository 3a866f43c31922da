"""httpcore, under httpx: a request that is cancelled when its connection has just been assigned must use it.

The pool assigns a connection, perhaps a new one, while the one who waits for it has been cancelled but has not run yet.
He would leave, and a new connection that nobody opens counts among those of the pool for ever. Taking it is enough: to
open or use it is a checkpoint, and there httpcore cleans up.
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
    """Fit `httpcore._sync.connection_pool`; what takes it back."""
    module: Any = connection_pool
    request = module.PoolRequest
    original = request.wait_for_connection
    # A cancellation comes again by itself; and who has a connection need not hear that he waited too long.
    may_be_dropped = (Cancelled, sys.modules["httpcore._exceptions"].PoolTimeout)

    @functools.wraps(original)
    def wait_for_connection(self: Any, *args: Any, **kwargs: Any) -> Any:
        thread = running()
        try:
            return original(self, *args, **kwargs)
        except BaseException as error:
            if thread is None or self.connection is None:
                raise
            if not isinstance(error, may_be_dropped):
                thread.interrupt(error)
            return self.connection

    request.wait_for_connection = wait_for_connection
    return [partial(setattr, request, "wait_for_connection", original)]
