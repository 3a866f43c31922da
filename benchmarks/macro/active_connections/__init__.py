"""TCP echo on 100 connections while the others are idle: do idle connections make a request more expensive?

The figure *alone* is of a second server of the same kind, which has no idle connections.
"""

from contextlib import ExitStack
from importlib import import_module
from pathlib import Path

from .. import cores
from ..c_programs import built
from ..idle_connections import answered_connection
from ..servers import answered_requests, server_process, under_load

PEERS = "echo"
SIZE = "connections"
SIZES = (10_000,)
OPERATIONS = 100_000
FIGURES = {"cpu": "µs per request", "alone": "µs per request without idle connections"}

ACTIVE = 100
LOAD = Path(import_module("macro.echo").__file__).with_name("load.c")


def measure(peer, size, operations):
    """Return the CPU time of a request, on at most 100 connections of `size`, and of a request without the others."""
    active = min(ACTIVE, size)
    operations -= operations % active
    alone = under_load(LOAD, peer, active, operations)["cpu"]
    # The idle connections close after the server has ended: they cost it nothing at the end.
    with ExitStack() as idle, server_process(peer.__name__, cores.MEASURED) as (pid, port):
        for _ in range(size - active):
            idle.enter_context(answered_connection(port))
        used, _ = answered_requests(built(LOAD), pid, port, active, operations)
    return {"cpu": used / operations * 1e6, "alone": alone}
