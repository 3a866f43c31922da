"""Ask the operating system which descriptors are ready: one contract, four ways.

A poller defines

- `register(fd)`: from now on `fd` is known. Raises `PermissionError` for a regular file, which is always ready.
- `arm(fd, direction)`: somebody is about to wait for `direction`, READ or WRITE. An edge-triggered poller does nothing.
- `rearm(fd, direction)`: the same, when it is not known whether `fd` is still the file it was when it was registered.
- `unregister(fd)`: forget it; no error if it is closed already.
- `wait(seconds)`: block up to that long (None: for ever); a list of `(fd, events)`, a sum of READ, WRITE and HANGUP.
  HANGUP means that nothing more will come in; what has ended in both directions is reported as READ and WRITE as well.
- `interrupt()`: make the current or next `wait` return, from any OS thread. A byte written to `interrupt_fd` does so,
  too.
- `close()`.

What was reported once need not be reported again until it is armed again. Nothing here knows fibers or sockets.
"""

from __future__ import annotations

import select
from collections.abc import Callable
from typing import Protocol

from .wakeup import HANGUP, READ, WRITE

__all__ = ["HANGUP", "POLLERS", "READ", "WRITE", "Poller", "make_poller"]


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
    # Defined only where kqueue is, which a type checker on another platform does not see.
    from . import kqueue

    poller: Poller = kqueue.KqueuePoller()  # type: ignore[attr-defined, unused-ignore]
    return poller


def _poll() -> Poller:
    from .poll import PollPoller

    return PollPoller()


def _select() -> Poller:
    from .select import SelectPoller

    return SelectPoller()


# Best first; a platform has those whose system call its `select` module offers.
POLLERS: dict[str, Callable[[], Poller]] = {
    name: make
    for name, make in {"epoll": _epoll, "kqueue": _kqueue, "poll": _poll, "select": _select}.items()
    if hasattr(select, name)
}


def make_poller(name: str | None = None) -> Poller:
    """The poller called `name`, or the best one of this platform.

    Raises:
        ValueError: this platform has no poller of that name.
    """
    if name is None:
        name = next(iter(POLLERS))
    if name not in POLLERS:
        raise ValueError(f"no poller named {name!r} on this platform; choose one of {', '.join(POLLERS)}")
    return POLLERS[name]()
