"""Make one measurement: python -P -m macro.measure WORKLOAD PEER SIZE [OPERATIONS]. The last line printed is JSON.

{"size": 100, "operations": 100000, "figures": {"cpu": 9.7}}
{"left_out": "trio is not installed"}
"""

import json
import sys
from importlib import import_module

from . import descriptors
from .left_out import LeftOut


def peer_of(workload, name):
    """Return the module of a peer, if its imports are installed."""
    owner = getattr(workload, "PEERS", workload.__name__.rpartition(".")[2])
    try:
        return import_module(f"macro.{owner}.{name}")
    except ModuleNotFoundError as missing:
        if missing.name.startswith("macro."):
            raise
        raise LeftOut(f"{missing.name} is not installed") from missing


def measured(workload_name, peer_name, size, operations=None):
    """Return the figures of one peer, with size and number of operations."""
    workload = import_module(f"macro.{workload_name}")
    peer = peer_of(workload, peer_name)
    size = min(size, getattr(peer, "AT_MOST", size))
    most = descriptors.allow_all()
    if workload.SIZE == "connections" and size + descriptors.OTHERS > most:
        raise LeftOut(f"{size} connections need more descriptors than the {most} that a process may have (ulimit -Hn)")
    if workload.OPERATIONS is None:
        operations = size
    elif operations is None:
        operations = workload.OPERATIONS
    # A multiple of `size`: each thread or connection does the same number of operations.
    operations = -(-operations // size) * size
    return {"size": size, "operations": operations, "figures": workload.measure(peer, size, operations)}


def main():
    """Print the figures, or the reason why there are none."""
    workload, peer, *numbers = sys.argv[1:]
    try:
        outcome = measured(workload, peer, *map(int, numbers))
    except LeftOut as why:
        outcome = {"left_out": str(why)}
    print(json.dumps(outcome))


if __name__ == "__main__":
    main()
