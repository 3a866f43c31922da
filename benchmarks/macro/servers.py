"""A server in a process of its own, measured from outside."""

import os
import signal
import subprocess
import sys
from contextlib import contextmanager

from . import cores
from .c_programs import built
from .left_out import LeftOut
from .watch import cpu_seconds_of_tree, process_tree


@contextmanager
def server_process(module, core):
    """Start the server `module.serve`, pinned to `core`; yield its process id and port, and stop it afterwards."""
    cores.pin(core)
    command = [sys.executable, "-P", "-m", "macro.serve", module]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    cores.pin(cores.LOAD)
    try:
        yield server.pid, _port_of(module, server.stdout.readline())
    finally:
        # Workers of a server that is killed may outlive it.
        for pid in process_tree(server.pid):
            os.kill(pid, signal.SIGKILL)
        server.wait()
        server.stdout.close()


def _port_of(module, announced):
    _, is_left_out, why = announced.partition("left out: ")
    if is_left_out:
        raise LeftOut(why.rstrip())
    if not announced:
        raise RuntimeError(f"the server of {module} ended before it printed its port")
    return int(announced)


def under_load(load, peer, size, operations, *options):
    """Return the CPU time of the server per request of the C program `load`."""
    with loaded(load, peer, size, operations, *options) as (used, _):
        return {"cpu": used / operations * 1e6}


@contextmanager
def loaded(load, peer, size, operations, *options):
    """Send the requests of the C program `load` to a new server.

    Yields the CPU seconds of the server with all its child processes, and the other numbers that the program has
    printed. The server runs until the end of the block.
    """
    cores.pin(cores.LOAD)
    client = built(load)
    with server_process(peer.__name__, cores.MEASURED) as (pid, port):
        yield answered_requests(client, pid, port, size, operations, *options)


def answered_requests(client, pid, port, size, operations, *options):
    """Send the requests of the C program `client` to the server that runs as process `pid`.

    Returns the CPU seconds of the server with all its child processes, and the other numbers that the program has
    printed.
    """
    command = [client, *map(str, (port, size, operations // size, *options))]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen(command, text=True, **pipes) as loading:
        # All connections are open, and each has received one answer.
        loading.stdout.readline()
        before = cpu_seconds_of_tree(pid)
        print("go", file=loading.stdin, flush=True)
        done, *more = map(float, loading.stdout.readline().split() or [0])
        used = cpu_seconds_of_tree(pid) - before
    if done != operations:
        raise AssertionError(f"the server answered {done:.0f} of {operations} requests")
    return used, more
