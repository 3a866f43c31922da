"""Data of each virtual thread for itself.

A root thread shares the data of its OS thread, whose code it is. The data belong to the `local` object, by a token that
each thread has: whichever of the two goes first takes them along, and data that refer back to the object are ordinary
garbage with it.
"""

from __future__ import annotations

import _thread
from typing import Any
from weakref import WeakKeyDictionary

from ._core.current import running

__all__ = ["OSThreadLocal", "StandardLocal", "local", "local_over"]

# The original of `threading.local`.
OSThreadLocal = _thread._local


class _Token:
    """Stands for a thread, and lives as long as it runs."""

    __slots__ = ("__weakref__",)


class _OSThread(OSThreadLocal):
    def __init__(self) -> None:
        self.token = _Token()


_os_thread = _OSThread()


def _token_here() -> _Token:
    thread = running()
    if thread is None or thread.thread_ident == thread.scheduler.ident:
        # The code of the OS thread: the root, and signal handlers.
        return _os_thread.token
    token: _Token | None = thread.locals
    if token is None:
        token = thread.locals = _Token()
    return token


class _Data:
    """What a `local` object holds."""

    __slots__ = ("arguments", "by_token", "keywords", "os_threads")

    def __init__(self, arguments: tuple[Any, ...], keywords: dict[str, Any]) -> None:
        self.by_token: WeakKeyDictionary[_Token, dict[str, Any]] = WeakKeyDictionary()
        # `__init__` is called again with these in each thread that uses the object, as `threading.local` does.
        self.arguments = arguments
        self.keywords = keywords
        # The object whose place it takes, with the data that OS threads have there.
        self.os_threads: OSThreadLocal | None = None

    def first_dict(self, token: _Token) -> dict[str, Any]:
        """What a thread begins with."""
        if self.os_threads is not None and token is _os_thread.token:
            return vars(self.os_threads)
        return {}


def _dict_here(self: local) -> dict[str, Any]:
    data: _Data = object.__getattribute__(self, "_data")
    token = _token_here()
    mine = data.by_token.get(token)
    if mine is None:
        mine = data.by_token[token] = data.first_dict(token)
        cls = type(self)
        if cls.__init__ is not object.__init__:
            try:
                cls.__init__(self, *data.arguments, **data.keywords)
            except BaseException:
                # The next use tries again.
                del data.by_token[token]
                raise
    return mine


class local:  # noqa: N801  the name that everybody knows
    """As `threading.local`, per virtual thread: attributes with a value of their own in each thread.

    A subclass's `__init__` runs again, with the same arguments, in each thread that uses the object. Not a checkpoint;
    thread-safe.
    """

    __slots__ = ("__weakref__", "_data")

    _data: _Data

    def __new__(cls, /, *args: Any, **kwargs: Any) -> local:
        """Make it, with data for the calling thread; `__init__` runs with these arguments in each thread."""
        if (args or kwargs) and cls.__init__ is object.__init__:
            raise TypeError("Initialization arguments are not supported")
        self = object.__new__(cls)
        data = _Data(args, kwargs)
        object.__setattr__(self, "_data", data)
        # In the thread that makes it, `__init__` is called by the class.
        data.by_token[_token_here()] = {}
        return self

    def __getattribute__(self, name: str) -> Any:
        if name == "__dict__":
            return _dict_here(self)
        mine = _dict_here(self)
        # Data descriptors of the class (properties, slots) come first, as everywhere.
        attribute = _class_attribute(type(self), name)
        if attribute is not None and hasattr(type(attribute), "__set__"):
            return object.__getattribute__(self, name)
        if name in mine:
            return mine[name]
        return object.__getattribute__(self, name)

    def __setattr__(self, name: str, value: Any) -> None:
        if name == "__dict__":
            raise AttributeError(f"{type(self).__name__!r} object attribute '__dict__' is read-only")
        mine = _dict_here(self)
        attribute = _class_attribute(type(self), name)
        if attribute is not None and hasattr(type(attribute), "__set__"):
            object.__setattr__(self, name, value)
        else:
            mine[name] = value

    def __delattr__(self, name: str) -> None:
        if name == "__dict__":
            raise AttributeError(f"{type(self).__name__!r} object attribute '__dict__' is read-only")
        mine = _dict_here(self)
        attribute = _class_attribute(type(self), name)
        if attribute is not None and hasattr(type(attribute), "__delete__"):
            object.__delattr__(self, name)
        elif name in mine:
            del mine[name]
        else:
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")

    def __dir__(self) -> list[str]:
        return sorted({*dir(type(self)), *_dict_here(self)})


class StandardLocal(local):
    """What `threading.local` becomes."""

    __slots__ = ()


# Where programs find it, and what they read in messages.
StandardLocal.__module__, StandardLocal.__qualname__, StandardLocal.__name__ = "_thread", "_local", "_local"


def _class_attribute(cls: type, name: str) -> Any:
    for base in cls.__mro__:
        if name in vars(base):
            return vars(base)[name]
    return None


def local_over(original: OSThreadLocal) -> local:
    """A `local` in place of an original one, with the data that OS threads, and so roots, have there."""
    successor = StandardLocal()
    data: _Data = object.__getattribute__(successor, "_data")
    data.os_threads = original
    # What the calling thread began with was made a moment ago, and is empty.
    data.by_token.clear()
    return successor
