"""psycopg2: its wait callback, which it calls in place of waiting in C, for every connection of the process.

A cancellation or interrupt cancels the query on the server, and psycopg2 closes a connection whose callback failed. The
callback is called when the query has been sent, so one that is made in a cancelled scope reaches the server, too.

psycopg2 refuses COPY and large objects, on any thread, while there is a callback: a program that needs them unsets it
(`psycopg2.extensions.set_wait_callback(None)`) and offloads its calls. Whoever has set one already keeps it. While a
query is under way psycopg2 holds a lock in C: closing its connection in another virtual thread blocks the carrier.
"""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType
from typing import Any

from .._core.current import running
from ..net.readiness import READ, WRITE, park_for_library, wait_blocking

__all__ = ["fit"]


def fit(extensions: ModuleType) -> list[Callable[[], None]]:
    """Register the wait callback at `psycopg2.extensions`, unless there is one; what takes it back."""
    driver: Any = extensions
    if driver.get_wait_callback() is not None:
        return []
    directions = {driver.POLL_READ: READ, driver.POLL_WRITE: WRITE}
    connected = (driver.STATUS_READY, driver.STATUS_BEGIN, driver.STATUS_PREPARED)

    def wait(connection: Any) -> None:
        try:
            while (state := connection.poll()) != driver.POLL_OK:
                _wait_for(connection.fileno(), directions[state])
        except connection.Error:
            raise
        except BaseException:
            if connection.status in connected:
                _cancel_query(connection)
            else:
                # Only marked as closed by psycopg2, which keeps the socket.
                connection.close()
            raise

    def take_back() -> None:
        if driver.get_wait_callback() is wait:
            driver.set_wait_callback(None)

    driver.set_wait_callback(wait)
    return [take_back]


def _wait_for(fd: int, direction: int) -> None:
    thread = running()
    if thread is None:
        wait_blocking(fd, direction, None)
    else:
        thread.check()
        park_for_library(thread, fd, direction)


def _cancel_query(connection: Any) -> None:
    """Send a cancel request. Not offloaded: psycopg2 keeps the interpreter's lock while libpq sends it."""
    try:
        connection.cancel()
    except connection.Error:
        # There is no server any more.
        pass
