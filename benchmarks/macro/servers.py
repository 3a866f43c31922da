"""A server in a process of its own, measured from outside."""

import subprocess
import sys
from contextlib import contextmanager

from . import cores
from .c_programs import built
from .watch import cpu_seconds_of


@contextmanager
def server_process(module, core):
    """Start the server that `module.serve` is, pinned to `core`; its process id and port. Leaving ends it."""
    cores.pin(core)
    command = [sys.executable, "-P", "-m", "macro.serve", module]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    cores.pin(cores.LOAD)
    try:
        yield server.pid, int(server.stdout.readline() or 0)
    finally:
        server.kill()
        server.wait()
        server.stdout.close()


def under_load(load, peer, size, operations):
    """The server's processor time for each of the requests that the C program `load` sends."""
    cores.pin(cores.LOAD)
    client = built(load)
    with server_process(peer.__name__, cores.MEASURED) as (pid, port):
        command = [client, str(port), str(size), str(operations // size)]
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
        with subprocess.Popen(command, text=True, **pipes) as loading:
            # It has connected, and every connection has had one answer.
            loading.stdout.readline()
            before = cpu_seconds_of(pid)
            print("go", file=loading.stdin, flush=True)
            done = int(loading.stdout.readline() or 0)
            used = cpu_seconds_of(pid) - before
    if done != operations:
        raise AssertionError(f"{peer.__name__} answered {done} of {operations} requests")
    return {"cpu": used / operations * 1e6}
