"""Run the server of one peer: python -P -m macro.serve MODULE.

The first line printed is the port, or "left out: " and the reason why the server cannot run on this machine.
"""

import sys
from importlib import import_module

from . import allocator, descriptors
from .left_out import LeftOut


def announce(port):
    """Print the port of the server."""
    print(port, flush=True)


def main():
    """Serve until the process is killed."""
    descriptors.allow_all()
    allocator.settle()
    try:
        import_module(sys.argv[1]).serve(announce)
    except LeftOut as why:
        print(f"left out: {why}", flush=True)


if __name__ == "__main__":
    main()
