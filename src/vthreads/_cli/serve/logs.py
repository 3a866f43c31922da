"""The error log: log records to stderr where the application configures no logging, as text or as JSON.

`logging.lastResort` handles the records for which no handler is found. It is replaced here, so the configuration of an
application always wins. Each record gets the request id, also those of the application.
"""

from __future__ import annotations

import json
import logging
import sys
import time
from typing import Any

from ...serve import RequestIdFilter

__all__ = ["JsonFormatter", "install_error_log"]

TEXT = "%(asctime)s %(levelname)s %(name)s [%(process)d %(request_id)s] %(message)s"


class _ErrorHandler(logging.StreamHandler[Any]):
    """Writes to the `sys.stderr` of the moment."""

    @property
    def stream(self) -> Any:
        return sys.stderr

    @stream.setter
    def stream(self, _: Any) -> None:
        """Ignore the stream of the start."""


class JsonFormatter(logging.Formatter):
    """Formats a record as a JSON object on one line."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line of `record`."""
        line = {
            "time": time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created)) + f".{int(record.msecs):03}Z",
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
            "process": record.process,
            "request_id": getattr(record, "request_id", ""),
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        if record.stack_info:
            line["stack"] = record.stack_info
        return json.dumps(line)


def install_error_log(kind: str) -> None:
    """Write records as `kind`, "text" or "json". Records of the server have a request id under any configuration."""
    handler = _ErrorHandler()
    handler.setLevel(logging.WARNING)
    handler.setFormatter(JsonFormatter() if kind == "json" else logging.Formatter(TEXT))
    handler.addFilter(RequestIdFilter())
    logging.lastResort = handler
    logging.getLogger("vthreads.serve").addFilter(RequestIdFilter())
