"""Context managers written as generators, through which exceptions of the program pass unchanged.

`contextlib.contextmanager` sets the traceback of an exception that passes. An exception class that refuses attributes
raises then, so another exception would replace the original one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ContextDecorator
from functools import wraps
from types import TracebackType
from typing import Any, Generic, Literal, ParamSpec, TypeVar

from .exceptions import is_passed_on, set_traceback

__all__ = ["Block", "block"]

P = ParamSpec("P")
T = TypeVar("T")


class Block(ContextDecorator, Generic[T]):
    """The context manager that a function decorated with `block` returns. Can also be used as a decorator."""

    def __init__(self, steps: Callable[..., Iterator[T]], args: Any, kwargs: Any) -> None:
        self._made_of = steps, args, kwargs

    def _recreate_cm(self) -> Block[T]:
        return Block(*self._made_of)

    def __enter__(self) -> T:
        function, args, kwargs = self._made_of
        self._steps: Any = function(*args, **kwargs)
        return next(self._steps)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> Literal[False]:
        if error is None:
            next(self._steps, None)
            return False
        try:
            self._steps.throw(error)
        except BaseException as raised:
            # The generator has passed `error` on: returning False raises it unchanged, with the traceback of the block.
            if not is_passed_on(raised, error):
                raise
        set_traceback(error, traceback)
        return False


def block(function: Callable[P, Iterator[T]]) -> Callable[P, Block[T]]:
    """Decorator: make a context manager of a generator function that yields once and swallows nothing."""

    @wraps(function)
    def make(*args: P.args, **kwargs: P.kwargs) -> Block[T]:
        return Block(function, args, kwargs)

    return make
