"""Locks that enclose what they guard: the value can only be reached by holding the lock. After Rust's `Mutex<T>`."""

from __future__ import annotations

import math
import operator
import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from ._core.current import checkpoint
from ._core.engine import TIMED_OUT
from ._core.originals import RLock
from ._core.wait_queue import Waiter, WaitQueue, waiter_here
from .locks import Lock, LockStatistics

__all__ = ["Guard", "Mutex", "RwLock", "RwLockStatistics"]

T = TypeVar("T")


class Guard(Generic[T]):
    """What `Mutex.guard` gives: the enclosed value as an attribute that can be replaced.

    Attributes:
        value: the value; after the block, using it raises RuntimeError.
    """

    __slots__ = ("_active", "_mutex")

    def __init__(self, mutex: Mutex[T]) -> None:
        self._mutex = mutex
        self._active = True

    def _checked(self) -> Mutex[T]:
        if not self._active:
            raise RuntimeError(f"the guard of {self._mutex!r} was used after its block; keep it inside")
        return self._mutex

    @property
    def value(self) -> T:
        """The enclosed value, settable."""
        return self._checked()._value

    @value.setter
    def value(self, value: T) -> None:
        self._checked()._value = value


class _Holding(Generic[T]):
    """The context manager of `lock`, `guard` and `try_lock`."""

    __slots__ = ("_give", "_given", "_held", "_mutex", "_timeout")

    def __init__(self, mutex: Mutex[Any], give: Callable[[], T], timeout: float | None, held: bool) -> None:
        self._mutex = mutex
        self._give = give
        self._timeout = timeout
        self._held = held
        self._given: Any = None

    def __enter__(self) -> T:
        if not self._held:
            self._mutex._acquire(self._timeout)
        self._given = self._give()
        return self._given  # type: ignore[no-any-return]  # just made by `give`

    def __exit__(self, *_: object) -> None:
        if isinstance(self._given, Guard):
            self._given._active = False
        elif isinstance(self._given, _Checked):
            object.__setattr__(self._given, "_revoked", True)
        self._given = None
        self._held = False
        self._mutex._lock.release()


class Mutex(Generic[T]):
    """A value and the lock that guards it: `with mutex.lock() as value:`.

    Args:
        value: what is enclosed; reach it through the mutex only.
        checked: give a proxy instead of the value itself, which raises when it is used after the block.
    """

    def __init__(self, value: T, *, checked: bool = False) -> None:
        self._value = value
        self._checked = checked
        self._lock = Lock()

    def __repr__(self) -> str:
        # Not the value: it may be changing right now.
        return f"<Mutex {'locked' if self._lock.locked() else 'unlocked'}>"

    def _acquire(self, timeout: float | None) -> None:
        if not self._lock.acquire(timeout=-1 if timeout is None else max(timeout, 0.0)):
            raise TimeoutError(f"{self!r} could not be had within {timeout} seconds")

    def _give(self) -> T:
        return _Checked(self._value, self) if self._checked else self._value  # type: ignore[return-value]  # a proxy

    def lock(self, timeout: float | None = None) -> _Holding[T]:
        """Make a block that holds the lock; its target is the value itself. Thread-safe.

        Entering is a checkpoint if it may wait.

        Args:
            timeout: seconds to wait when entering, or None for no limit; 0 not to wait.

        Raises:
            TimeoutError: (when entering) it could not be had in time.
        """
        return _Holding(self, self._give, timeout, held=False)

    def guard(self, timeout: float | None = None) -> _Holding[Guard[T]]:
        """`lock`, but the target is a `Guard`, whose `value` can be replaced."""
        return _Holding(self, lambda: Guard(self), timeout, held=False)

    def try_lock(self) -> _Holding[T] | None:
        """Make the block of `lock` with the lock held already; None if somebody else holds it. Never a checkpoint.

        Enter what it returns: leaving the block is what releases the lock.
        """
        return _Holding(self, self._give, None, held=True) if self._lock.acquire(blocking=False) else None

    def statistics(self) -> LockStatistics:
        """State and waiters right now. Not a checkpoint; thread-safe."""
        return self._lock.statistics()


# --- the proxy of a checked mutex


class _Checked:
    """Passes everything on to the value, until it is revoked."""

    __slots__ = ("_mutex", "_revoked", "_value")

    def __init__(self, value: Any, mutex: Mutex[Any]) -> None:
        object.__setattr__(self, "_value", value)
        object.__setattr__(self, "_mutex", mutex)
        object.__setattr__(self, "_revoked", False)

    def __getattr__(self, name: str) -> Any:
        return getattr(_value_of(self), name)

    def __setattr__(self, name: str, value: Any) -> None:
        setattr(_value_of(self), name, value)

    def __delattr__(self, name: str) -> None:
        delattr(_value_of(self), name)


def _value_of(proxy: _Checked) -> Any:
    if object.__getattribute__(proxy, "_revoked"):
        mutex = object.__getattribute__(proxy, "_mutex")
        raise RuntimeError(f"the value of {mutex!r} was used after its block; copy what you need inside")
    return object.__getattribute__(proxy, "_value")


# Python looks these up on the type, so a proxy needs each by name. Operators answer NotImplemented for what the value
# does not define, and Python goes on to the other operand.
OPERATORS = """
    add and divmod eq floordiv ge gt le lshift lt matmul mod mul ne or pow radd rand rdivmod rfloordiv rlshift rmatmul
    rmod rmul ror rpow rrshift rshift rsub rtruediv rxor sub truediv xor
""".split()  # noqa: SIM905 - one name per line would be fifty lines
IN_PLACE = """
    iadd iand ifloordiv ilshift imatmul imod imul ior ipow irshift isub itruediv ixor
""".split()  # noqa: SIM905 - likewise

# The others are called as a program calls them, so that their fallbacks and errors are Python's own.
CALLS: dict[str, Callable[..., Any]] = {
    **{call.__name__: call for call in (abs, bool, bytes, complex, dir, float, format, hash, int, iter)},
    **{call.__name__: call for call in (len, next, repr, reversed, round, str)},
    **{name: getattr(math, name) for name in ("ceil", "floor", "trunc")},
    **{name: getattr(operator, name) for name in ("contains", "delitem", "getitem", "index", "invert", "length_hint")},
    **{name: getattr(operator, name) for name in ("neg", "pos", "setitem")},
    "call": lambda value, *args, **keywords: value(*args, **keywords),
    "fspath": os.fspath,
    "enter": lambda value: type(value).__enter__(value),
    "exit": lambda value, *error: type(value).__exit__(value, *error),
}
# What these answer may be the value itself, and goes on being guarded.
KEEPING = {*IN_PLACE, "enter", "iter"}


def _operator(name: str) -> Callable[..., Any]:
    def operate(value: Any, *operands: Any) -> Any:
        method = getattr(type(value), name, None)
        return NotImplemented if method is None else method(value, *operands)

    return operate


def _forwarding(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
    def forward(self: _Checked, *args: Any, **keywords: Any) -> Any:
        value = _value_of(self)
        answer = function(value, *args, **keywords)
        return self if answer is value and name in KEEPING else answer

    return forward


for _name in OPERATORS + IN_PLACE:
    setattr(_Checked, f"__{_name}__", _forwarding(_name, _operator(f"__{_name}__")))
for _name, _function in CALLS.items():
    setattr(_Checked, f"__{_name}__", _forwarding(_name, _function))


# --- many readers or one writer


@dataclass(frozen=True)
class RwLockStatistics:
    """A look at an `RwLock`: how many read, whether one writes, and how many wait."""

    readers: int
    writing: bool
    waiting: int


class _Want:
    """A reader or writer that waits."""

    __slots__ = ("_waiter", "exclusive")

    def __init__(self, waiter: Waiter, exclusive: bool) -> None:
        self._waiter = waiter
        self.exclusive = exclusive

    def unpark(self, value: Any) -> bool:
        return self._waiter.unpark(value)


class _Access(Generic[T]):
    """The context manager of `read` and `write`."""

    __slots__ = ("_exclusive", "_lock", "_timeout")

    def __init__(self, lock: RwLock[T], exclusive: bool, timeout: float | None) -> None:
        self._lock = lock
        self._exclusive = exclusive
        self._timeout = timeout

    def __enter__(self) -> T:
        self._lock._acquire(self._exclusive, self._timeout)
        return self._lock._value

    def __exit__(self, *_: object) -> None:
        self._lock._release(self._exclusive)


class RwLock(Generic[T]):
    """A value that many may read at once and one may write alone: `with lock.read() as value:`.

    First come, first served: a writer that waits holds back the readers behind it, so it is not starved.

    Args:
        value: what is enclosed; reach it through the lock only, and change it in `write` only.
    """

    def __init__(self, value: T) -> None:
        self._value = value
        self._readers = 0
        self._writing = False
        # Reentrant, because a finalizer may run inside.
        self._changing = RLock()
        self._waiting = WaitQueue()

    def __repr__(self) -> str:
        return f"<RwLock readers={self._readers} writing={self._writing} waiting={len(self._waiting)}>"

    def read(self, timeout: float | None = None) -> _Access[T]:
        """Make a block in which the value may be read. Entering is a checkpoint if it may wait; thread-safe.

        Args:
            timeout: seconds to wait when entering, or None for no limit; 0 not to wait.

        Raises:
            TimeoutError: (when entering) it could not be had in time.
        """
        return _Access(self, False, timeout)

    def write(self, timeout: float | None = None) -> _Access[T]:
        """Make a block in which the value may be changed. Otherwise as `read`."""
        return _Access(self, True, timeout)

    def _acquire(self, exclusive: bool, timeout: float | None) -> None:
        waits = timeout is None or timeout > 0
        if waits:
            checkpoint()
        waiter = waiter_here()
        want = _Want(waiter, exclusive)
        with self._changing:
            if not self._waiting and self._grant(exclusive):
                return
            if waits:
                self._waiting.add(want)
                # A finalizer may have released it before that.
                self._admit()
        answer = waiter.park(lambda: self._leave(want), timeout) if waits else TIMED_OUT
        if answer is TIMED_OUT:
            raise TimeoutError(f"{self!r} could not be had within {timeout} seconds")

    def _leave(self, want: _Want) -> bool:
        with self._changing:
            left = self._waiting.withdraw(want)
            if left:
                # A writer that leaves lets the readers behind it through.
                self._admit()
            return left

    def _grant(self, exclusive: bool) -> bool:
        if self._writing or (exclusive and self._readers):
            return False
        if exclusive:
            self._writing = True
        else:
            self._readers += 1
        return True

    def _release(self, exclusive: bool) -> None:
        with self._changing:
            self._ungrant(exclusive)
            self._admit()

    def _admit(self) -> None:
        """Grant to as many as can go, from the front of the queue."""
        while True:
            want = self._waiting.first()
            if want is None or not self._grant(want.exclusive):
                return
            if self._waiting.withdraw(want):
                want.unpark(True)
            else:
                # A finalizer came between and has granted it.
                self._ungrant(want.exclusive)

    def _ungrant(self, exclusive: bool) -> None:
        if exclusive:
            self._writing = False
        else:
            self._readers -= 1

    def statistics(self) -> RwLockStatistics:
        """Readers, writer and waiters right now. Not a checkpoint; thread-safe."""
        return RwLockStatistics(self._readers, self._writing, len(self._waiting))
