"""Eyes for a running program: what its virtual threads do and wait for."""

from __future__ import annotations

from .dumps import dump
from .fatal import dump_on_fatal_error
from .load import load
from .occasions import dump_on_deadlock, dump_on_signal
from .serving import serve
from .snapshot import snapshot

__all__ = ["dump", "dump_on_deadlock", "dump_on_fatal_error", "dump_on_signal", "load", "serve", "snapshot"]
