"""Locks that enclose the value they guard: code reaches the value only while it holds the lock (after Rust)."""

from __future__ import annotations

import math
import operator
import os
from collections.abc import Callable
from threading import TIMEOUT_MAX
from typing import TYPE_CHECKING, Any, Generic, NoReturn, TypeVar

from .._core.arguments import checked_timeout
from .._core.copies import refuse_copy
from .._core.current import check_here
from .._core.dropped import warn_dropped
from .._core.engine import TIMED_OUT, Section
from .._core.on_demand import ModuleOnDemand
from .._core.wait_queue import Waiter, WaitQueue, waiter_here
from .locks import Lock, holder_here, list_contended

if TYPE_CHECKING:
    from . import statistics as snapshots
else:
    snapshots = ModuleOnDemand("vthreads._sync.statistics")

__all__ = ["Guard", "Mutex", "RwLock"]

T = TypeVar("T")


class Guard(Generic[T]):
    """Target of `with mutex.guard()`: holds the enclosed value as an attribute that can be replaced.

    Attributes:
        value: the enclosed value; reading or setting it after the block raises RuntimeError.
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
        """The enclosed value; can be set."""
        return self._checked()._value

    @value.setter
    def value(self, value: T) -> None:
        self._checked()._value = value


class _Holding(Generic[T]):
    """Context manager that `lock`, `guard` and `try_lock` return."""

    __slots__ = ("_entered", "_give", "_given", "_held", "_mutex", "_timeout")

    def __init__(self, mutex: Mutex[Any], give: Callable[[], T], timeout: float | None, held: bool) -> None:
        self._mutex = mutex
        self._give = give
        self._timeout = timeout
        self._held = held
        self._given: Any = None
        self._entered = False

    def __del__(self) -> None:
        if not self._entered:
            consequence = "nothing releases the lock" if self._held else "the lock was not acquired"
            warn_dropped(self, consequence)

    def __repr__(self) -> str:
        return f"<block of {self._mutex!r}>"

    def __enter__(self) -> T:
        self._entered = True
        if not self._held:
            self._mutex._acquire(self._timeout)
        self._mutex._lock._in_block = True
        self._given = self._give()
        return self._given  # type: ignore[no-any-return]  # `give` returned it

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
        value: the value to enclose; keep no other reference to it.
        checked: the block gets a proxy for the value, which raises RuntimeError when it is used after the block.
    """

    def __init__(self, value: T, *, checked: bool = False) -> None:
        self._value = value
        self._checked = checked
        self._lock = Lock()

    def __reduce__(self) -> NoReturn:
        refuse_copy(self)

    def __repr__(self) -> str:
        # Omit the value: another thread may be changing it.
        return f"<Mutex {'locked' if self._lock.locked() else 'unlocked'}>"

    def _acquire(self, timeout: float | None) -> None:
        if not self._lock.acquire(timeout=-1 if timeout is None else min(max(timeout, 0.0), TIMEOUT_MAX)):
            assert timeout is not None
            raise TimeoutError(f"{self!r} was not acquired within {timeout:g} seconds")

    def _give(self) -> T:
        return _Checked(self._value, self) if self._checked else self._value  # type: ignore[return-value]  # a proxy

    def lock(self, timeout: float | None = None) -> _Holding[T]:
        """Return a block that holds the lock; its target is the value itself. Thread-safe.

        Entering is a checkpoint if it may wait.

        Args:
            timeout: seconds to wait when entering, or None for no limit; with 0 it never waits.

        Raises:
            TimeoutError: (when entering) the lock was not acquired in time.
        """
        return _Holding(self, self._give, checked_timeout(timeout), held=False)

    def guard(self, timeout: float | None = None) -> _Holding[Guard[T]]:
        """Like `lock`, but the target is a `Guard`, whose `value` can be replaced. Thread-safe.

        Entering is a checkpoint if it may wait; raises as `lock`.
        """
        return _Holding(self, lambda: Guard(self), checked_timeout(timeout), held=False)

    def try_lock(self) -> _Holding[T] | None:
        """Acquire the lock and return a block as `lock` does, or return None if another thread holds it.

        Never a checkpoint; thread-safe. Enter the returned block: leaving it releases the lock.
        """
        return _Holding(self, self._give, None, held=True) if self._lock.acquire(blocking=False) else None

    def statistics(self) -> snapshots.LockStatistics:
        """Return the current state and number of waiters. Not a checkpoint; thread-safe."""
        return self._lock.statistics()


# --- the proxy of a checked mutex


class _Checked:
    """Proxy that forwards everything to the value, until it is revoked."""

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


# Python looks these methods up on the type, so the proxy defines each by name. An operator that the value does not
# define returns NotImplemented, so that Python tries the other operand.
OPERATORS = """
    add and divmod eq floordiv ge gt le lshift lt matmul mod mul ne or pow radd rand rdivmod rfloordiv rlshift rmatmul
    rmod rmul ror rpow rrshift rshift rsub rtruediv rxor sub truediv xor
""".split()  # noqa: SIM905 - one name per line would be fifty lines
IN_PLACE = """
    iadd iand ifloordiv ilshift imatmul imod imul ior ipow irshift isub itruediv ixor
""".split()  # noqa: SIM905 - likewise

# The other methods go through the built-in function, so that Python's own fallbacks and errors apply.
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
# If these return the value itself, the proxy returns itself instead, so that the result stays guarded.
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


class _Want:
    """A waiting reader or writer."""

    __slots__ = ("_waiter", "exclusive")

    def __init__(self, waiter: Waiter, exclusive: bool) -> None:
        self._waiter = waiter
        self.exclusive = exclusive

    def _unpark(self, value: Any) -> bool:
        return self._waiter._unpark(value)


class _Access(Generic[T]):
    """Context manager that `read` and `write` return."""

    __slots__ = ("_entered", "_exclusive", "_lock", "_timeout")

    def __init__(self, lock: RwLock[T], exclusive: bool, timeout: float | None) -> None:
        self._lock = lock
        self._exclusive = exclusive
        self._timeout = timeout
        self._entered = False

    def __del__(self) -> None:
        if not self._entered:
            warn_dropped(self, "the lock was not acquired")

    def __repr__(self) -> str:
        return f"<block of {self._lock!r}>"

    def __enter__(self) -> T:
        self._entered = True
        self._lock._acquire(self._exclusive, self._timeout)
        self._lock._holders[self] = holder_here()
        return self._lock._value

    def __exit__(self, *_: object) -> None:
        self._lock._holders.pop(self, None)
        self._lock._release(self._exclusive)


class RwLock(Generic[T]):
    """A value that many threads may read at once and one may write alone: `with lock.read() as value:`.

    First in, first out: a waiting writer holds back the readers that queue behind it, so writers do not starve.

    Args:
        value: the value to enclose; keep no other reference to it, and change it in `write` only.
    """

    def __init__(self, value: T) -> None:
        self._value = value
        self._readers = 0
        self._writing = False
        # The threads that are in a block of this lock, by the numbers of `Lock._holder`.
        self._holders: dict[_Access[T], int] = {}
        # Reentrant: the garbage collector may run a finalizer that releases the lock while this thread holds it.
        self._changing = Section()
        self._waiting = WaitQueue()
        self._is_listed = False

    def __reduce__(self) -> NoReturn:
        refuse_copy(self)

    def __repr__(self) -> str:
        return f"<RwLock readers={self._readers} writing={self._writing} waiting={len(self._waiting)}>"

    def read(self, timeout: float | None = None) -> _Access[T]:
        """Return a block in which the value may be read. Entering is a checkpoint if it may wait; thread-safe.

        Args:
            timeout: seconds to wait when entering, or None for no limit; with 0 it never waits.

        Raises:
            TimeoutError: (when entering) the lock was not acquired in time.
        """
        return _Access(self, False, checked_timeout(timeout))

    def write(self, timeout: float | None = None) -> _Access[T]:
        """Return a block in which the value may be changed. Entering is a checkpoint if it may wait; see `read`."""
        return _Access(self, True, checked_timeout(timeout))

    def _acquire(self, exclusive: bool, timeout: float | None) -> None:
        waits = timeout is None or timeout > 0
        if waits:
            check_here()
        waiter = waiter_here()
        want = _Want(waiter, exclusive)
        with self._changing:
            if not self._waiting and self._grant(exclusive):
                return
            if waits:
                self._waiting.add(want)
                # A finalizer may have released the lock before this waiter was queued, so check again.
                self._admit()
        if timeout is None:
            list_contended(self)
        answer = waiter._park(lambda: self._leave(want), timeout) if waits else TIMED_OUT
        if answer is TIMED_OUT:
            assert timeout is not None
            raise TimeoutError(f"{self!r} was not acquired within {timeout:g} seconds")

    def _leave(self, want: _Want) -> bool:
        with self._changing:
            left = self._waiting.withdraw(want)
            if left:
                # A writer that leaves may unblock the readers behind it.
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
        """Grant the lock to waiters from the front of the queue, as many as fit."""
        while True:
            want = self._waiting.first()
            if want is None or not self._grant(want.exclusive):
                return
            if not self._waiting.withdraw(want) or not want._unpark(True):
                # Undo the grant: a finalizer granted the lock to this waiter between `first` and `withdraw`, or its
                # thread did not survive a fork.
                self._ungrant(want.exclusive)

    def _ungrant(self, exclusive: bool) -> None:
        if exclusive:
            self._writing = False
        else:
            self._readers -= 1

    def statistics(self) -> snapshots.RwLockStatistics:
        """Return the number of readers, writers and waiters. Not a checkpoint; thread-safe."""
        return snapshots.RwLockStatistics(self._readers, self._writing, len(self._waiting))
