"""No test leaves a child process."""

import gc
import os

import pytest


@pytest.fixture(autouse=True)
def no_child_left():
    yield
    # Objects that a traceback still refers to are open as well.
    gc.collect()
    with pytest.raises(ChildProcessError):
        os.waitpid(-1, os.WNOHANG)
