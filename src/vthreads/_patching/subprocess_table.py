"""The rows of `subprocess` in the table of replacements."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from typing import Any

from .._calls.guards import shielded
from .._calls.processes import popen
from .replacing import MethodRow, always

__all__ = ["MODULE_ATTRIBUTES", "methods"]

MODULE_ATTRIBUTES: list[tuple[Any, str, Any]] = []

# Calls that cannot be undone half-way: a child process would stay that no code has. They may wait, so they begin with a
# checkpoint.
SHIELDED: list[tuple[type, str]] = [
    (subprocess.Popen, "__init__"),
]


def methods() -> Iterator[MethodRow]:
    """Yield the replaced methods."""
    yield subprocess.Popen, "_wait", always(popen.wait)
    yield subprocess.Popen, "send_signal", always(popen.send_signal)
    for cls, name in SHIELDED:
        yield cls, name, shielded
