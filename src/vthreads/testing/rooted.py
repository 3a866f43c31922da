"""One test as the root virtual thread of a runtime of its own.

For runners of tests: what the plugin for pytest does, without pytest. The test may not leave anything behind, has a
deadline if one is given, and when it fails, what the virtual threads were doing is told: then, and not when the groups
that the failure goes through have cancelled and joined them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from importlib import import_module
from types import TracebackType
from typing import Any, Literal, TypeVar

from .._core.cancel import CancelScope, checked_seconds
from .._core.clock import Clock, MonotonicClock, VirtualClock
from .._core.current import running, started_here
from .._core.deadlock import threads_below
from .._core.engine import State
from .._core.group import failure_hooks
from .._core.order import FifoOrder, Order, SeededOrder
from .._core.runtime import run
from .leaks import check_nothing_leaked

__all__ = ["RootOptions", "run_as_root"]

T = TypeVar("T")

# Of one test: one that is about failures has many, and they come out of none.
MOST_DUMPS = 10

CLOCKS: dict[str, Callable[[], Clock]] = {
    "real": MonotonicClock,
    "virtual": lambda: VirtualClock(patch_time=True),
}


@dataclass(frozen=True)
class RootOptions:
    """How a test is run.

    Args:
        clock: "real", "virtual" (which `time.monotonic` and the like follow), or a clock.
        deadline: seconds on that clock that the test may take; None for no limit.
        seed: of the order in which ready threads run; None: first in, first out.
        order: the same as an object, in place of a seed.
        leaks: whether the test may leave nothing behind: see `check_nothing_leaked`.
        patch: make the standard library's blocking calls park, as `vthreads.patch()`.

    Raises:
        ValueError: an argument is out of its range, or there are a seed and an order.
    """

    clock: str | Clock = "real"
    deadline: float | None = None
    seed: int | None = None
    order: Order | None = None
    leaks: bool = True
    patch: bool = True

    def __post_init__(self) -> None:
        if isinstance(self.clock, str) and self.clock not in CLOCKS:
            raise ValueError(f"clock={self.clock!r}: choose one of {', '.join(CLOCKS)}, or give a clock")
        if self.seed is not None and self.order is not None:
            raise ValueError(f"seed={self.seed!r} and order={self.order!r}: give one of them")
        checked_seconds(self.deadline, "deadline")

    def make_clock(self) -> Clock:
        """Make the clock, or take the one that was given."""
        return CLOCKS[self.clock]() if isinstance(self.clock, str) else self.clock

    def make_order(self) -> Order:
        """Make the order in which ready threads run."""
        if self.seed is not None:
            return SeededOrder(self.seed)
        return self.order or FifoOrder()


def run_as_root(test: Callable[[], T], options: RootOptions, tell: Callable[[str], object]) -> T:
    """Call `test()` as the root virtual thread of a runtime of its own.

    Args:
        test: what to call.
        options: how.
        tell: called with a text about a test that failed: its seed, and what its virtual threads were doing.

    Returns:
        What `test` returned.

    Raises:
        LeakError: it left something behind.
        TimeoutError: it did not end before its deadline.
        BaseException: whatever it raised.
    """

    def root() -> T:
        deadline = _Deadline(options.deadline)
        failures = _Failures()
        try:
            # The look at what is there takes its time, which is not the test's.
            with check_nothing_leaked() if options.leaks else nullcontext(), deadline, failures.watched():
                return test()
        except BaseException as error:
            _tell_of_failure(options, deadline.dump or failures.dump_of(error) or _dump_of_others(), tell)
            _cancel_others()
            raise

    return run(root, clock=options.make_clock(), order=options.make_order(), patch=options.patch)


class _Deadline(CancelScope):
    """The time of the test; when it is over, what everybody is doing is noted before they are cancelled."""

    __slots__ = ("dump", "limit")

    def __init__(self, seconds: float | None) -> None:
        super().__init__()
        # From entering.
        self._seconds = checked_seconds(seconds, "deadline")
        self.limit = seconds
        self.dump: str | None = None

    def expire(self) -> None:
        """The deadline has come (called by the scheduler)."""
        self.dump = _dump()
        super().expire()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> Literal[False]:
        if super().__exit__(kind, error, traceback):
            raise TimeoutError(f"the test did not end within its deadline of {self.limit:g} s")
        return False


class _Failures:
    """What everybody was doing when a group learnt of a failure, for one that comes out of the test."""

    def __init__(self) -> None:
        self._scheduler = started_here().scheduler
        # By the failure's id: itself it would keep alive whatever its frames have.
        self._dumps: dict[int, str | None] = {}

    @contextmanager
    def watched(self) -> Iterator[None]:
        """Take dumps from here on."""
        failure_hooks.append(self._note)
        try:
            yield
        finally:
            failure_hooks.remove(self._note)

    def _note(self, failure: BaseException) -> None:
        thread = running()
        is_known = any(id(part) in self._dumps for part in _parts(failure))
        if thread is None or thread.scheduler is not self._scheduler or is_known or len(self._dumps) == MOST_DUMPS:
            return
        try:
            self._dumps[id(failure)] = _dump()
        except Exception as error:  # noqa: BLE001  # told in its place: the failure itself has to come out
            self._dumps[id(failure)] = f"the threads could not be looked at: {error!r}"

    def dump_of(self, error: BaseException) -> str | None:
        """What was noted of `error`, or of what led to it."""
        numbers = {id(part) for part in _parts(error)}
        return next((dump for number, dump in self._dumps.items() if number in numbers), None)


def _parts(error: BaseException) -> Iterator[BaseException]:
    """`error`, and whatever is in it or led to it."""
    seen: set[int] = set()
    left: list[BaseException | None] = [error]
    while left:
        part = left.pop()
        if part is None or id(part) in seen:
            continue
        seen.add(id(part))
        yield part
        left += [part.__cause__, part.__context__]
        if isinstance(part, BaseExceptionGroup):
            left += part.exceptions


def _dump() -> str | None:
    """What all virtual threads are doing; None in an installation that cannot tell."""
    try:
        debug: Any = import_module("vthreads.debug")
    except ModuleNotFoundError:
        return None
    return str(debug.dump())


def _dump_of_others() -> str | None:
    root = started_here()
    others = [thread for thread in threads_below(root.scheduler) if thread is not root]
    return _dump() if others else None


def _tell_of_failure(options: RootOptions, dump: str | None, tell: Callable[[str], object]) -> None:
    if options.seed is not None or options.order is not None:
        tell(f"the order of ready threads was {options.make_order()!r}")
    if dump is not None:
        tell(dump)


def _cancel_others() -> None:
    """Let the runtime end, which joins whoever is left in the background."""
    scheduler = started_here().scheduler
    for group in (scheduler.background, scheduler.threads):
        if any(thread.state is not State.ENDED for thread in group):
            group.cancel("the test has failed")
