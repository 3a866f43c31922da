"""For tests: clocks and orders for `vthreads.run(clock=…, order=…)`, and tools that find faults in concurrent code."""

from __future__ import annotations

from .._core.clock import VirtualClock
from .._core.order import SeededOrder
from ..debug._stalls import max_stall
from . import _standard_time  # noqa: F401  takes part in the start and the stop of a carrier by being imported
from ._explore.explore import explore, replay
from ._explore.hypothesis_strategy import schedules
from ._explore.report import Exploration, ScheduleFailed
from ._explore.schedule import Schedule
from ._injection import Checkpoint, InjectionError, inject_cancel
from ._leaks import LeakError, check_nothing_leaked
from ._network.network import MemoryListener, Network, memory_socketpair
from ._network.socket import MemorySocket
from ._no_park import Parked, no_park
from ._quiescence import wait_all_parked
from ._sequencer import Sequencer

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
