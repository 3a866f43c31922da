"""The rows of `ssl` in the table of replacements."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from .._calls.net import ssl as net_ssl
from .replacing import MethodRow, always

__all__ = ["MODULE_ATTRIBUTES", "methods"]

MODULE_ATTRIBUTES: list[tuple[Any, str, Any]] = []


def methods() -> Iterator[MethodRow]:
    """Yield the replaced methods."""
    for name, new in net_ssl.METHODS.items():
        yield net_ssl.TLS, name, always(new)
