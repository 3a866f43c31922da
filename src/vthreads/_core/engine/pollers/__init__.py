"""Ask the operating system which descriptors are ready: one contract, four implementations.

A poller defines

- `register(fd)`: add `fd`. Raises `PermissionError` for a regular file, which is always ready.
- `arm(fd, direction)`: a fiber is about to wait for `direction`, READ or WRITE. Edge-triggered pollers do nothing.
- `rearm(fd, direction)`: the same, if `fd` may mean another file than when it was registered.
- `unregister(fd)`: remove it; no error if it is closed already.
- `wait(seconds)`: block up to that long (None: no limit); return a list of `(fd, events)`, a sum of READ, WRITE, HANGUP
  and URGENT. HANGUP means that no more data will arrive; if both directions have ended, READ and WRITE are reported as
  well. URGENT means that urgent data may have arrived; a poller that cannot detect it reports it with every READ.
- `interrupt()`: make the current or next `wait` return, from any OS thread. Writing a byte to `interrupt_fd` does the
  same.
- `close()`.
- `name`: the name by which `run(poller=...)` selects it.
- `fileno()`, optional: a descriptor that is readable while an event waits. An event loop that hosts the scheduler waits
  for it, so a poller without one cannot be the guest of a loop.

An event that was reported need not be reported again until the descriptor is armed again. This package does not depend
on fibers or sockets.
"""

from __future__ import annotations

import select
from collections.abc import Callable
from typing import Protocol

from .wakeup import HANGUP, READ, URGENT, WRITE

__all__ = ["HANGUP", "POLLERS", "READ", "URGENT", "WRITE", "Poller", "make_poller"]


class Poller(Protocol):
    """See the module's contract."""

    name: str
    interrupt_fd: int

    def register(self, fd: int) -> None: ...

    def arm(self, fd: int, direction: int) -> None: ...

    def rearm(self, fd: int, direction: int) -> None: ...

    def unregister(self, fd: int) -> None: ...

    def wait(self, seconds: float | None) -> list[tuple[int, int]]: ...

    def interrupt(self) -> None: ...

    def close(self) -> None: ...


def _epoll() -> Poller:
    from .epoll import EpollPoller

    return EpollPoller()


def _kqueue() -> Poller:
    # The module has the class only on platforms with kqueue, so a type checker on others does not see it.
    from . import kqueue

    poller: Poller = kqueue.KqueuePoller()  # type: ignore[attr-defined, unused-ignore]
    return poller


def _poll() -> Poller:
    from .poll import PollPoller

    return PollPoller()


def _select() -> Poller:
    from .select import SelectPoller

    return SelectPoller()


# Best first. A platform has those whose system call is in its `select` module.
POLLERS: dict[str, Callable[[], Poller]] = {
    name: make
    for name, make in {"epoll": _epoll, "kqueue": _kqueue, "poll": _poll, "select": _select}.items()
    if getattr(select, name, None) is not None
}


def make_poller(name: str | None = None) -> Poller:
    """Return the poller called `name`, or the best one of this platform.

    Raises:
        ValueError: this platform has no poller of that name.
    """
    if name is None:
        name = next(iter(POLLERS))
    if name not in POLLERS:
        raise ValueError(f"no poller named {name!r} on this platform; choose one of {', '.join(POLLERS)}")
    return POLLERS[name]()
