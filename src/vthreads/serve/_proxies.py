"""Trusted proxies: the client that they name in fields of a request, or in the PROXY protocol. No trust by default.

Fields are read from the right, the side of this server: each proxy appends the address of its peer. The first address
that is not trusted is the client; a field could have any content left of it, so that part is dropped. Fields of a peer
that is not trusted are dropped as a whole. Only one family of fields is read, because a proxy that sets one of them
passes the other one on from the client.
"""

from __future__ import annotations

import re
import socket
import struct
from collections.abc import Iterable, Iterator
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Any, NamedTuple

__all__ = [
    "FAMILIES",
    "Client",
    "TrustedProxies",
    "WrongProxyHeader",
    "is_forwarding",
    "peer_of",
    "read_proxy_header",
]

Fields = list[tuple[bytes, bytes]]

FAMILIES = ("x-forwarded", "forwarded")
SCHEMES = {b"http": "http", b"https": "https"}
HOST = re.compile(rb"(?:[A-Za-z0-9\-._~!$&'()*+,;=%]+|\[[0-9A-Fa-f:.]+\])(?::[0-9]{0,5})?")
PORT, HIGHEST_PORT = re.compile(rb"[0-9]{1,5}"), 65535
# An address of IPv6 in brackets or without a port, or one of IPv4; then a port, which RFC 7239 allows to hide.
NODE = re.compile(rb"(?:\[([0-9A-Fa-f:.]+)\]|([0-9.]+|[0-9A-Fa-f:.]+))(?::([0-9]+|_[A-Za-z0-9._-]+))?")
REQUEST_ID = re.compile(rb"[A-Za-z0-9._~+/=@:\-]{1,128}")
# RFC 7239, 4. An element at commas outside quotes, and a pair of it with the semicolon that ends it. Values outside of
# quotes may have any character, since proxies send `for=[::1]:80` so. A quote without an end takes all that follows.
# Possessive: a client could send fields for which backtracking takes seconds.
ELEMENT = re.compile(rb'(?:[^",]++|"(?:[^"\\]++|\\.)*+"?\\?)++')
PAIR = re.compile(
    rb"""[ \t]*+(?:([!#$%&'*+.^_`|~0-9A-Za-z-]++)=(?:"((?:[^"\\]++|\\.)*+)"|([^",; \t]*+)))?[ \t]*+(?:;|\Z)"""
)
ESCAPED = re.compile(rb"\\(.)")

# https://www.haproxy.org/download/3.0/doc/proxy-protocol.txt
V1_LONGEST = 107
V1_FAMILIES = {b"TCP4": 4, b"TCP6": 6}
V2_SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"
V2_LONGEST = 4096


class Client(NamedTuple):
    """The client of a request.

    Attributes:
        host: its address.
        port: its port; 0 if it is not known.
        scheme: "http" or "https"; empty: that of the connection.
        authority: the host that it has asked for; empty: that of the field Host.
        server_port: the port that it has connected to; empty: that of the connection.
        request_id: the identification that the proxy has given to the request; empty: none.
        fields: the fields of the request without what is not trusted.
    """

    host: str
    port: int
    scheme: str
    authority: str
    server_port: str
    request_id: str
    fields: Fields


class _Hop(NamedTuple):
    """The report of one proxy about its peer and the request of that; what it does not report is empty."""

    address: bytes = b""
    scheme: bytes = b""
    host: bytes = b""
    port: bytes = b""


class TrustedProxies:
    """The proxies whose word counts.

    Args:
        networks: addresses and networks, as "10.0.0.0/8" or "::1"; "unix" for all peers at Unix sockets.
        family: the fields to read, one of `FAMILIES`.

    Raises:
        ValueError: an entry is neither an address nor a network.
    """

    def __init__(self, networks: Iterable[str] = (), family: str = "x-forwarded") -> None:
        if family not in FAMILIES:
            raise ValueError(f"family={family!r} must be one of {', '.join(FAMILIES)}")
        self._family = family
        self._unix = False
        self._networks: list[IPv4Network | IPv6Network] = []
        for text in networks:
            if text == "unix":
                self._unix = True
                continue
            try:
                self._networks.append(ip_network(text))
            except ValueError as error:
                raise ValueError(f"trusted proxy {text!r}: {error}; write an address, a network or unix") from None

    def __bool__(self) -> bool:
        return self._unix or bool(self._networks)

    def trust(self, host: str | None) -> bool:
        """Return whether the peer at `host` is trusted; None: a peer at a Unix socket."""
        if host is None:
            return self._unix
        address = _address(host)
        return address is not None and any(address in network for network in self._networks)

    def client_of(self, host: str | None, port: int, fields: Fields) -> Client:
        """Return the client of a request that came from `host` with `fields`, of which some are removed."""
        if not self.trust(host):
            return Client(host or "", port, "", "", "", "", [pair for pair in fields if not is_forwarding(pair[0])])
        reads_x = self._family == "x-forwarded"
        # Fields without a meaning here, such as X-Forwarded-User, are for the application if the proxy sets this
        # family.
        dropped = FORWARDING.__contains__ if reads_x else is_forwarding
        kept = [pair for pair in fields if not dropped(pair[0])]
        ids = _values(fields, b"x-request-id")
        request_id = ids[0].decode() if len(ids) == 1 and REQUEST_ID.fullmatch(ids[0]) else ""
        found, scheme, authority, server_port = (host or "", port), "", "", ""
        chain: list[str] = []
        # From the nearest proxy on, as long as the address that it reports is trusted itself. The rest of a report
        # counts also if its address is hidden.
        for hop in _x_forwarded(fields) if reads_x else _forwarded(fields):
            scheme = SCHEMES.get(hop.scheme.lower(), "")
            authority = hop.host.decode() if HOST.fullmatch(hop.host) else ""
            server_port = str(_port(hop.port) or "")
            named = _node(hop.address)
            if named is None:
                break
            found = named
            chain.insert(0, named[0])
            if not self.trust(named[0]):
                break
        if chain:
            kept.append((b"x-forwarded-for", ", ".join(chain).encode()))
        return Client(*found, scheme, authority, server_port, request_id, kept)


# The fields that only a trusted peer may set.
FORWARDING = frozenset(
    [
        b"forwarded",
        b"x-forwarded-for",
        b"x-forwarded-host",
        b"x-forwarded-port",
        b"x-forwarded-prefix",
        b"x-forwarded-proto",
        b"x-forwarded-scheme",
        b"x-forwarded-ssl",
        b"x-real-ip",
        b"x-request-id",
    ]
)


FORWARDING_PREFIX = b"x-forwarded-"


def is_forwarding(name: bytes) -> bool:
    """Return whether only a trusted peer may set the field `name`."""
    return name in FORWARDING or name.startswith(FORWARDING_PREFIX)


# --- the hops, from the nearest one on


def _x_forwarded(fields: Fields) -> Iterator[_Hop]:
    addresses, schemes = _members(fields, b"x-forwarded-for"), _members(fields, b"x-forwarded-proto")
    hosts, ports = _members(fields, b"x-forwarded-host"), _members(fields, b"x-forwarded-port")
    # A proxy that hides its clients still reports the scheme.
    for number, address in enumerate(reversed(addresses or [b""]), 1):
        yield _Hop(address, _aligned(schemes, number), _aligned(hosts, number), _aligned(ports, number))


def _forwarded(fields: Fields) -> Iterator[_Hop]:
    for value in reversed(_values(fields, b"forwarded")):
        yield from map(_element, reversed(ELEMENT.findall(value)))


def _values(fields: Fields, name: bytes) -> list[bytes]:
    return [value for found, value in fields if found == name]


def _members(fields: Fields, name: bytes) -> list[bytes]:
    return [member.strip() for value in _values(fields, name) for member in value.split(b",") if member.strip()]


def _aligned(members: list[bytes], from_right: int) -> bytes:
    """Return the member that belongs to a hop; the first one if not every proxy has added one."""
    if not members:
        return b""
    return members[-from_right] if from_right <= len(members) else members[0]


def _element(text: bytes) -> _Hop:
    """Return the report of `text`. An empty one if it is not correct: a client may have sent a part of it."""
    pairs: dict[bytes, bytes] = {}
    position = 0
    while position < len(text):
        found = PAIR.match(text, position)
        if found is None:
            return _Hop()
        position = found.end()
        name, quoted, token = found.groups()
        if name is None:
            continue
        if name.lower() in pairs:
            return _Hop()
        pairs[name.lower()] = token if quoted is None else ESCAPED.sub(rb"\1", quoted)
    return _Hop(pairs.get(b"for", b""), pairs.get(b"proto", b""), pairs.get(b"host", b""))


def _node(text: bytes) -> tuple[str, int] | None:
    """Return the address and port that `text` means; None if it is not an address (unknown, hidden or wrong)."""
    found = NODE.fullmatch(text)
    if found is None:
        return None
    in_brackets, plain, port = found.groups()
    address = _address((in_brackets or plain).decode())
    is_wrong = address is None or (port is not None and not port.startswith(b"_") and _port(port) is None)
    return None if is_wrong else (str(address), _port(port or b"") or 0)


def _port(text: bytes) -> int | None:
    """Return the port that `text` means; None if it is not one."""
    return int(text) if PORT.fullmatch(text) and int(text) <= HIGHEST_PORT else None


def _address(text: str) -> IPv4Address | IPv6Address | None:
    try:
        address = ip_address(text)
    except ValueError:
        return None
    # A socket of IPv6 that accepts IPv4 as well reports such addresses as ::ffff:10.0.0.1.
    mapped = getattr(address, "ipv4_mapped", None)
    return mapped if mapped is not None else address


# --- the PROXY protocol


class WrongProxyHeader(ConnectionError):
    """A trusted peer does not begin with a correct header of the PROXY protocol."""


def read_proxy_header(sock: socket.socket) -> tuple[str, int] | None:
    """Read the header of version 1 or 2; return the address of the client, or None if the proxy speaks for itself.

    Reads no byte beyond the header, since the rest belongs to TLS or HTTP. A checkpoint; the caller limits the time.

    Raises:
        WrongProxyHeader: there is no such header.
        OSError: the connection has failed.
    """
    begin = _exactly(sock, len(V2_SIGNATURE))
    if begin == V2_SIGNATURE:
        return _version_2(sock)
    if begin.startswith(b"PROXY "):
        return _version_1(sock, begin)
    raise WrongProxyHeader("the connection of a trusted proxy does not begin with a header of the PROXY protocol")


def _exactly(sock: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        piece = sock.recv(size - len(data))
        if not piece:
            raise WrongProxyHeader("the connection has ended inside the header of the PROXY protocol")
        data += piece
    return data


def _version_1(sock: socket.socket, line: bytes) -> tuple[str, int] | None:
    while not line.endswith(b"\r\n"):
        if len(line) >= V1_LONGEST:
            raise WrongProxyHeader(f"the line of the PROXY protocol is longer than {V1_LONGEST} bytes")
        line += _exactly(sock, 1)
    words = line[:-2].split(b" ")
    if words[1] == b"UNKNOWN":
        return None
    addresses, ports = words[2:4], words[4:]
    version = V1_FAMILIES.get(words[1])
    if len(words) != 6 or not all(_is_address(each, version) for each in addresses) or None in map(_port, ports):
        raise WrongProxyHeader(f"the line of the PROXY protocol is wrong: {line!r}")
    return str(_address(addresses[0].decode())), int(ports[0])


def _is_address(text: bytes, version: int | None) -> bool:
    try:
        # A zone ("%eth0") has a meaning only on one machine.
        return b"%" not in text and ip_address(text.decode("latin-1")).version == version
    except ValueError:
        return False


def _version_2(sock: socket.socket) -> tuple[str, int] | None:
    command, family, size = struct.unpack("!BBH", _exactly(sock, 4))
    if command >> 4 != 2 or command & 0xF > 1 or size > V2_LONGEST:
        raise WrongProxyHeader(f"the header of the PROXY protocol has the command {command:#x} and {size} bytes")
    data = _exactly(sock, size)
    if command & 0xF == 0:
        # LOCAL: a check of the proxy itself.
        return None
    width = {1: 4, 2: 16}.get(family >> 4)
    if width is None:
        return None
    if size < 2 * width + 4:
        raise WrongProxyHeader(
            f"the header of the PROXY protocol has {size} bytes, which are too few for its addresses"
        )
    host = str(_address(str(ip_address(data[:width]))))
    return host, struct.unpack_from("!H", data, 2 * width)[0]


def peer_of(address: Any) -> tuple[str | None, int]:
    """Return host and port of a peer's address; None for a Unix socket."""
    return (address[0], address[1]) if isinstance(address, tuple) else (None, 0)
