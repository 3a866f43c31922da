"""Eyes for a running program: what its virtual threads do and wait for."""

from __future__ import annotations

from .dumps import dump
from .snapshot import snapshot

__all__ = ["dump", "snapshot"]
