"""Handle exceptions of the program without running their code: report, annotate, take apart, re-raise.

An exception class may refuse attributes (as a frozen dataclass does), have `__notes__` that is not a list, fail in its
`__str__`, or be false; its metaclass may fail in any attribute. None of that may replace the failure by another one, or
keep a thread from ending. So only `summary_of` and `without_cancelled` run code of such a class, and handle its errors.
"""

from __future__ import annotations

import sys
import threading
import traceback
from collections.abc import Iterator
from types import TracebackType
from typing import Any, NoReturn, TypeGuard, TypeVar

from ..errors import Cancelled

__all__ = [
    "add_note",
    "drop_frame",
    "insert_context",
    "is_a",
    "is_passed_on",
    "raise_as_it_is",
    "related_to",
    "report",
    "set_attribute",
    "set_traceback",
    "show",
    "summary_of",
    "traceback_of",
    "without_cancelled",
]

T = TypeVar("T")

# The descriptors of the base classes: a subclass may override `__setattr__`, and a metaclass `__mro__`.
_names_of_class: Any = vars(type)["__dict__"].__get__
_mro_of: Any = vars(type)["__mro__"].__get__
_name_of: Any = vars(type)["__name__"].__get__
_attributes: Any = vars(BaseException)["__dict__"]
_context: Any = vars(BaseException)["__context__"]
_cause: Any = vars(BaseException)["__cause__"]
_traceback: Any = vars(BaseException)["__traceback__"]
_members: Any = vars(BaseExceptionGroup)["exceptions"]
_message: Any = vars(BaseExceptionGroup)["message"]

# Most notes of one kind per exception: a constant that thousands of threads raise would otherwise collect thousands.
NOTES_OF_A_KIND = 8


def is_a(error: object, kind: type[T] | tuple[type[T], ...]) -> TypeGuard[T]:
    """`isinstance` by the real type only: `isinstance` itself also reads `__class__`, which may raise."""
    return issubclass(type(error), kind)


def summary_of(error: BaseException) -> str:
    """Return the type and message of `error`, without its causes, whose formatting is slow and reads files."""
    name: str = _name_of(type(error))
    try:
        message = str(error)
        return f"{name}: {message}" if message else name
    except BaseException:  # noqa: BLE001  # reported instead of the message, as in a traceback
        return f"{name}: <exception str() failed>"


def report(error: BaseException, thread: threading.Thread | None) -> None:
    """Report the failure of `thread` (None if unknown) through `threading.excepthook`."""
    try:
        hook = threading.excepthook
        if hook is threading.__excepthook__:
            hook = _write_at_once
        hook(threading.ExceptHookArgs((type(error), error, traceback_of(error), thread)))
    except BaseException as hook_error:  # noqa: BLE001  # a failure of the hook itself, shown before `error`
        show(hook_error)
        show(error)


def _write_at_once(details: threading.ExceptHookArgs) -> None:
    """Do what the default hook does, with a single write.

    The default hook writes line by line, and reads source files between the lines. Each of these calls may park, so the
    reports of threads that fail at the same time would be mixed. A terminal keeps the default hook, which colours it.
    """
    stream = sys.stderr
    # A replacement of the stream may have only the methods that the default hook calls.
    if is_a(details.exc_value, SystemExit) or stream is None or getattr(stream, "isatty", bool)():
        threading.__excepthook__(details)
        return
    name = details.thread.name if details.thread is not None else threading.get_ident()
    lines = traceback.format_exception(details.exc_type, details.exc_value, details.exc_traceback)
    stream.write("".join((f"Exception in thread {name}:\n", *lines)))
    stream.flush()


def show(error: BaseException) -> None:
    """Print `error`, which no code can handle, as the interpreter prints an exception that ends a program."""
    try:
        sys.excepthook(type(error), error, traceback_of(error))
    except BaseException as hook_error:  # noqa: BLE001  # a failure of the hook itself, shown before `error`
        for unseen in (hook_error, error):
            sys.__excepthook__(type(unseen), unseen, traceback_of(unseen))


def traceback_of(error: BaseException) -> TracebackType | None:
    """Return the traceback that the interpreter stores for `error`."""
    traceback: TracebackType | None = _traceback.__get__(error)
    return traceback


def set_traceback(error: BaseException, traceback: TracebackType | None) -> None:
    """Replace the traceback of `error`."""
    _traceback.__set__(error, traceback)


def drop_frame(error: BaseException) -> None:
    """Remove the outermost frame from the traceback of `error`: a frame of the runtime, of no use to the user."""
    traceback = traceback_of(error)
    set_traceback(error, traceback and traceback.tb_next)


def raise_as_it_is(error: BaseException) -> NoReturn:
    """Raise `error` without setting its context to the exception that is being handled here."""
    context = _context.__get__(error)
    try:
        raise error
    finally:
        _context.__set__(error, context)
        # The traceback of the error refers to this frame. Break the cycle, which would keep all frames alive.
        del error, context


def insert_context(error: BaseException, context: BaseException) -> None:
    """Make `context` the context of `error`, and the previous one that of `context`."""
    _context.__set__(context, _context.__get__(error))
    _context.__set__(error, context)


def is_passed_on(raised: BaseException, thrown: BaseException) -> bool:
    """Return whether a generator has passed on `thrown`; a `StopIteration` is converted to a `RuntimeError`."""
    return raised is thrown or (is_a(raised, RuntimeError) and _cause.__get__(raised) is thrown)


def related_to(error: BaseException | None) -> Iterator[BaseException]:
    """Yield `error`, its contexts, and the members of exception groups among these, each once."""
    found, seen = [error], set()
    while found:
        related = found.pop()
        if related is None or id(related) in seen:
            continue
        seen.add(id(related))
        yield related
        found.append(_context.__get__(related))
        if is_a(related, BaseExceptionGroup):
            found.extend(_members.__get__(related))


def without_cancelled(error: BaseException) -> BaseException | None:
    """Return `error` if it is not a cancellation, None if it is only that; for a mixed group, its other failures.

    Where structures are not consistent, call it with delivery deferred: `derive` of a class of the program may wait.
    Python combines a `Cancelled` raised in an `except*` with the other exceptions raised there in a group.
    """
    if not is_a(error, BaseExceptionGroup):
        return None if is_a(error, Cancelled) else error
    cancelled = [is_a(leaf, Cancelled) for leaf in _leaves_of(error)]
    if all(cancelled):
        return None
    if not any(cancelled):
        return error
    try:
        # As `except*` does, not by `error.split`, which a class may override. It calls `derive`.
        rest = BaseExceptionGroup.split(error, Cancelled)[1]
    except BaseException:  # noqa: BLE001  # the group cannot derive another one: use a plain one
        return _plain_rest(error)
    return rest if _is_rest(rest, error) else _plain_rest(error)


def _leaves_of(group: BaseException) -> Iterator[BaseException]:
    """Yield the exceptions in `group` and in its nested groups."""
    found = [group]
    while found:
        leaf = found.pop()
        if is_a(leaf, BaseExceptionGroup):
            found.extend(_members.__get__(leaf))
        else:
            yield leaf


def _is_rest(rest: BaseException | None, group: BaseException) -> bool:
    """Return whether `rest`, which `derive` of a class has made, has all failures of `group`."""
    failures = {id(leaf) for leaf in _leaves_of(group) if not is_a(leaf, Cancelled)}
    return rest is not None and failures == {id(leaf) for leaf in _leaves_of(rest)}


def _plain_rest(group: BaseException) -> BaseException | None:
    try:
        rest = [kept for member in _members.__get__(group) if (kept := without_cancelled(member)) is not None]
    except RecursionError:
        # Groups are nested too deeply. Keep the failures, without the groups in between.
        rest = [leaf for leaf in _leaves_of(group) if not is_a(leaf, Cancelled)]
    return BaseExceptionGroup(_message.__get__(group), rest).with_traceback(traceback_of(group)) if rest else None


def set_attribute(error: BaseException, name: str, value: object) -> None:
    """Set an attribute of `error`, unless its class defines one of that name."""
    if not _is_of_class(error, name):
        dict.__setitem__(_attributes.__get__(error), name, value)


def add_note(error: BaseException, kind: str, text: str) -> None:
    """Add the note `kind + text` to `error`, once; does nothing if the exception stores its notes differently."""
    notes = _notes_of(error)
    note = kind + text
    alike = [other for other in notes if type(other) is str and other.startswith(kind)]
    if len(alike) > NOTES_OF_A_KIND or note in alike:
        return
    notes.append(note if len(alike) < NOTES_OF_A_KIND else f"{kind}… (there are more of these notes)")


def _notes_of(error: BaseException) -> list[object]:
    # The program may have set a dict of its own class.
    attributes = _attributes.__get__(error)
    if not dict.__contains__(attributes, "__notes__") and not _is_of_class(error, "__notes__"):
        dict.__setitem__(attributes, "__notes__", [])
    notes = dict.get(attributes, "__notes__")
    # If there is no usable list, return a new one that is dropped.
    return notes if type(notes) is list else []


def _is_of_class(error: BaseException, name: str) -> bool:
    return any(name in _names_of_class(cls) for cls in _mro_of(type(error)))
