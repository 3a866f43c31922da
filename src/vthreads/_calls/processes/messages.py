"""Connections of `multiprocessing` send and receive whole messages: half a message would make the rest unreadable.

The wait for the first byte, or for room for it, can be cancelled. From then on the message is completed inside a
shield, and a pending cancellation is raised at the next checkpoint.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from ..._core.current import running
from ..._timeouts import shield
from ..net.readiness import park_for_fd, wait_blocking

__all__ = ["whole_message"]


def whole_message(method: Callable[..., Any], direction: int) -> Callable[..., Any]:
    """Wrap `method`, which sends or receives one message over a connection: only its beginning is a checkpoint."""

    @functools.wraps(method)
    def call(self: Any, *args: Any) -> Any:
        thread = running()
        if thread is None:
            return method(self, *args)
        try:
            thread._check()
            while not wait_blocking(self._handle, direction, 0):
                park_for_fd(thread, self._handle, direction)
        except BaseException:
            # `args` may hold a view of a buffer, which can only be released after its views. Drop it, so that the
            # traceback does not keep it alive.
            del args
            raise
        with shield(None):
            return method(self, *args)

    return call
