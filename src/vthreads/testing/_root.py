"""Run a test as the root virtual thread of a new runtime.

For test runners: does what the pytest plugin does, without pytest. The test may leave nothing behind, and can have a
deadline. When it fails, a dump of the virtual threads is reported. The dump is taken at the time of the failure, before
the groups through which the failure propagates have cancelled and joined their threads.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from importlib import import_module
from types import TracebackType
from typing import Any, Literal, TypeVar

from .._core.arguments import checked_count, checked_seconds
from .._core.blocks import block
from .._core.cancel import CancelScope
from .._core.clock import Clock, MonotonicClock, VirtualClock
from .._core.current import running, started_here
from .._core.deadlock import threads_of_run
from .._core.engine import State
from .._core.order import FifoOrder, Order, SeededOrder
from .._core.participants import Participant, participate
from .._core.placement import schedulers_beside
from .._core.runtime import run
from ._leaks import check_nothing_leaked

__all__ = ["RootOptions", "run_as_root"]

T = TypeVar("T")

# Most dumps per test: a test of failures has many of them, and none leaves the test.
MOST_DUMPS = 10

CLOCKS: dict[str, Callable[[], Clock]] = {
    "real": MonotonicClock,
    "virtual": lambda: VirtualClock(patch_time=True),
}


@dataclass(frozen=True)
class RootOptions:
    """Options for running a test.

    Args:
        clock: "real", "virtual" (which `time.monotonic` and similar functions follow), or a clock object.
        deadline: seconds on that clock that the test may take; None for no limit.
        seed: seed of the order in which ready threads run; None: first in, first out.
        order: an order object, instead of a seed.
        leaks: whether the test must leave nothing behind: see `check_nothing_leaked`.
        patch: whether the standard library's blocking calls park, as after `vthreads.patch()`.
        carriers: number of OS threads that run virtual threads, as for `run`; more than 1 run in real time and in no
            fixed order.

    Raises:
        ValueError: an argument is out of range, or both a seed and an order were given, or one of them or another
            clock with several carriers.
    """

    clock: str | Clock = "real"
    deadline: float | None = None
    seed: int | None = None
    order: Order | None = None
    leaks: bool = True
    patch: bool = True
    carriers: int = 1

    def __post_init__(self) -> None:
        if isinstance(self.clock, str) and self.clock not in CLOCKS:
            raise ValueError(f"clock={self.clock!r}: pass one of {', '.join(CLOCKS)}, or a clock object")
        if self.seed is not None and self.order is not None:
            raise ValueError(f"seed={self.seed!r} and order={self.order!r}: pass only one of them")
        checked_seconds(self.deadline, "deadline")
        if checked_count(self.carriers, "carriers", 1) > 1:
            for name, default in {"clock": "real", "seed": None, "order": None}.items():
                value = getattr(self, name)
                if value != default:
                    raise ValueError(
                        f"carriers={self.carriers} with {name}={value!r}: OS threads run in real time and in no fixed "
                        "order; use 1 carrier"
                    )

    def make_clock(self) -> Clock | None:
        """Return the clock: a new one, or the object that was passed; None for several carriers."""
        if self.carriers > 1:
            return None
        return CLOCKS[self.clock]() if isinstance(self.clock, str) else self.clock

    def make_order(self) -> Order | None:
        """Return the order in which ready threads run; None for several carriers."""
        if self.carriers > 1:
            return None
        if self.seed is not None:
            return SeededOrder(self.seed)
        return self.order or FifoOrder()


def run_as_root(test: Callable[[], T], options: RootOptions, report: Callable[[str], object]) -> T:
    """Call `test()` as the root virtual thread of a new runtime.

    Args:
        test: the function to call.
        options: see `RootOptions`.
        report: called with each text about a failed test: its seed, and the dump of its virtual threads.

    Returns:
        The result of `test`.

    Raises:
        LeakError: the test left something behind.
        TimeoutError: the test did not end before its deadline.
        BaseException: any exception of the test.
    """

    def root() -> T:
        deadline = _Deadline(options.deadline)
        failures = _Failures()
        try:
            # Outside the deadline: taking the snapshot takes time that does not belong to the test.
            with check_nothing_leaked() if options.leaks else nullcontext(), deadline, failures.watched():
                return test()
        except BaseException as error:
            # Report before the others are cancelled: the report shows what they waited for.
            _report_failure(options, deadline.dump or failures.dump_of(error) or _dump_of_others(), report)
            _cancel_others()
            raise

    clock, order = options.make_clock(), options.make_order()
    return run(root, carriers=options.carriers, clock=clock, order=order, patch=options.patch)


class _Deadline(CancelScope):
    """The deadline of the test. When it expires, a dump is taken before the threads are cancelled."""

    __slots__ = ("dump", "limit")

    def __init__(self, seconds: float | None) -> None:
        super().__init__()
        # Counted from entering.
        self._seconds = checked_seconds(seconds, "deadline")
        self.limit = seconds
        self.dump: str | None = None

    def _expire(self) -> None:
        """Handle the deadline (called by the scheduler)."""
        self.dump = _dump()
        super()._expire()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> Literal[False]:
        if super().__exit__(kind, error, traceback):
            raise TimeoutError(f"the test did not end within its deadline of {self.limit:g} s")
        return False


class _Failures:
    """Dumps taken when a group recorded a failure, for a failure that later leaves the test."""

    def __init__(self) -> None:
        self._scheduler = started_here()._scheduler
        # Keyed by id: a reference to the failure would keep the objects in its frames alive.
        self._dumps: dict[int, str | None] = {}

    @block
    def watched(self) -> Iterator[None]:
        """Take dumps during the block."""
        _watching[self] = None
        try:
            yield
        finally:
            del _watching[self]

    def _note(self, failure: BaseException) -> None:
        thread = running()
        is_known = any(id(part) in self._dumps for part in _parts(failure))
        if thread is None or is_known or len(self._dumps) == MOST_DUMPS:
            return
        if self._scheduler not in schedulers_beside(thread._scheduler):
            return
        try:
            self._dumps[id(failure)] = _dump()
        except Exception as error:  # noqa: BLE001  # stored instead of the dump: the failure itself must be raised
            self._dumps[id(failure)] = f"the threads could not be read: {error!r}"

    def dump_of(self, error: BaseException) -> str | None:
        """Return the dump that was taken for `error`, or for one of its parts or causes."""
        numbers = {id(part) for part in _parts(error)}
        return next((dump for number, dump in self._dumps.items() if number in numbers), None)


# The active ones: a test may run another test inside.
_watching: dict[_Failures, None] = {}


def _group_failed(failure: BaseException) -> None:
    for failures in list(_watching):
        failures._note(failure)


participate(__name__, Participant(group_failed=_group_failed))


def _parts(error: BaseException) -> Iterator[BaseException]:
    """Yield `error`, its parts and its causes."""
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
    """Return a dump of all virtual threads; None if `vthreads.debug` is not installed."""
    try:
        debug: Any = import_module("vthreads.debug")
    except ModuleNotFoundError:
        return None
    return str(debug.dump())


def _dump_of_others() -> str | None:
    # Leave out the roots of the carriers: one runs this code, and the others wait for the end of the run.
    others = (thread for thread in threads_of_run(started_here()._scheduler) if thread is not thread._scheduler.root)
    return None if next(others, None) is None else _dump()


def _report_failure(options: RootOptions, dump: str | None, report: Callable[[str], object]) -> None:
    if options.seed is not None or options.order is not None:
        report(f"the order of ready threads was {options.make_order()!r}")
    if dump is not None:
        report(dump)


def _cancel_others() -> None:
    """Cancel what is left in the background, so that the end of the runtime need not wait for it."""
    for scheduler in schedulers_beside(started_here()._scheduler):
        for group in (scheduler.background, scheduler.threads):
            if any(thread.state is not State.ENDED for thread in group):
                group.cancel("the test has failed")
