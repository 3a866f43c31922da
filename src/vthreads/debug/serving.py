"""Answering other processes of the same user: a Unix socket, served by an OS thread of its own.

So it answers while a carrier is pinned as well. The OS thread does nothing of its own accord: it does not count when
the runtime looks for a deadlock, and does not keep the interpreter alive. A question is a line of JSON, and so is the
answer.
"""

from __future__ import annotations

import _socket  # the type below `socket.socket`, whose methods the runtime replaces
import atexit
import json
import os
import socket
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

from .._core.fork import watch_forks
from .._core.originals import allocate_lock, get_ident
from .._core.own_os_thread import start_own_os_thread
from .._core.runtime import after_fork_hooks, own_os_threads
from .loads import load
from .meeting import UNREADY, forget_dead, leave, own_socket
from .snapshots import snapshot

__all__ = ["is_serving", "serve", "stop_serving"]

# Seconds that a client may take to put its question and to take the answer.
PATIENCE = 5.0
LONGEST_QUESTION = 10_000

QUESTIONS: dict[str, Callable[..., Any]] = {"dump": snapshot, "load": load}


class _Service:
    """The socket of this process and the OS thread that serves it."""

    def __init__(self) -> None:
        forget_dead()
        self._listener: Any = _socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._over = allocate_lock()
        self._over.acquire()
        try:
            made = self._bound()
            made.chmod(0o600)
            self._listener.listen(8)
            # Under the name that others look for only now: whoever finds it can connect.
            self.path = made.rename(own_socket())
            start_own_os_thread(self._serve)
        except BaseException:
            self._listener.close()
            raise

    def _bound(self) -> Path:
        for tries_left in (2, 1, 0):
            path = own_socket().with_suffix(UNREADY)
            # Of a process that had this number before.
            path.unlink(missing_ok=True)
            try:
                self._listener.bind(str(path))
                break
            except FileNotFoundError:
                # The last one in the directory has just left it, and taken it away.
                if not tries_left:
                    raise
        return path

    def _serve(self) -> None:
        own_os_threads.add(get_ident())
        try:
            while True:
                try:
                    fd, _ = self._listener._accept()
                except OSError:
                    # It was closed.
                    return
                with socket.socket(fileno=fd) as client:
                    _answer(client)
        finally:
            own_os_threads.discard(get_ident())
            self._over.release()

    def stop(self) -> None:
        leave(self.path)
        try:
            # Unlike closing, this ends a call of accept() that is under way.
            self._listener.shutdown(socket.SHUT_RDWR)
        except OSError:
            # Not every system lets a listening socket be shut down; then the OS thread ends with the process.
            return
        self._over.acquire(True, PATIENCE)
        self._listener.close()

    def leave_to_parent(self) -> None:
        """In the child of a fork: the OS thread is not here, and the file is the parent's."""
        self._listener.close()


_service: _Service | None = None


def serve() -> Path:
    """Let `python -m vthreads ps`, `pstree`, `dump` and `top` of the same user look into this process.

    Not a checkpoint; thread-safe. A second call does nothing. Lasts until the interpreter ends; the child of a fork
    answers for itself.

    Returns:
        The path of the socket, which only this user may open.

    Raises:
        OSError: there is no directory that only this user may enter, or the socket could not be made.
    """
    global _service
    if _service is None:
        watch_forks()
        _service = _Service()
        atexit.register(stop_serving)
    return _service.path


def is_serving() -> bool:
    """Whether this process answers. Not a checkpoint; thread-safe."""
    return _service is not None


def stop_serving() -> None:
    """Undo `serve`. Not a checkpoint; thread-safe."""
    global _service
    service, _service = _service, None
    if service is not None:
        service.stop()


def _serve_after_fork() -> None:
    global _service
    service, _service = _service, None
    if service is not None:
        service.leave_to_parent()
        atexit.unregister(stop_serving)
        serve()


after_fork_hooks.append(_serve_after_fork)


# --- one client


def _answer(client: socket.socket) -> None:
    client.settimeout(PATIENCE)
    try:
        if not _is_same_user(client):
            return
        question = json.loads(_read_line(client))
        try:
            answer = {"answer": QUESTIONS[question.pop("ask")](**question)}
        except Exception as error:  # noqa: BLE001  # told to the client, whose question it was
            answer = {"error": f"{type(error).__name__}: {error}"}
        client.sendall(json.dumps(answer).encode() + b"\n")
    except (OSError, ValueError):
        # The client has gone, was too slow, or spoke of something else.
        return


def _is_same_user(client: socket.socket) -> bool:
    """Whether the client runs as the same user, or as root. Where the kernel does not say, the directory has to do."""
    if not hasattr(socket, "SO_PEERCRED"):
        return True
    _, user, _ = struct.unpack("3i", client.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i")))
    return user in (os.geteuid(), 0)


def _read_line(client: socket.socket) -> bytes:
    line = b""
    while not line.endswith(b"\n"):
        part = client.recv(LONGEST_QUESTION - len(line))
        if not part:
            raise ValueError(f"a question has to be a line of at most {LONGEST_QUESTION} bytes")
        line += part
    return line
