"""Files to open."""

from __future__ import annotations

import errno
import os

import pytest

from vthreads._calls.files import kinds, raw, reading


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"".join(b"line %d\n" % number for number in range(2000)))
    return path


@pytest.fixture
def fifo(tmp_path):
    path = tmp_path / "fifo"
    os.mkfifo(path)
    return path


@pytest.fixture(params=["cached", "not cached"])
def cached(request, monkeypatch, tmp_path):
    """Whether the page cache has what is read."""
    # Wherever temporary files are.
    monkeypatch.setitem(kinds._in_memory, tmp_path.stat().st_dev, False)
    if request.param == "not cached":

        def preadv(fd, buffers, offset, flags=0):
            if flags & reading.NOWAIT:
                raise BlockingIOError(errno.EAGAIN, "not cached")
            return original(fd, buffers, offset, flags)

        original = reading.original_preadv
        monkeypatch.setattr(reading, "original_preadv", preadv)
        monkeypatch.setattr(raw.File, "_read_rest_at_once", lambda *_: None)
