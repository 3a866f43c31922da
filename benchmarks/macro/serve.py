"""Be the server of one peer: python -P -m macro.serve MODULE. Its port is printed."""

import resource
import sys
from importlib import import_module

from . import allocator


def announce(port):
    """Say where the server listens."""
    print(port, flush=True)


def main():
    """Serve until ended from outside."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    allocator.settle()
    import_module(sys.argv[1]).serve(announce)


if __name__ == "__main__":
    main()
