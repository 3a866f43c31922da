"""asyncio both ways: blocking code calls coroutines, and coroutines call blocking code.

`run`, `await_`, `iterate` and `enter` are for virtual threads; `to_vthread` and `wrap_future` are for coroutines.
Importing this module imports asyncio and starts nothing.
"""

from __future__ import annotations

from ._calls import await_, run
from ._step_tasks import enter, iterate
from ._threads import to_vthread, wrap_future

__all__ = ["await_", "enter", "iterate", "run", "to_vthread", "wrap_future"]
