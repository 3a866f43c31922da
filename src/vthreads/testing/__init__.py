"""For tests: a clock that jumps and an order drawn from a seed, given to `vthreads.run(clock=…, order=…)`."""

from __future__ import annotations

from .._core.clock import VirtualClock
from .._core.order import SeededOrder
from ..debug.stalls import max_stall

__all__ = ["SeededOrder", "VirtualClock", "max_stall"]
