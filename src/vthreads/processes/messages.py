"""Connections of `multiprocessing` send and receive messages whole: half of one would spoil what follows.

The wait for the first byte, or for room for it, may be given up. From then on the message goes to its end, shielded;
what is pending comes at the next checkpoint.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from .._core.current import running
from ..net.readiness import park_for_fd, wait_blocking
from ..timeouts import shield

__all__ = ["whole_message"]


def whole_message(method: Callable[..., Any], direction: int) -> Callable[..., Any]:
    """`method`, which sends or receives one message over a connection, as a checkpoint at its beginning only."""

    @functools.wraps(method)
    def call(self: Any, *args: Any) -> Any:
        thread = running()
        if thread is None:
            return method(self, *args)
        try:
            thread.check()
            while not wait_blocking(self._handle, direction, 0):
                park_for_fd(thread, self._handle, direction)
        except BaseException:
            # The message is a view of a buffer, which must not go before its view: not kept by the traceback.
            del args
            raise
        with shield(None):
            return method(self, *args)

    return call
