"""The standard library before the patch, and calls that have to park after it."""

from __future__ import annotations

import pytest

import vthreads
from vthreads import ThreadGroup
from vthreads import _patching as patching


@pytest.fixture
def before():
    """The standard library as it is before the runtime starts."""
    vthreads.unpatch()
    patching.state.refused = False


@pytest.fixture
def parks(before):
    """The result of a call that has to park until others make it return."""

    def parks(wait, wake):
        def root():
            with vthreads.fail_after(100), ThreadGroup() as group:
                waiting = group.spawn(wait)
                assert not waiting.done()
                wake()
            return waiting.result()

        return vthreads.run(root)

    return parks
