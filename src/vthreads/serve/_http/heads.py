"""The head of a request as the rules and the application see it. This module checks nothing."""

from __future__ import annotations

from typing import Any

from .._proxies import is_forwarding

__all__ = ["Head"]


class Head:
    """The head of a request.

    Attributes:
        method: as sent.
        target: the request target, as sent.
        is_1_1: whether the version is HTTP/1.1; else it is HTTP/1.0.
        fields: names in lower case with their values, in order. Names with "_" and the field Proxy are not in it.
        hosts: the values of Host.
        lengths: the values of Content-Length.
        codings: the codings of Transfer-Encoding, in lower case.
        expectation: the value of Expect, in lower case.
        options: the options of Connection, in lower case.
        upgrade: the value of Upgrade, if Connection has that option; else empty.
        is_forwarded: whether it has a field that only a trusted proxy may set.
        has_body: whether it announces a body, which may be empty.
        keeps_alive: whether the client may send another request on the connection (RFC 9112, 9.3).
        of_fields, of_head: what the application's side derives from the fields alone, and from the head; first None.
        of_log: what the access log derives from the head; first None.
        is_kept: whether other requests may have this head, so that what is derived from it is worth keeping.

    A head that is known (see `known_heads`) is shared by requests, so it does not change after it was parsed.
    """

    __slots__ = (
        "codings",
        "expectation",
        "fields",
        "has_body",
        "hosts",
        "is_1_1",
        "is_forwarded",
        "is_kept",
        "keeps_alive",
        "lengths",
        "method",
        "of_fields",
        "of_head",
        "of_log",
        "options",
        "target",
        "upgrade",
    )

    def __init__(
        self, fields: list[tuple[bytes, bytes]], method: str = "GET", target: bytes = b"/", *, is_1_1: bool = True
    ) -> None:
        self.method = method
        self.target = target
        self.is_1_1 = is_1_1
        self.fields = fields
        self.hosts: list[bytes] = []
        self.lengths: list[bytes] = []
        self.codings: list[bytes] = []
        self.options: list[bytes] = []
        self.expectation = b""
        self.upgrade = b""
        self.is_forwarded = False
        self.is_kept = False
        self.of_fields: Any = None
        self.of_head: Any = None
        self.of_log: Any = None
        for name, value in fields:
            collect = COLLECTED.get(name)
            if collect is not None:
                collect(self, value)
            elif is_forwarding(name):
                self.is_forwarded = True
        if b"upgrade" not in self.options:
            self.upgrade = b""
        self.has_body = bool(self.codings or self.lengths)
        self.keeps_alive = b"close" not in self.options if is_1_1 else b"keep-alive" in self.options

    def with_line(self, method: str, target: bytes) -> Head:
        """Return a head with the same fields and version, and with another request line."""
        other = Head.__new__(Head)
        other.method, other.target, other.of_head, other.of_log = method, target, None, None
        other.is_1_1, other.keeps_alive, other.fields = self.is_1_1, self.keeps_alive, self.fields
        other.hosts, other.lengths, other.codings = self.hosts, self.lengths, self.codings
        other.options, other.upgrade, other.expectation = self.options, self.upgrade, self.expectation
        other.is_forwarded, other.has_body, other.of_fields = self.is_forwarded, self.has_body, self.of_fields
        other.is_kept = self.is_kept
        return other

    @property
    def authority(self) -> bytes:
        """The authority of a target in absolute form; else empty."""
        # A path or a query of the origin form may have "://" as well.
        if self.target.startswith(b"/"):
            return b""
        return self.target.partition(b"://")[2].partition(b"/")[0].partition(b"?")[0]

    @property
    def length(self) -> int | None:
        """The size of the body, or None if it is chunked."""
        if self.codings:
            return None
        return int(self.lengths[0]) if self.lengths else 0

    def _add_host(self, value: bytes) -> None:
        self.hosts.append(value)

    def _add_length(self, value: bytes) -> None:
        self.lengths.append(value)

    def _add_codings(self, value: bytes) -> None:
        self.codings += _members(value)

    def _add_options(self, value: bytes) -> None:
        self.options += _members(value)

    def _set_expectation(self, value: bytes) -> None:
        self.expectation = value.lower()

    def _set_upgrade(self, value: bytes) -> None:
        self.upgrade = value


def _members(value: bytes) -> list[bytes]:
    """Return the members of a comma-separated list (RFC 9110, 5.6.1), empty ones included: the rules refuse those."""
    return [member.strip(b" \t").lower() for member in value.split(b",")]


COLLECTED = {
    b"host": Head._add_host,
    b"content-length": Head._add_length,
    b"transfer-encoding": Head._add_codings,
    b"connection": Head._add_options,
    b"expect": Head._set_expectation,
    b"upgrade": Head._set_upgrade,
}
