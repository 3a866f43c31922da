"""The call of a WSGI application (PEP 3333) for a request: its environment, and the sending of what it returns."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable
from typing import Any
from urllib.parse import unquote_to_bytes

from .._request_ids import current_id
from .exchanges import Exchange
from .heads import Head

__all__ = ["Adapter"]

# Fields that CGI names without HTTP_.
UNPREFIXED = {b"content-type": "CONTENT_TYPE", b"content-length": "CONTENT_LENGTH"}
# The keys of names that were seen. A client with more of them invents names, which would fill the memory.
MOST_KEYS = 1_000
_keys: dict[bytes, str] = {}
OF_EACH_REQUEST = (
    "wsgi.input",
    "wsgi.errors",
    "wsgi.early_hints",
    "HTTP_X_REQUEST_ID",
    "REMOTE_ADDR",
    "REMOTE_PORT",
    "REQUEST_METHOD",
    "REQUEST_URI",
    "PATH_INFO",
    "QUERY_STRING",
    "SERVER_PROTOCOL",
)


class Adapter:
    """Calls a WSGI application for exchanges of the HTTP server.

    Args:
        app: the application.
        base: the part of the environment that all requests share.
        file_wrapper: the class of `wsgi.file_wrapper`.
        upgraded_socket: makes the socket of a request that asks for an upgrade.
        key: the key of the environment under which the exchange is found.
    """

    __slots__ = ("_app", "_base", "_file_wrapper", "_key", "_root", "_upgraded_socket")

    def __init__(
        self,
        app: Callable[[dict[str, Any], Callable[..., Any]], Iterable[bytes]],
        base: dict[str, Any],
        file_wrapper: type[Any],
        upgraded_socket: Callable[[Exchange], Any],
        key: str,
    ) -> None:
        self._app = app
        # With the keys that each request sets, so that a copy need not grow.
        self._base = {**dict.fromkeys((key, *OF_EACH_REQUEST)), **base}
        self._root: str = base["SCRIPT_NAME"]
        self._file_wrapper = file_wrapper
        self._upgraded_socket = upgraded_socket
        self._key = key

    def handle(self, exchange: Exchange) -> None:
        """Handle `exchange`. The `close` of what the application returns is called however the request ends.

        It runs in a `finally` block, so that it has the cleanup grace after a cancellation.
        """
        response = exchange.response
        # The application runs in a context of the request, so the id need not be reset.
        current_id.set(exchange.request_id)
        parts = self._app(self._environ(exchange), response.start)
        if type(parts) is list and not response.is_sent_or_sending:
            # The usual case; a list has no `close`.
            response.write_all(parts)
            response.finish()
            return
        try:
            self._send(exchange, parts)
            response.finish()
        finally:
            close = getattr(parts, "close", None)
            if close is not None:
                close()

    def _send(self, exchange: Exchange, parts: Any) -> None:
        response = exchange.response
        if isinstance(parts, (list, tuple)) and not response.is_sent_or_sending:
            response.write_all(parts)
            return
        if type(parts) is self._file_wrapper and not response.is_sent_or_sending:
            found = parts.regular_file()
            if found is not None:
                exchange.stream.send_file(found[0], response.announce(found[1]))
                return
        if parts is None:
            raise TypeError("the application returned None; return an iterable of bytes, as in [b'text']")
        for part in parts:
            # An empty part may come before `start_response`, and sends no head (PEP 3333).
            if part or not isinstance(part, bytes):
                response.write(part)
                if not response.wants_more:
                    return

    def _environ(self, exchange: Exchange) -> dict[str, Any]:
        head = exchange.head
        client = exchange.client
        environ: dict[str, Any] | None = head.of_head
        if environ is None:
            environ = self._of_head(head)
            if head.is_kept:
                head.of_head = environ
        if head.is_kept:
            environ = environ.copy()
        environ["wsgi.input"] = exchange.body
        # Looked up at each request: the application may replace it.
        environ["wsgi.errors"] = sys.stderr
        environ["wsgi.early_hints"] = exchange.send_early_hints
        environ[self._key] = exchange
        environ["HTTP_X_REQUEST_ID"] = exchange.request_id
        environ["REMOTE_ADDR"] = client.host
        if client.port:
            environ["REMOTE_PORT"] = str(client.port)
        else:
            del environ["REMOTE_PORT"]
        if head.upgrade:
            environ["gunicorn.socket"] = self._upgraded_socket(exchange)
        if head.is_forwarded:
            if client.scheme:
                environ["wsgi.url_scheme"] = client.scheme
            if client.server_port:
                environ["SERVER_PORT"] = client.server_port
            if client.authority:
                environ["HTTP_HOST"] = client.authority
        return environ

    def _of_head(self, head: Head) -> dict[str, Any]:
        """Return a new dictionary: the part of `environ` that depends on the head alone."""
        environ: dict[str, Any]
        if not head.is_kept:
            environ = self._of_fields(head.fields)
        else:
            if head.of_fields is None:
                head.of_fields = self._of_fields(head.fields)
            environ = head.of_fields.copy()
        target = head.target
        authority = head.authority
        if authority:
            # RFC 9112, 3.2.2: the authority of the target counts, and not the field Host.
            environ["HTTP_HOST"] = authority.decode("latin-1")
            target = _origin_form(target, authority)
        path, _, query = target.partition(b"?")
        if b"%" in path:
            path = unquote_to_bytes(path)
        environ["REQUEST_METHOD"] = head.method
        environ["REQUEST_URI"] = head.target.decode("latin-1")
        environ["PATH_INFO"] = self._below_root(path.decode("latin-1"))
        environ["QUERY_STRING"] = query.decode("latin-1")
        environ["SERVER_PROTOCOL"] = "HTTP/1.1" if head.is_1_1 else "HTTP/1.0"
        return environ

    def _of_fields(self, fields: list[tuple[bytes, bytes]]) -> dict[str, Any]:
        environ = self._base.copy()
        for name, value in fields:
            key = _keys.get(name) or _key_of(name)
            text = value.decode("latin-1")
            before = environ.get(key)
            if before is None:
                environ[key] = text
            else:
                # RFC 9110, 5.3: fields with the same name are joined by a comma, but cookies by a semicolon (RFC 6265,
                # 5.4).
                environ[key] = f"{before}; {text}" if name == b"cookie" else f"{before},{text}"
        return environ

    def _below_root(self, path: str) -> str:
        root = self._root
        if root and (path == root or path.startswith(f"{root}/")):
            return path.removeprefix(root)
        return path


def _key_of(name: bytes) -> str:
    key = UNPREFIXED.get(name) or "HTTP_" + name.decode("latin-1").upper().replace("-", "_")
    if len(_keys) < MOST_KEYS:
        _keys[name] = key
    return key


def _origin_form(target: bytes, authority: bytes) -> bytes:
    """Return the path and query of a target in absolute form."""
    rest = target.partition(b"://")[2][len(authority) :]
    return rest if rest.startswith(b"/") else b"/" + rest
