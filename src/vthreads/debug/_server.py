"""Answer requests of other processes of the same user, on a Unix socket that a separate OS thread serves.

So it also answers while a carrier is pinned. The OS thread only reacts to requests: it does not count when the runtime
checks for a deadlock, and does not keep the interpreter alive. A request is a line of JSON, and so is the answer.
"""

from __future__ import annotations

import _socket  # the type below `socket.socket`, whose methods the runtime replaces
import atexit
import json
import os
import socket
import struct
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from .._core.fork import watch_forks
from .._core.originals import allocate_lock, get_ident
from .._core.os_thread_kinds import own_os_threads
from .._core.own_os_thread import start_own_os_thread
from .._core.participants import Participant, participate
from ._load import load
from ._snapshots import snapshot
from ._socket_path import UNREADY, forget_dead, leave, own_socket

__all__ = ["is_serving", "serve", "stop_serving"]

# Seconds that a client may take to send its request, and to read the answer.
PATIENCE = 5.0
LONGEST_QUESTION = 10_000
# Characters of an answer to send at once.
LARGEST_PART = 64 * 1024
# Depth of a tree node in an answer: answer, carriers, carrier, tree, node.
DEPTH_OF_NODES = 5

Data = dict[str, Any]

QUESTIONS: dict[str, Callable[..., Any]] = {"dump": snapshot, "load": load}


class _Service:
    """The socket of this process, and the OS thread that serves it."""

    def __init__(self) -> None:
        forget_dead()
        self._listener: Any = _socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._over = allocate_lock()
        self._over.acquire()
        try:
            made = self._bound()
            made.chmod(0o600)
            self._listener.listen(8)
            # Rename the socket to its public name only now, so that a client that finds it can connect.
            self.path = made.rename(own_socket())
            start_own_os_thread(self._serve)
        except BaseException:
            # Nothing refers to this object yet, so no other code could close the listener.
            self._listener.close()
            raise

    def _bound(self) -> Path:
        for tries_left in (2, 1, 0):
            path = own_socket().with_suffix(UNREADY)
            # A previous process with this pid may have left its socket there.
            path.unlink(missing_ok=True)
            try:
                self._listener.bind(str(path))
                break
            except FileNotFoundError:
                # Another process removed the directory when it left as the last one. Create it again.
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
                    # The listener was closed.
                    return
                with socket.socket(fileno=fd) as client:
                    _answer(client)
        finally:
            own_os_threads.discard(get_ident())
            self._over.release()

    def stop(self) -> None:
        leave(self.path)
        try:
            # Unlike `close`, this ends an `accept` call in progress.
            self._listener.shutdown(socket.SHUT_RDWR)
        except OSError:
            # Not every system can shut down a listening socket; then the OS thread ends with the process.
            return
        self._over.acquire(True, PATIENCE)
        self._listener.close()

    def leave_to_parent(self) -> None:
        """Close the socket in the child of a fork, without the file, which belongs to the parent."""
        self._listener.close()


_service: _Service | None = None


def serve() -> Path | None:
    """Serve requests of `python -m vthreads ps`, `pstree`, `dump` and `top` by the same user.

    Not a checkpoint; thread-safe. A second call does nothing. Lasts until the interpreter exits; the child of a fork
    serves its own socket.

    Returns:
        The path of the socket, which only this user may open. None, with a RuntimeWarning, if the socket could not be
        created: its directory belongs to another user or is open to others, or the file system refuses it.
    """
    global _service
    if _service is None:
        watch_forks()
        try:
            _service = _Service()
        except OSError as error:
            # Any local user can create the directory in the one for temporary files. That must not stop a program that
            # only wants to be inspected, so the failure is a warning, even though the program asked for it.
            warnings.warn(
                f"process {os.getpid()} cannot be inspected by `python -m vthreads ps` and similar commands: {error}",
                RuntimeWarning,
                stacklevel=2,
            )
            return None
        atexit.register(stop_serving)
    return _service.path


def is_serving() -> bool:
    """Return whether this process serves requests. Not a checkpoint; thread-safe."""
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


participate(__name__, Participant(forked=_serve_after_fork))


# --- a client


def _answer(client: socket.socket) -> None:
    client.settimeout(PATIENCE)
    try:
        if not _is_same_user(client):
            return
        question = json.loads(_read_line(client))
        try:
            answer: Data = {"answer": QUESTIONS[question.pop("ask")](**question)}
        except Exception as error:  # noqa: BLE001  # sent to the client, which caused it
            answer = {"error": f"{type(error).__name__}: {error}"}
        _send(client, answer)
    except (OSError, ValueError):
        # The client has left, was too slow, or sent something else than a request.
        return


def _send(client: socket.socket, answer: Data) -> None:
    """Send `answer` as a line of JSON, in parts.

    The JSON encoder holds the GIL until it returns: 100 ms for 20,000 threads. So each tree node is encoded separately.
    """
    part: list[str] = []
    size = 0
    for piece in _pieces(answer, DEPTH_OF_NODES):
        part.append(piece)
        size += len(piece)
        if size >= LARGEST_PART:
            client.sendall("".join(part).encode())
            part, size = [], 0
    client.sendall("".join([*part, "\n"]).encode())


def _pieces(value: Any, depth: int) -> Iterator[str]:
    """Yield the JSON of `value`; parts deeper than `depth` are encoded in one piece."""
    if depth == 0 or not value or not isinstance(value, dict | list):
        yield json.dumps(value)
        return
    is_dict = isinstance(value, dict)
    before = "{" if is_dict else "["
    for key in value if is_dict else range(len(value)):
        yield f"{before}{json.dumps(key)}: " if is_dict else before
        yield from _pieces(value[key], depth - 1)
        before = ", "
    yield "}" if is_dict else "]"


def _is_same_user(client: socket.socket) -> bool:
    """Return whether the client runs as the same user, or as root. If the kernel cannot report it: yes."""
    if not hasattr(socket, "SO_PEERCRED"):
        return True
    _, user, _ = struct.unpack("3i", client.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i")))
    return user in (os.geteuid(), 0)


def _read_line(client: socket.socket) -> bytes:
    line = b""
    while not line.endswith(b"\n"):
        part = client.recv(LONGEST_QUESTION - len(line))
        if not part:
            raise ValueError(f"the request is not a line of at most {LONGEST_QUESTION} bytes")
        line += part
    return line
