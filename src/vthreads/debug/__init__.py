"""Seeing what a running program does: traces, stalls, figures. Nothing here runs unless it is asked for."""

from __future__ import annotations

from .metrics import CarrierMetrics, Delays, Metrics, measure_delays, metrics
from .observers import Observation, Observer, observe
from .stalls import Stall, StallMonitor, watch_stalls
from .trace import Trace, trace

__all__ = [
    "CarrierMetrics",
    "Delays",
    "Metrics",
    "Observation",
    "Observer",
    "Stall",
    "StallMonitor",
    "Trace",
    "measure_delays",
    "metrics",
    "observe",
    "trace",
    "watch_stalls",
]
