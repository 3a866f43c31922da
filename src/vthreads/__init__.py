"""Virtual threads: plain blocking Python, thousands at once, none leaked."""

from ._core.cancel import CancelScope, remaining
from ._core.future import Future
from ._core.group import ThreadGroup
from ._core.runtime import checkpoint, current_thread, now, run, stopping
from ._core.thread import VirtualThread
from .timeouts import fail_after, fail_at, move_on_after, move_on_at, shield, sleep
