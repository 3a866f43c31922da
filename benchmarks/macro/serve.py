"""Be the server of one peer: python -P -m macro.serve MODULE. Its port is printed."""

import sys
from importlib import import_module

from . import allocator, descriptors


def announce(port):
    """Say where the server listens."""
    print(port, flush=True)


def main():
    """Serve until ended from outside."""
    descriptors.allow_all()
    allocator.settle()
    import_module(sys.argv[1]).serve(announce)


if __name__ == "__main__":
    main()
