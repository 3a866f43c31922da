"""BSD and macOS kqueue, edge-triggered (EV_CLEAR), both directions registered once. Not tested on this project's CI."""

from __future__ import annotations

import select
import sys

from ...originals import kqueue
from .wakeup import HANGUP, READ, URGENT, WRITE, WakeupPipe, own_fds

__all__ = ["KqueuePoller"]

# The names exist only where kqueue does, so type checkers on other platforms must skip this.
if sys.platform != "linux" and sys.platform != "win32":

    class KqueuePoller:
        """Implements the contract of the package. `arm` does nothing, as with epoll."""

        name = "kqueue"

        def __init__(self) -> None:
            self._kqueue = kqueue()
            own_fds.add(self._kqueue.fileno())
            self._wakeup = WakeupPipe()
            self.interrupt_fd = self._wakeup.write_fd
            self.interrupt = self._wakeup.interrupt
            add = select.kevent(self._wakeup.read_fd, select.KQ_FILTER_READ, select.KQ_EV_ADD)
            self._kqueue.control([add], 0)

        def register(self, fd: int) -> None:
            flags = select.KQ_EV_ADD | select.KQ_EV_CLEAR
            changes = [select.kevent(fd, kind, flags) for kind in (select.KQ_FILTER_READ, select.KQ_FILTER_WRITE)]
            self._kqueue.control(changes, 0)

        def arm(self, fd: int, direction: int) -> None:
            """Do nothing: the registration is still valid."""

        def rearm(self, fd: int, direction: int) -> None:
            # Adding an existing filter modifies it, and reports readiness that exists already.
            self.register(fd)

        def unregister(self, fd: int) -> None:
            for kind in (select.KQ_FILTER_READ, select.KQ_FILTER_WRITE):
                try:
                    self._kqueue.control([select.kevent(fd, kind, select.KQ_EV_DELETE)], 0)
                except OSError:
                    # Closed already, which has removed it from the kernel's set.
                    pass

        def wait(self, seconds: float | None) -> list[tuple[int, int]]:
            ready: dict[int, int] = {}
            for event in self._kqueue.control(None, 256, seconds):
                if event.ident == self._wakeup.read_fd:
                    self._wakeup.drain()
                    continue
                # Most systems have no separate filter for urgent data, so report them with all data.
                events = READ | URGENT if event.filter == select.KQ_FILTER_READ else WRITE
                if event.flags & select.KQ_EV_EOF:
                    events |= HANGUP
                ready[event.ident] = ready.get(event.ident, 0) | events
            return list(ready.items())

        def close(self) -> None:
            if not self._kqueue.closed:
                own_fds.discard(self._kqueue.fileno())
                self._kqueue.close()
            self._wakeup.close()
