"""Servers that somebody else runs."""

import socket

from .left_out import LeftOut


def require_answer(name, host, port):
    """Leave the measurement out if nothing answers there."""
    try:
        socket.create_connection((host, port), timeout=5).close()
    except OSError as refusal:
        raise LeftOut(f"no {name} at {host}:{port} ({refusal})") from refusal
