"""Two interfaces of systemd for services: sockets that it has opened (LISTEN_FDS), messages to it (NOTIFY_SOCKET)."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Mapping

__all__ = ["inherited_addresses", "notify"]

# sd_listen_fds(3): the first descriptor.
FIRST_FD = 3

# sd_notify(3). RELOADING needs the time, by which systemd recognizes the READY that ends the reload.
MESSAGES = {
    "ready": "READY=1",
    "reloading": "RELOADING=1\nMONOTONIC_USEC={now}",
    "stopping": "STOPPING=1",
    "watchdog": "WATCHDOG=1",
}


def inherited_addresses(environment: Mapping[str, str]) -> list[str]:
    """Return the sockets that systemd has passed to this process, in the notation of `--bind`.

    Raises:
        ValueError: LISTEN_FDS is not a number.
    """
    # The variables are inherited by children, for whom the descriptors are not meant.
    if environment.get("LISTEN_PID") != str(os.getpid()):
        return []
    count = environment.get("LISTEN_FDS", "0")
    if not (count.isascii() and count.isdecimal() and len(count) < 5):
        raise ValueError(f"LISTEN_FDS={count!r} is not the number of sockets that systemd passes; correct or unset it")
    return [f"fd://{FIRST_FD + number}" for number in range(int(count))]


def notify(state: str) -> None:
    """Report `state`, a key of `MESSAGES`, to systemd. Does nothing in a process that systemd did not start.

    Not a checkpoint: a datagram that finds no room is dropped.
    """
    path = os.environ.get("NOTIFY_SOCKET")
    if not path:
        return
    message = MESSAGES[state].format(now=time.monotonic_ns() // 1000)
    # A name with "@" is in the abstract namespace of Linux.
    address = f"\0{path[1:]}" if path.startswith("@") else path
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sock:
        sock.setblocking(False)
        try:
            sock.sendto(message.encode(), address)
        except OSError:
            # The service manager has gone or is overloaded. The service goes on.
            pass
