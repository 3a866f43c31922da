"""Measure the cost of a trace for a TCP echo server and its clients: CPU time with a trace, divided by that without.

    python benchmarks/tracing.py                        20 pairs of runs, on the engine that VTHREADS_ENGINE names
    python benchmarks/tracing.py --pairs 5 --clients 10

Runs with and without a trace alternate in one process. Each pair gives a ratio, and the output is the median. The
conversion of the recording to JSON comes after the traced block and is reported separately.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import socket
import statistics
import sys
import tempfile
import time

import vthreads
from vthreads import ThreadGroup


def echo(connection: socket.socket) -> None:
    """Serve one client."""
    with connection:
        while message := connection.recv(4_096):
            connection.sendall(message)


def accept(listener: socket.socket, clients: int) -> None:
    """Accept and serve all clients."""
    with ThreadGroup() as group:
        for _ in range(clients):
            group.spawn(echo, listener.accept()[0])


def talk(address: tuple[str, int], messages: int) -> None:
    """Run one client."""
    with socket.create_connection(address) as connection:
        for _ in range(messages):
            connection.sendall(b"x" * 100)
            connection.recv(4_096)


def echoes(clients: int, messages: int) -> float:
    """Return the CPU seconds of a run, of server and clients together."""
    with socket.create_server(("127.0.0.1", 0), backlog=clients) as listener, ThreadGroup() as group:
        began = time.process_time()
        group.spawn(accept, listener, clients)
        for _ in range(clients):
            group.spawn(talk, listener.getsockname(), messages)
    return time.process_time() - began


def traced_echoes(clients: int, messages: int, path: str) -> tuple[float, float]:
    """Return the same in a trace, and the CPU seconds of the end of the trace."""
    with contextlib.ExitStack() as stack:
        stack.enter_context(vthreads.trace(path))
        took = echoes(clients, messages)
        began = time.process_time()
    return took, time.process_time() - began


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=20)
    parser.add_argument("--clients", type=int, default=50)
    parser.add_argument("--messages", type=int, default=400, help="of each client")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        path = os.path.join(directory, "trace.json")
        echoes(options.clients, options.messages)
        plain, ratios, renderings = [], [], []
        for _ in range(options.pairs):
            plain.append(echoes(options.clients, options.messages))
            traced, rendering = traced_echoes(options.clients, options.messages, path)
            ratios.append(traced / plain[-1])
            renderings.append(rendering)
    count = options.clients * options.messages
    sys.stdout.write(
        f"{statistics.median(plain) / count * 1e6:.1f} µs a round trip without a trace\n"
        f"{statistics.median(ratios):.3f} times as much with one"
        f" (quartiles {', '.join(f'{quartile:.3f}' for quartile in statistics.quantiles(ratios))})\n"
        f"{statistics.median(renderings) / count * 1e6:.1f} µs a round trip to make it JSON, after the block\n"
    )


if __name__ == "__main__":
    vthreads.run(main)
