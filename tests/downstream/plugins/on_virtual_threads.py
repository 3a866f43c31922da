"""`pytest` with the whole session inside the root virtual thread."""

import sys

import vthreads

vthreads.patch()

import pytest  # noqa: E402  patched first, as `vthreads run` does it

if __name__ == "__main__":
    sys.exit(vthreads.run(pytest.main, sys.argv[1:]))
