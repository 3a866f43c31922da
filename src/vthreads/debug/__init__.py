"""Eyes for a running program: what its virtual threads do and wait for.

A program that runs well needs none of it, so all but the hooks is loaded when it is first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from .dumps import dump
from .occasions import dump_on_deadlock, dump_on_signal

if TYPE_CHECKING:
    from .fatal import dump_on_fatal_error
    from .loads import load
    from .serving import serve
    from .snapshots import snapshot

__all__ = ["dump", "dump_on_deadlock", "dump_on_fatal_error", "dump_on_signal", "load", "serve", "snapshot"]

HOMES = {"dump_on_fatal_error": "fatal", "load": "loads", "serve": "serving", "snapshot": "snapshots"}


def __getattr__(name: str) -> Any:
    if name not in HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{HOMES[name]}", __name__), name)
