"""Servers that the benchmark does not start itself."""

import socket

from .left_out import LeftOut


def require_answer(name, host, port):
    """Leave the measurement out if no server accepts connections at the address."""
    try:
        socket.create_connection((host, port), timeout=5).close()
    except OSError as refusal:
        raise LeftOut(f"no {name} at {host}:{port} ({refusal})") from refusal
