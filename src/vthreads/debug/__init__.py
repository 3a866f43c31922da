"""Seeing what a running program does: traces, stalls, figures. Nothing here runs unless it is asked for."""

from __future__ import annotations

from .observers import Observation, Observer, observe
from .stalls import Stall, StallMonitor, watch_stalls
from .trace import Trace, trace

__all__ = [
    "Observation",
    "Observer",
    "Stall",
    "StallMonitor",
    "Trace",
    "observe",
    "trace",
    "watch_stalls",
]
