"""No test leaves a child process."""

import gc
import os
import sys

import pytest


@pytest.fixture(autouse=True)
def no_child_left():
    yield
    # Objects that a traceback still refers to are open as well.
    gc.collect()
    tracker = sys.modules.get("multiprocessing.resource_tracker")
    if tracker is not None:
        # A child of this process, which a test of another folder may have caused. `multiprocessing` starts it again.
        tracker._resource_tracker._stop()
    with pytest.raises(ChildProcessError):
        os.waitpid(-1, os.WNOHANG)
