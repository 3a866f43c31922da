"""psycopg2: set its wait callback, which it calls instead of waiting in C, for every connection of the process.

A cancellation or interrupt cancels the query on the server; psycopg2 closes a connection whose callback failed. The
callback is called after the query was sent, so a query in a cancelled scope reaches the server too.

While a callback is set, psycopg2 refuses COPY and large objects, on any thread. A program that needs them unsets it
(`psycopg2.extensions.set_wait_callback(None)`) and offloads its calls. A callback that is already set stays. During a
query psycopg2 holds a C lock: closing its connection in another virtual thread blocks the carrier.
"""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType
from typing import Any

from .._calls.net.readiness import READ, WRITE, park_for_library, wait_blocking
from .._core.current import running

__all__ = ["fit"]


def fit(extensions: ModuleType) -> list[Callable[[], None]]:
    """Set the wait callback of `psycopg2.extensions`, unless one is set; return the function that undoes it."""
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
            # The server still runs the query, and the caller does not wait for its result: cancel it there as well.
            if connection.status in connected:
                _cancel_query(connection)
            else:
                # psycopg2 only marks the connection as closed and keeps the socket open, so close it here.
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
        thread._check()
        park_for_library(thread, fd, direction)


def _cancel_query(connection: Any) -> None:
    """Send a cancel request. Not offloaded, because psycopg2 holds the GIL while libpq sends it."""
    try:
        connection.cancel()
    except connection.Error:
        # The server is gone, and the query with it.
        pass
