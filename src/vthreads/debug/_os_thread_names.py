"""The names of OS threads, for reports."""

from __future__ import annotations

import threading
from typing import Any

from .._core.current import carriers
from .._core.os_thread_kinds import hidden_os_threads

__all__ = ["name_of_os_thread"]


def name_of_os_thread(ident: int) -> str:
    """Return the name of the OS thread `ident` in `threading`; of a carrier that is unknown there, that of its root."""
    known: dict[int, threading.Thread] = threading._active  # type: ignore[attr-defined]  # not in the type stubs
    starting: dict[threading.Thread, Any] = threading._limbo  # type: ignore[attr-defined]  # likewise
    # `Thread.start` may return before the new thread has moved from `_limbo` to `_active`.
    os_thread = (
        known.get(ident)
        or hidden_os_threads.get(ident)
        or next((one for one in list(starting) if one.ident == ident), None)
    )
    if os_thread is not None:
        return os_thread.name
    carrier = carriers.get(ident)
    # The name that the run has set; others have a number, which says less than the ident.
    name: str | None = None if carrier is None else carrier.root._name
    return name or f"OS thread {ident}"
