"""Calls that sleep, and the virtual threads that are left, for the tests of functions over groups."""

import vthreads
from vthreads._core.deadlock import threads_below

__all__ = ["after", "others"]


def after(seconds, value=None):
    """Sleep, then return `value`, or raise it."""
    vthreads.sleep(seconds)
    if isinstance(value, BaseException):
        raise value
    return value


def others():
    """The virtual threads of this carrier except the calling one and the root."""
    me = vthreads.current_thread()
    return [thread for thread in threads_below(me._scheduler) if thread not in (me, me._scheduler.root)]
