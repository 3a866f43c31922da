"""Django: a request that is cancelled must end for Django as well, so that its database connection is returned.

The signal `request_finished` closes connections or returns them to the pool of psycopg. Django sends it when the
response is closed. Its handler for WSGI handles `Exception` only, so a cancelled request has no response, and its
connection would be missing in the pool from then on.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from functools import partial
from types import ModuleType
from typing import Any

__all__ = ["fit"]


def fit(wsgi: ModuleType) -> list[Callable[[], None]]:
    """Adapt `django.core.handlers.wsgi`; return the functions that undo it."""
    handler: Any = wsgi.WSGIHandler
    original = handler.__call__
    finished = wsgi.signals.request_finished

    @functools.wraps(original)
    def call(self: Any, environ: Any, start_response: Any) -> Any:
        try:
            return original(self, environ, start_response)
        except BaseException:
            # Of any kind, above all `Cancelled`: no response exists whose `close` would send the signal. It is raised
            # again. The receivers run within the cleanup grace.
            finished.send(sender=type(self))
            raise

    handler.__call__ = call
    return [partial(setattr, handler, "__call__", original)]
