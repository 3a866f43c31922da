"""Tools to observe a running program: dumps, traces, stall reports, metrics. Each runs only when it is called.

Most programs use none of them, so everything but the hooks is imported at its first use.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ._dump import dump
    from ._fatal import dump_on_fatal_error
    from ._load import load
    from ._metrics import CarrierMetrics, Delays, Metrics, measure_delays, metrics
    from ._observers import Observation, Observer, observe
    from ._server import serve
    from ._snapshots import snapshot
    from ._stalls import Stall, StallMonitor, watch_stalls
    from ._trace import Trace, trace
    from ._triggers import dump_on_deadlock, dump_on_signal

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
    "CarrierMetrics": "_metrics",
    "Delays": "_metrics",
    "Metrics": "_metrics",
    "Observation": "_observers",
    "Observer": "_observers",
    "Stall": "_stalls",
    "StallMonitor": "_stalls",
    "Trace": "_trace",
    "dump": "_dump",
    "dump_on_deadlock": "_triggers",
    "dump_on_fatal_error": "_fatal",
    "dump_on_signal": "_triggers",
    "load": "_load",
    "measure_delays": "_metrics",
    "metrics": "_metrics",
    "observe": "_observers",
    "serve": "_server",
    "snapshot": "_snapshots",
    "trace": "_trace",
    "watch_stalls": "_stalls",
}


def __getattr__(name: str) -> Any:
    if name not in HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{HOMES[name]}", __name__), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
