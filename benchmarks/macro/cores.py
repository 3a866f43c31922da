"""Assignment of cores: one for the measured process, another one for its counterpart."""

import os

AVAILABLE = sorted(os.sched_getaffinity(0))
MEASURED, LOAD = AVAILABLE[0], AVAILABLE[-1]


def pin(core):
    """Pin this process, and all processes that it starts later, to `core`."""
    os.sched_setaffinity(0, {core})
