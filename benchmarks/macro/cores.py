"""Which core does what: the measured process has one, whatever asks it or answers it has another."""

import os

AVAILABLE = sorted(os.sched_getaffinity(0))
MEASURED, LOAD = AVAILABLE[0], AVAILABLE[-1]


def pin(core):
    """Stay on `core` from now on, with every process started from here."""
    os.sched_setaffinity(0, {core})
