"""Calls that fail, and the outcomes of calls and groups, for the tests of the core."""

from vthreads import sleep

__all__ = ["failing", "failures_of", "outcome"]


def failing(error, after=0):
    """Sleep `after` seconds, then raise `error`."""
    sleep(after)
    raise error


def failures_of(caught):
    """The failures in a caught group, by class."""
    return sorted(type(error).__name__ for error in caught.value.exceptions)


def outcome(fn, *args):
    """The outcome of a call: its result, or the class of its exception."""
    try:
        return fn(*args)
    except BaseException as error:
        return type(error)
