"""Both kinds of event loop, without what uvloop opens once for the process."""

import sys

import pytest
import uvloop


@pytest.fixture(autouse=True, scope="session")
def signal_pipe_of_uvloop():
    """The first loop opens a pipe for the whole process, which stays."""
    uvloop.new_event_loop().close()


@pytest.fixture(params=["uvloop", "asyncio"])
def kind(request, monkeypatch):
    """The kind of the shared loop: asyncio's own, if uvloop cannot be imported."""
    if request.param == "asyncio":
        monkeypatch.setitem(sys.modules, "uvloop", None)
    return request.param
