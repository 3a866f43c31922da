"""Name resolution: replacements for `socket.getaddrinfo` and similar functions.

The resolver of the C library blocks and cannot be interrupted. So a look-up runs on an OS thread, and is abandoned when
no thread waits for it any more. Equal look-ups at the same time share one call. Calls that need no look-up (a numeric
address, no host, a wrong argument) or find the name in `/etc/hosts` do not wait for the network, and run in place.
`socket.getfqdn` is Python code on top of these.
"""

from __future__ import annotations

import copy
import ipaddress
import socket
from collections.abc import Callable
from typing import Any, TypeVar

from ..._core.current import running
from ..._core.engine import Section
from ..._core.participants import Participant, participate
from ..._core.thread import VirtualThread
from ..._os_threads.calls import Call, Limiter
from ..._os_threads.offload import wait_or_leave
from .hosts import in_hosts

__all__ = ["getaddrinfo", "gethostbyaddr", "gethostbyname", "gethostbyname_ex", "getnameinfo"]

T = TypeVar("T")

original_getaddrinfo = socket.getaddrinfo
original_gethostbyname = socket.gethostbyname
original_gethostbyname_ex = socket.gethostbyname_ex
original_gethostbyaddr = socket.gethostbyaddr
original_getnameinfo = socket.getnameinfo

limiter = Limiter("dns", 16)


def getaddrinfo(
    host: bytes | str | None,
    port: bytes | str | int | None,
    family: int = 0,
    type: int = 0,
    proto: int = 0,
    flags: int = 0,
) -> list[tuple[Any, ...]]:
    """`socket.getaddrinfo`. A checkpoint on a virtual thread; thread-safe."""
    arguments = (host, port, family, type, proto, flags)
    if _is_port_number(port) and (_needs_no_look_up(host) or in_hosts(host, family, flags)):
        return _in_place(original_getaddrinfo, arguments)
    return _look_up(original_getaddrinfo, arguments)


def gethostbyname(hostname: str, /) -> str:
    """`socket.gethostbyname`. A checkpoint on a virtual thread; thread-safe."""
    look_up = _in_place if _needs_no_look_up(hostname) or in_hosts(hostname) else _look_up
    return look_up(original_gethostbyname, (hostname,))


def gethostbyname_ex(hostname: str, /) -> tuple[str, list[str], list[str]]:
    """`socket.gethostbyname_ex`. A checkpoint on a virtual thread; thread-safe."""
    look_up = _in_place if _needs_no_look_up(hostname) or in_hosts(hostname) else _look_up
    return look_up(original_gethostbyname_ex, (hostname,))


def gethostbyaddr(ip_address: str, /) -> tuple[str, list[str], list[str]]:
    """`socket.gethostbyaddr`. A checkpoint on a virtual thread; thread-safe."""
    return _look_up(original_gethostbyaddr, (ip_address,))


def getnameinfo(sockaddr: Any, flags: int, /) -> tuple[str, str]:
    """`socket.getnameinfo`. A checkpoint on a virtual thread; thread-safe."""
    numeric = socket.NI_NUMERICHOST | socket.NI_NUMERICSERV
    is_numeric = isinstance(flags, int) and flags & numeric == numeric
    # The original refuses an argument that is not an address.
    look_up = _in_place if is_numeric or not isinstance(sockaddr, tuple) else _look_up
    return look_up(original_getnameinfo, (sockaddr, flags))


# --- calls that cannot block


def _in_place(original: Callable[..., T], arguments: tuple[Any, ...]) -> T:
    thread = running()
    if thread is not None:
        thread._check()
    return original(*arguments)


def _needs_no_look_up(host: object) -> bool:
    """Return whether `host` needs no look-up: it is numeric, as the C library parses it, or is not a name at all."""
    if isinstance(host, bytes | bytearray):
        try:
            host = bytes(host).decode("ascii")
        except UnicodeDecodeError:
            return False
    if not isinstance(host, str):
        return True
    # Names are the common case: exclude them before a call that fails.
    return host[:1].isdigit() and _is_ipv4(host) or ":" in host and _is_ipv6(host)


def _is_ipv4(host: str) -> bool:
    try:
        # Accepts the short forms too that the resolver accepts, like "127.1".
        socket.inet_aton(host)
    except (OSError, ValueError):
        return False
    # `inet_aton` stops at white space, but the resolver does not.
    return not any(character.isspace() for character in host)


def _is_ipv6(host: str) -> bool:
    try:
        ipaddress.IPv6Address(host)
    except ValueError:
        return False
    return True


def _is_port_number(port: object) -> bool:
    """Return whether `port` is not a service name, which the resolver might have to look up on the network."""
    return not isinstance(port, str | bytes) or (port.isascii() and port.isdigit())


# --- calls that may block


class _LookUps:
    """The look-ups in progress in this process, by function and arguments."""

    def __init__(self) -> None:
        # Reentrant: the garbage collector may run a finalizer that looks up a name while this thread holds it.
        self.changing = Section()
        self.calls: dict[Any, Call] = {}

    def join_or_start(self, thread: VirtualThread, original: Callable[..., Any], arguments: tuple[Any, ...]) -> Call:
        """Join a call for the same look-up, or start one."""
        key = _key_of(original, arguments)
        with self.changing:
            call = self.calls.get(key)
            if call is not None and call.join():
                return call
            call = Call(
                limiter, thread._scheduler.clock, original, arguments, when_over=lambda call: self.forget(key, call)
            )
            self.calls[key] = call
        call.start()
        return call

    def forget(self, key: Any, call: Call) -> None:
        with self.changing:
            if self.calls.get(key) is call:
                del self.calls[key]


_look_ups = _LookUps()


def _forget_look_ups() -> None:
    """Start without look-ups in the child of a fork: their OS threads do not exist there."""
    global _look_ups
    _look_ups = _LookUps()


participate(__name__, Participant(forked=_forget_look_ups))


def _look_up(original: Callable[..., T], arguments: tuple[Any, ...]) -> T:
    thread = running()
    if thread is None:
        return original(*arguments)
    thread._check()
    call = _look_ups.join_or_start(thread, original, arguments)
    wait_or_leave(thread, call)
    if call.error is not None:
        raise _own_copy_of(call.error)
    value: T = _unshared(call.value)
    return value


def _key_of(original: Callable[..., Any], arguments: tuple[Any, ...]) -> object:
    """Return the key under which equal look-ups share a call.

    Arguments of different types differ, because the original may refuse one of them; all integers count as one type.
    """
    distinct = [int(argument) if isinstance(argument, int) else (type(argument), argument) for argument in arguments]
    key = (original, *distinct)
    try:
        hash(key)
    except TypeError:
        # Unhashable: a bytearray, or a wrong argument that the original will refuse. Do not share the call.
        return object()
    return key


def _own_copy_of(error: BaseException) -> BaseException:
    """Copy `error` for one waiter: each waiter raises its own copy, because raising extends the traceback."""
    try:
        own = copy.copy(error)
    except Exception:  # noqa: BLE001  # an error that cannot be copied is shared
        return error
    return own.with_traceback(error.__traceback__)


def _unshared(value: Any) -> Any:
    """Copy the lists in `value`, because the waiter may change them."""
    if isinstance(value, list):
        return list(value)
    if type(value) is tuple:
        return tuple(_unshared(item) for item in value)
    return value
