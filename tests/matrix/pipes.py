"""Pipes without room, and what is left in them."""

import os
import select

from vthreads._calls.net.readiness import WRITE, wait_blocking


def fill(writer):
    os.set_blocking(writer, False)
    # The kernel moves what a tty took on to the other side a little later, and there is room again.
    while select.select([], [writer], [], 0)[1] or os.isatty(writer) and wait_blocking(writer, WRITE, 0.05):
        try:
            os.write(writer, b"x" * 4096)
        except BlockingIOError:
            pass
    os.set_blocking(writer, True)


def emptied_pipe(reader):
    os.set_blocking(reader, False)
    received = b""
    try:
        while piece := os.read(reader, 65536):
            received += piece
    except BlockingIOError:
        pass
    return received
