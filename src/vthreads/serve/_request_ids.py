"""Identification of requests: made here, found by handlers and by log records. It does not depend on HTTP."""

from __future__ import annotations

import logging
import secrets
from contextvars import ContextVar

__all__ = ["RequestIdFilter", "RequestIds", "current_id", "request_id"]

current_id: ContextVar[str] = ContextVar("vthreads.serve.request_id", default="")


def request_id() -> str:
    """Return the identification of the request that the caller handles, as in the access log; "" outside a request.

    It is the context variable of the request, so code that the handler calls in another context does not find it. Not a
    checkpoint; thread-safe.
    """
    return current_id.get()


class RequestIds:
    """Makes identifications of requests, unique among all processes. For the threads of one carrier."""

    __slots__ = ("_number", "_prefix")

    def __init__(self) -> None:
        self._prefix = secrets.token_hex(6)
        self._number = 0

    def new(self) -> str:
        """Return a new identification."""
        self._number += 1
        return f"{self._prefix}-{self._number:x}"


class RequestIdFilter(logging.Filter):
    """Give each log record the attribute `request_id`, for formats such as `"%(request_id)s %(message)s"`.

    Add it to the handlers of a program. It accepts all records. Thread-safe; not a checkpoint.
    """

    def filter(self, record: logging.LogRecord) -> bool:
        """Set the attribute, and accept the record."""
        if not hasattr(record, "request_id"):
            record.request_id = current_id.get()
        return True
