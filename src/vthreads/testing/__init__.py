"""For tests: clocks and orders for `vthreads.run(clock=…, order=…)`, and what finds the faults of concurrent code."""

from __future__ import annotations

from .._core.clock import VirtualClock
from .._core.order import SeededOrder
from ..debug.stalls import max_stall
from . import standard_time as standard_time  # takes part in starting and stopping by being there
from .injection import Checkpoint, InjectionError, inject_cancel
from .leaks import LeakError, check_nothing_leaked
from .memory_socket import MemorySocket
from .network import MemoryListener, Network, memory_socketpair
from .no_park import Parked, no_park
from .quiescence import wait_all_parked
from .sequencer import Sequencer

__all__ = [
    "Checkpoint",
    "InjectionError",
    "LeakError",
    "MemoryListener",
    "MemorySocket",
    "Network",
    "Parked",
    "SeededOrder",
    "Sequencer",
    "VirtualClock",
    "check_nothing_leaked",
    "inject_cancel",
    "max_stall",
    "memory_socketpair",
    "no_park",
    "wait_all_parked",
]
