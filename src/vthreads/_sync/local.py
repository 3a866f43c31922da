"""Thread-local data for virtual threads.

Each virtual thread has its own data; a root thread shares the data of its OS thread, because it runs the code of that
thread. The data belong to the `local` object, keyed by a token that lives as long as the thread. So they are freed when
either the object or the thread ends, and data that refer back to the object form an ordinary cycle, which gc collects.
"""

from __future__ import annotations

import gc
from typing import Any, NoReturn
from weakref import WeakKeyDictionary, ref

from .._core.copies import refuse_copy
from .._core.current import running
from .._core.originals import OSThreadLocal

__all__ = ["AdoptedLocal", "OSThreadLocal", "StandardLocal", "local", "local_over"]


class _Token:
    """Key for the data of one thread; lives as long as the thread."""

    __slots__ = ("__weakref__",)


class _OSThread(OSThreadLocal):
    def __init__(self) -> None:
        self.token = _Token()


_os_thread = _OSThread()


def _token_here() -> _Token:
    token = _virtual_token()
    return _os_thread.token if token is None else token


def _virtual_token() -> _Token | None:
    """Return the token of the running virtual thread; None for code of an OS thread."""
    thread = running()
    if thread is None or thread._thread_ident == thread._scheduler.ident:
        # The root thread and signal handlers run the code of the OS thread and use its data.
        return None
    token: _Token | None = thread._locals
    if token is None:
        token = thread._locals = _Token()
    return token


class _Data:
    """The content of a `local` object."""

    __slots__ = ("arguments", "by_token", "keywords", "os_threads", "unprepared")

    def __init__(self, arguments: tuple[Any, ...], keywords: dict[str, Any]) -> None:
        self.by_token: WeakKeyDictionary[_Token, dict[str, Any]] = WeakKeyDictionary()
        # As in `threading.local`, `__init__` runs again with these arguments in each thread that uses the object.
        self.arguments = arguments
        self.keywords = keywords
        # The original object that this one replaces. It still holds the data of OS threads.
        self.os_threads: OSThreadLocal | None = None
        # Token of an OS thread in which C code skips `__init__`, because the object was created there. If a virtual
        # thread created it, `__init__` ran for that virtual thread only and must still run for the OS thread.
        self.unprepared: _Token | None = None

    def dict_of(self, owner: Any, token: _Token) -> dict[str, Any]:
        """Return the data of one thread; run `__init__` at the thread's first use."""
        mine = self.by_token.get(token)
        if mine is None:
            mine = self.by_token[token] = self._first_dict(token)
            try:
                self.prepare(owner)
            except BaseException:
                # Remove the data, so that the next use runs `__init__` again.
                del self.by_token[token]
                raise
        return mine

    def _first_dict(self, token: _Token) -> dict[str, Any]:
        if self.os_threads is not None and token is _os_thread.token:
            return vars(self.os_threads)
        return {}

    def prepare(self, owner: Any) -> None:
        cls = type(owner)
        if cls.__init__ is not object.__init__:
            cls.__init__(owner, *self.arguments, **self.keywords)


def _dict_here(self: Any) -> dict[str, Any]:
    if issubclass(type(self), AdoptedLocal):
        return _dict_of_adopted(self)
    data: _Data = _data_of(self)
    return data.dict_of(self, _token_here())


class _PerThread:
    """Attributes with a separate value in each thread."""

    __slots__ = ()

    def __getattribute__(self, name: str) -> Any:
        if name == "__dict__":
            return _dict_here(self)
        mine = _dict_here(self)
        # Data descriptors of the class (properties, slots) override instance attributes, as in any class.
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
            type(attribute).__set__(attribute, self, value)
        else:
            mine[name] = value

    def __delattr__(self, name: str) -> None:
        if name == "__dict__":
            raise AttributeError(f"{type(self).__name__!r} object attribute '__dict__' is read-only")
        mine = _dict_here(self)
        attribute = _class_attribute(type(self), name)
        if attribute is not None and hasattr(type(attribute), "__delete__"):
            type(attribute).__delete__(attribute, self)
        elif name in mine:
            del mine[name]
        else:
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")

    def __dir__(self) -> list[str]:
        return sorted({*dir(type(self)), *_dict_here(self)})


class local(_PerThread):  # noqa: N801  the name that `threading` uses
    """Like `threading.local`, for virtual threads: attributes with a separate value in each thread.

    The `__init__` of a subclass runs again, with the same arguments, in each thread that uses the object. Not a
    checkpoint; thread-safe.
    """

    def __reduce__(self) -> NoReturn:
        refuse_copy(self)

    __slots__ = ("__data", "__weakref__")

    def __new__(cls, /, *args: Any, **kwargs: Any) -> Any:
        """Create the object with data for the calling thread; `__init__` runs with these arguments in each thread."""
        if issubclass(cls, AdoptedLocal):
            # The class was created before patching, and its code calls `threading.local.__new__` by that name.
            return AdoptedLocal.__new__(cls, *args, **kwargs)
        if (args or kwargs) and cls.__init__ is object.__init__:
            raise TypeError("Initialization arguments are not supported")
        self = object.__new__(cls)
        data = _Data(args, kwargs)
        _put_data(self, data)
        # `type.__call__` runs `__init__` for the creating thread, so mark its data as prepared.
        data.by_token[_token_here()] = {}
        return self


_data_of, _put_data = vars(local)["_local__data"].__get__, vars(local)["_local__data"].__set__


class StandardLocal(local):
    """Replacement for `threading.local`."""

    __slots__ = ()

    # A subclass in a program may have `__getstate__`, with which objects of the original can be pickled.
    __reduce__ = object.__reduce__  # type: ignore[assignment]  # `refuse_copy` never returns


# Programs import the class as `_thread._local` and show that name in messages.
StandardLocal.__module__, StandardLocal.__qualname__, StandardLocal.__name__ = "_thread", "_local", "_local"


def _class_attribute(cls: type, name: str) -> Any:
    for base in cls.__mro__:
        if name in vars(base):
            return vars(base)[name]
    return None


def local_over(original: OSThreadLocal) -> local:
    """Return a `local` that replaces `original` and keeps the data of OS threads, and so of roots, from there."""
    successor: local = StandardLocal()
    data: _Data = _data_of(successor)
    data.os_threads = original
    # Drop the empty data that `StandardLocal()` just created for the calling thread: its data are in `original`.
    data.by_token.clear()
    return successor


# --- subclasses created before patching


class AdoptedLocal(_PerThread, OSThreadLocal):
    """Replaces `threading.local` as the base of a class that was created before patching.

    The objects keep the memory layout of the original, which still holds the data of OS threads. The data of virtual
    threads are stored in this module.
    """

    __slots__ = ()

    def __new__(cls, /, *args: Any, **kwargs: Any) -> Any:
        """Create the object with data for the calling thread; `__init__` runs with these arguments in each thread."""
        self = OSThreadLocal.__new__(cls, *args, **kwargs)
        data = _adopted[id(self)] = _data_for(self, args, kwargs)
        token = _virtual_token()
        if token is not None:
            data.by_token[token] = {}
            data.unprepared = _os_thread.token
        return self


# Keyed by id: a WeakKeyDictionary would call `__hash__` and `__eq__` of the user's class.
_adopted: dict[int, _Data] = {}
# Weak references whose callbacks remove the entries of `_adopted`. They must be kept, or the callback never runs.
_ends: dict[int, ref[Any]] = {}


def _dict_of_adopted(self: Any) -> dict[str, Any]:
    data = _adopted.get(id(self))
    if data is None:
        data = _adopted.setdefault(id(self), _data_for(self, *_arguments_of(self)))
    token = _virtual_token()
    if token is not None:
        return data.dict_of(self, token)
    # C code runs `__init__` at the first use in an OS thread, except in the OS thread whose virtual thread created it.
    mine: dict[str, Any] = OSThreadLocal.__getattribute__(self, "__dict__")
    if data.unprepared is not None and data.unprepared is _os_thread.token:
        data.unprepared = None
        try:
            data.prepare(self)
        except BaseException:
            # `__init__` has failed, so the next use must run it again.
            data.unprepared = _os_thread.token
            raise
    return mine


def _data_for(self: Any, arguments: tuple[Any, ...], keywords: dict[str, Any]) -> _Data:
    key = id(self)

    def ended(_: object) -> None:
        _adopted.pop(key, None)
        _ends.pop(key, None)

    _ends[key] = ref(self, ended)
    return _Data(arguments, keywords)


def _arguments_of(self: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Return the arguments that an object from before patching was created with.

    C code stores them in the object, and `gc` lists them before the dicts of the OS threads.
    """
    held = gc.get_referents(self)
    while type(held[-1]) is not dict:
        held.pop()
    held.pop()
    keywords = held.pop() if type(held[-1]) is dict else {}
    return held.pop(), keywords
