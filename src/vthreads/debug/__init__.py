"""Eyes for a running program: dumps, traces, stalls, figures. Nothing here runs unless it is asked for.

A program that runs well needs none of it, so all but the hooks is loaded when it is first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from .dumps import dump
from .metrics import CarrierMetrics, Delays, Metrics, measure_delays, metrics
from .occasions import dump_on_deadlock, dump_on_signal
from .stalls import Stall, StallMonitor, watch_stalls
from .trace import Trace, trace

if TYPE_CHECKING:
    from .fatal import dump_on_fatal_error
    from .loads import load
    from .observers import Observation, Observer, observe
    from .serving import serve
    from .snapshots import snapshot

__all__ = [
    "CarrierMetrics",
    "Delays",
    "Metrics",
    "Observation",
    "Observer",
    "Stall",
    "StallMonitor",
    "Trace",
    "dump",
    "dump_on_deadlock",
    "dump_on_fatal_error",
    "dump_on_signal",
    "load",
    "measure_delays",
    "metrics",
    "observe",
    "serve",
    "snapshot",
    "trace",
    "watch_stalls",
]

HOMES = {
    "Observation": "observers",
    "Observer": "observers",
    "dump_on_fatal_error": "fatal",
    "load": "loads",
    "observe": "observers",
    "serve": "serving",
    "snapshot": "snapshots",
}


def __getattr__(name: str) -> Any:
    if name not in HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{HOMES[name]}", __name__), name)
