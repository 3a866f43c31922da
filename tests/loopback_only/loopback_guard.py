"""Refuse every connection, datagram and lookup of this process that would leave the machine.

Test suites of other projects try addresses and names outside. The guard is an audit hook (PEP 578): it sees the call
before it happens, whoever makes it, and cannot be taken out again. With this directory on PYTHONPATH every Python
process of a run has it, from the first line on: the interpreter imports `sitecustomize`.

One thing is not audited: a host *name* that is given to `connect` or `sendto` itself is looked up inside the C call.
The connection is refused all the same, by the address found. (On a virtual thread the name goes through getaddrinfo.)
"""

import ipaddress
import socket
import sys

# Names that the hosts file answers.
OWN_NAMES = {"", "localhost", "localhost.localdomain", "ip6-localhost", socket.gethostname().lower()}
# The event, and where in its arguments the host or the address stands.
LOOK_UPS = {"socket.getaddrinfo": 0, "socket.gethostbyname": 0, "socket.gethostbyaddr": 0}
ADDRESSES = {"socket.connect": 1, "socket.sendto": 1, "socket.sendmsg": 1, "socket.getnameinfo": 0}


class OutsideRefused(PermissionError):
    """The address or name lies outside the loopback."""


def is_own(host):
    """Whether `host` (str, bytes or None) means this machine and needs no name server."""
    if host is None:
        return True
    if isinstance(host, bytes | bytearray):
        host = bytes(host).decode("ascii", "replace")
    if not isinstance(host, str):
        # Not a host at all: the call itself will say so.
        return True
    name = host.lower().rstrip(".")
    if name in OWN_NAMES or name.endswith(".localhost"):
        return True
    try:
        address = ipaddress.ip_address(name.partition("%")[0])
    except ValueError:
        pass
    else:
        return address.is_loopback or address.is_unspecified
    try:
        # The short forms that the resolver takes, like "127.1".
        return socket.inet_aton(name)[0] in (0, 127)
    except OSError:
        return False


def refuse_outside(event, arguments):
    """The audit hook."""
    if event in LOOK_UPS:
        host = arguments[LOOK_UPS[event]]
    elif event in ADDRESSES:
        address = arguments[ADDRESSES[event]]
        # Those of other families (Unix, netlink, packet) are no tuples that begin with a name.
        host = address[0] if isinstance(address, tuple) and address else None
        if event != "socket.getnameinfo" and arguments[0].family not in (socket.AF_INET, socket.AF_INET6):
            return
    else:
        return
    if not is_own(host):
        raise OutsideRefused(f"{event}: {host!r} lies outside the loopback")


def install():
    """Put the guard in force; from now on it stays."""
    sys.addaudithook(refuse_outside)
