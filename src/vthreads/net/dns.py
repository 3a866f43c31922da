"""Looking up names: what `socket.getaddrinfo` and its like become on a virtual thread.

The resolver of the C library blocks and cannot be interrupted, so a look-up runs on an OS thread and is abandoned when
nobody wants it any more. Equal look-ups that are under way at once share one call. What needs no look-up (a numeric
address, no host at all, a wrong argument) cannot block and is answered in place. `socket.getfqdn` is Python on top.
"""

from __future__ import annotations

import copy
import ipaddress
import socket
from collections.abc import Callable
from typing import Any, TypeVar

from .._core.current import running
from .._core.originals import RLock
from .._core.runtime import after_fork_hooks
from .._core.thread import VirtualThread
from ..offload import wait_or_leave
from ..os_calls import Call, Limiter

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
    if _needs_no_look_up(host) and _is_port_number(port):
        return _in_place(original_getaddrinfo, arguments)
    return _look_up(original_getaddrinfo, arguments)


def gethostbyname(hostname: str, /) -> str:
    """`socket.gethostbyname`. A checkpoint on a virtual thread; thread-safe."""
    look_up = _in_place if _needs_no_look_up(hostname) else _look_up
    return look_up(original_gethostbyname, (hostname,))


def gethostbyname_ex(hostname: str, /) -> tuple[str, list[str], list[str]]:
    """`socket.gethostbyname_ex`. A checkpoint on a virtual thread; thread-safe."""
    look_up = _in_place if _needs_no_look_up(hostname) else _look_up
    return look_up(original_gethostbyname_ex, (hostname,))


def gethostbyaddr(ip_address: str, /) -> tuple[str, list[str], list[str]]:
    """`socket.gethostbyaddr`. A checkpoint on a virtual thread; thread-safe."""
    return _look_up(original_gethostbyaddr, (ip_address,))


def getnameinfo(sockaddr: Any, flags: int, /) -> tuple[str, str]:
    """`socket.getnameinfo`. A checkpoint on a virtual thread; thread-safe."""
    numeric = socket.NI_NUMERICHOST | socket.NI_NUMERICSERV
    is_numeric = isinstance(flags, int) and flags & numeric == numeric
    # What is no address is refused by the original.
    look_up = _in_place if is_numeric or not isinstance(sockaddr, tuple) else _look_up
    return look_up(original_getnameinfo, (sockaddr, flags))


# --- what cannot block


def _in_place(original: Callable[..., T], arguments: tuple[Any, ...]) -> T:
    thread = running()
    if thread is not None:
        thread.check()
    return original(*arguments)


def _needs_no_look_up(host: object) -> bool:
    """Whether `host` is numeric, as the C library reads it, or nothing that it would look up."""
    if isinstance(host, bytes | bytearray):
        try:
            host = bytes(host).decode("ascii")
        except UnicodeDecodeError:
            return False
    if not isinstance(host, str):
        return True
    return _is_ipv4(host) or _is_ipv6(host)


def _is_ipv4(host: str) -> bool:
    try:
        # Also takes the short forms that the resolver takes, like "127.1".
        socket.inet_aton(host)
    except (OSError, ValueError):
        return False
    # It stops reading at a blank, the resolver does not.
    return not any(character.isspace() for character in host)


def _is_ipv6(host: str) -> bool:
    try:
        ipaddress.IPv6Address(host)
    except ValueError:
        return False
    return True


def _is_port_number(port: object) -> bool:
    """Whether `port` is no name of a service, which may be in a database on the network."""
    return not isinstance(port, str | bytes) or (port.isascii() and port.isdigit())


# --- what may block


class _LookUps:
    """The look-ups under way in this process, by what is looked up."""

    def __init__(self) -> None:
        # Reentrant, because a finalizer may run inside.
        self.changing = RLock()
        self.calls: dict[Any, Call] = {}

    def join_or_start(self, thread: VirtualThread, original: Callable[..., Any], arguments: tuple[Any, ...]) -> Call:
        """Share the call that finds out, or start one."""
        key = _key_of(original, arguments)
        with self.changing:
            call = self.calls.get(key)
            if call is not None and call.join():
                return call
            call = Call(
                limiter, thread.scheduler.clock, original, arguments, when_over=lambda call: self.forget(key, call)
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
    """In the child of a fork: they are not there."""
    global _look_ups
    _look_ups = _LookUps()


after_fork_hooks.append(_forget_look_ups)


def _look_up(original: Callable[..., T], arguments: tuple[Any, ...]) -> T:
    thread = running()
    if thread is None:
        return original(*arguments)
    thread.check()
    call = _look_ups.join_or_start(thread, original, arguments)
    wait_or_leave(thread, call)
    if call.error is not None:
        raise _own_copy_of(call.error)
    value: T = _unshared(call.value)
    return value


def _key_of(original: Callable[..., Any], arguments: tuple[Any, ...]) -> object:
    """Tell equal look-ups. Arguments of another type differ, as the original may refuse them; integers are one type."""
    distinct = [int(argument) if isinstance(argument, int) else (type(argument), argument) for argument in arguments]
    key = (original, *distinct)
    try:
        hash(key)
    except TypeError:
        # A bytearray, or a mistake that the original will name.
        return object()
    return key


def _own_copy_of(error: BaseException) -> BaseException:
    """Copy `error` for one waiter: each raises it in a place of its own, and adds that to the traceback."""
    try:
        own = copy.copy(error)
    except Exception:  # noqa: BLE001  # what cannot be copied is shared
        return error
    return own.with_traceback(error.__traceback__)


def _unshared(value: Any) -> Any:
    """Copy the lists in `value`, which the waiter may change."""
    if isinstance(value, list):
        return list(value)
    if type(value) is tuple:
        return tuple(_unshared(item) for item in value)
    return value
