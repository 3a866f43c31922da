"""The C program of `limit`, which also copies as much memory as greenlet does for a thread that waits in `recv`."""

import os
from pathlib import Path

from ..c_programs import built

# The C stack of a virtual thread in `recv`, from greenlet's switch to the base of its stack, on Python 3.11.
STACK = 2_240  # bytes


def serve(announce):
    """Replace this process by the C program, which prints its port."""
    program = built(Path(__file__).with_name("limit.c"))
    os.execv(program, [program, str(STACK)])
