"""For tests: clocks and orders for `vthreads.run(clock=…, order=…)`, and what finds the faults of concurrent code."""

from __future__ import annotations

from .._core.clock import VirtualClock
from .._core.order import SeededOrder
from ..debug.stalls import max_stall
from . import standard_time as standard_time  # takes part in starting and stopping by being there
from .drawn_schedules import schedules
from .exploration import explore, replay
from .findings import Exploration, ScheduleFailed
from .injection import Checkpoint, InjectionError, inject_cancel
from .leaks import LeakError, check_nothing_leaked
from .memory_socket import MemorySocket
from .network import MemoryListener, Network, memory_socketpair
from .no_park import Parked, no_park
from .quiescence import wait_all_parked
from .schedule import Schedule
from .sequencer import Sequencer

__all__ = [
    "Checkpoint",
    "Exploration",
    "InjectionError",
    "LeakError",
    "MemoryListener",
    "MemorySocket",
    "Network",
    "Parked",
    "Schedule",
    "ScheduleFailed",
    "SeededOrder",
    "Sequencer",
    "VirtualClock",
    "check_nothing_leaked",
    "explore",
    "inject_cancel",
    "max_stall",
    "memory_socketpair",
    "no_park",
    "replay",
    "schedules",
    "wait_all_parked",
]
