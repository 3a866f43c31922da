"""BSD and macOS kqueue, edge-triggered (EV_CLEAR), both directions registered once. Not tested on this project's CI."""

from __future__ import annotations

import select
import sys

from ...originals import kqueue
from .wakeup import HANGUP, READ, WRITE, WakeupPipe

__all__ = ["KqueuePoller"]

# The names exist only where kqueue does; on other platforms a type checker must not look inside.
if sys.platform != "linux" and sys.platform != "win32":

    class KqueuePoller:
        """Meets the contract of the package. `arm` is free, as with epoll."""

        name = "kqueue"

        def __init__(self) -> None:
            self._kqueue = kqueue()
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
            """The registration stands."""

        def rearm(self, fd: int, direction: int) -> None:
            # Adding what is there changes it and reports a readiness that is there already.
            self.register(fd)

        def unregister(self, fd: int) -> None:
            for kind in (select.KQ_FILTER_READ, select.KQ_FILTER_WRITE):
                try:
                    self._kqueue.control([select.kevent(fd, kind, select.KQ_EV_DELETE)], 0)
                except OSError:
                    # Closed already, and by that out of the kernel's set.
                    pass

        def wait(self, seconds: float | None) -> list[tuple[int, int]]:
            ready: dict[int, int] = {}
            for event in self._kqueue.control(None, 256, seconds):
                if event.ident == self._wakeup.read_fd:
                    self._wakeup.drain()
                    continue
                events = READ if event.filter == select.KQ_FILTER_READ else WRITE
                if event.flags & select.KQ_EV_EOF:
                    events |= HANGUP
                ready[event.ident] = ready.get(event.ident, 0) | events
            return list(ready.items())

        def close(self) -> None:
            self._kqueue.close()
            self._wakeup.close()
