"""Wrong arguments of a replacement: the original refuses them, in its own words.

A program sees the error of the function that it called, and the words differ between versions of Python. So a call that
failed with an error of wrong arguments is repeated by the original, on something harmless: a closed socket, a
descriptor that is not open, a name without a file. If the original refuses the arguments there as well, its error
replaces the other one; else it fails because of what is closed, and the first error stays.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import partial, wraps
from types import BuiltinFunctionType, MethodDescriptorType
from typing import Any

from .._core.engine import refuse_by
from .._core.originals import get_ident

__all__ = ["refusing_like"]

# The errors of wrong arguments.
ERRORS = (TypeError, ValueError, OverflowError)
# Originals whose replacement gets no frame around it, and so refuses wrong arguments with Python's message. `open`
# counts frames to find the caller that it warns of. `get_ident` is called for each record of a log, and the frame would
# cost more than the call. The names mean the originals, because this module is imported before the patch.
WITHOUT_FRAME = (open, get_ident)
# A number that no process has opened: the limit of open files is far below.
NOT_OPEN = 2**31 - 1

# Functions of descriptors, by name: how many of the first arguments are descriptors.
DESCRIPTORS = {
    **dict.fromkeys(["read", "readv", "pread", "preadv", "write", "writev", "eventfd_read", "eventfd_write"], 1),
    **dict.fromkeys(["close", "set_blocking", "flock", "lockf", "fcntl", "ioctl"], 1),
    **dict.fromkeys(["splice", "copy_file_range", "sendfile", "dup2"], 2),
}

Arguments = tuple[tuple[Any, ...], dict[str, Any]]
Harmless = Callable[[tuple[Any, ...], dict[str, Any]], Arguments | None]

# The result for each replacement, so that patching twice installs the same object.
_made: dict[Any, Any] = {}


def refusing_like(original: Any, function: Any) -> Any:
    """Return `function` so that wrong arguments are refused by `original`, if that is a function of C code."""
    if not isinstance(original, (BuiltinFunctionType, MethodDescriptorType)):
        return function
    if function not in _made:
        harmless = _harmless_for(original)
        refuse = _refuse_by(original, harmless)
        # Without a harmless call, only a wrong number or name of arguments is certain to be refused.
        any_error = harmless is not None
        if refuse_by(function, refuse, any_error) or original in WITHOUT_FRAME:
            _made[function] = function
        else:
            _made[function] = _refusing_by(original, function, refuse, any_error)
    return _made[function]


def _refusing_by(original: Any, function: Any, refuse: Callable[..., None], any_error: bool) -> Any:
    """Return `function` with a frame around it in which `refuse` replaces an error of wrong arguments.

    Python raises the error of a wrong number or name before the function has a frame, so no code inside it can replace
    the error. A compiled function needs no frame: `refuse_by` has changed its entry.
    """
    # Not global: at exit the interpreter clears the globals of modules before it frees the last objects.
    errors, is_finalizing = ERRORS, sys.is_finalizing

    @wraps(function)
    def call(*args: Any, **keywords: Any) -> Any:
        try:
            return function(*args, **keywords)
        except errors as error:
            if is_finalizing():
                # The globals of `function` may be cleared. A finalizer that keeps its own reference to `os.close` or
                # `os.waitpid`, as those of a connection and a `Popen` do, must not fail because of that.
                return original(*args, **keywords)
            # An error without a deeper frame was raised by the call itself, before `function` began.
            if error.__traceback__.tb_next is not None and not any_error:  # type: ignore[union-attr]  # just raised
                raise
            refusal = _refusal(refuse, args, keywords)
            if refusal is None:
                raise
        raise refusal from None

    return call


def _refusal(refuse: Callable[..., None], args: tuple[Any, ...], keywords: dict[str, Any]) -> BaseException | None:
    try:
        refuse(*args, **keywords)
    except ERRORS as error:
        return error.with_traceback(None)
    return None


def _refuse_by(original: Any, harmless: Harmless | None) -> Callable[..., None]:
    """Return a function that raises the error of `original` for wrong arguments, and does nothing for others."""

    def refuse(*args: Any, **keywords: Any) -> None:
        arguments: Arguments | None = (args, keywords)
        try:
            if harmless is not None:
                arguments = harmless(args, keywords)
            if arguments is not None:
                original(*arguments[0], **arguments[1])
        except OSError:
            # The arguments are right, and only the closed socket or the missing file made it fail.
            return

    return refuse


def _harmless_for(original: Any) -> Harmless | None:
    if isinstance(original, MethodDescriptorType):
        kind = original.__objclass__
        return partial(_on_closed_socket, kind) if kind.__name__ == "socket" else None
    if original.__name__ == "open":
        return _without_file
    if original.__name__ == "closerange":
        return _with_empty_range
    if original.__name__ in DESCRIPTORS:
        return partial(_without_descriptors, DESCRIPTORS[original.__name__])
    return None


def _on_closed_socket(kind: Any, args: tuple[Any, ...], keywords: dict[str, Any]) -> Arguments | None:
    if not args or not isinstance(args[0], kind):
        return args, keywords
    # Of the same family, because that decides which addresses are right.
    closed = kind(kind.family.__get__(args[0]), kind.type.__get__(args[0]))
    closed.close()
    return (closed, *args[1:]), keywords


def _without_file(args: tuple[Any, ...], keywords: dict[str, Any]) -> Arguments | None:
    if len(args) == 8 and args[7] is not None or "opener" in keywords:
        # The original would call the opener of the program once more.
        return None
    if args and isinstance(args[0], (str, bytes)):
        return ("" if isinstance(args[0], str) else b"", *args[1:]), keywords
    return _without_descriptors(1, args, keywords)


def _without_descriptors(count: int, args: tuple[Any, ...], keywords: dict[str, Any]) -> Arguments:
    names = ("fd", "fd2", "src", "dst", "out_fd", "in_fd")
    return (
        (*map(_not_open, args[:count]), *args[count:]),
        {name: _not_open(value) if name in names else value for name, value in keywords.items()},
    )


def _not_open(fd: Any) -> Any:
    # Keep a number that is wrong by itself, such as a negative one: the original refuses it with the right words.
    return NOT_OPEN if hasattr(fd, "fileno") or isinstance(fd, int) and 0 <= fd <= NOT_OPEN else fd


def _with_empty_range(args: tuple[Any, ...], keywords: dict[str, Any]) -> Arguments:
    return tuple(NOT_OPEN if isinstance(fd, int) and abs(fd) <= NOT_OPEN + 1 else fd for fd in args), keywords
