"""Fixtures of the tests of `explore`."""

import pytest

import vthreads


@pytest.fixture(scope="module")
def patched_once(patched_or_not):
    """Leave the standard library patched between the tests of a module.

    Otherwise each exploration patches, and a patch searches all objects of the process: a second of processor time.
    """
    vthreads.patch(threads=True)
    yield
    vthreads.unpatch()
