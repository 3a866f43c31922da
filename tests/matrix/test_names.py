"""Look-ups of host names."""

import socket
import threading

from tests.matrix.endings import Operations, nothing_happened, with_every_cause
from vthreads._calls.net import dns

OPERATIONS = Operations()


LOOK_UPS = {
    "getaddrinfo": lambda: socket.getaddrinfo("name.test", 80),
    "gethostbyname": lambda: socket.gethostbyname("name.test"),
    "gethostbyname_ex": lambda: socket.gethostbyname_ex("name.test"),
    "gethostbyaddr": lambda: socket.gethostbyaddr("127.0.0.1"),
    "getnameinfo": lambda: socket.getnameinfo(("127.0.0.1", 80), 0),
}


def looking_up(name, call):
    def look_up():
        gate = threading.Event()
        original = getattr(dns, f"original_{name}")
        setattr(dns, f"original_{name}", lambda *_, **__: gate.wait())
        try:
            yield call
        finally:
            gate.set()
            setattr(dns, f"original_{name}", original)

    return look_up


for name, call in LOOK_UPS.items():
    OPERATIONS[f"socket.{name}"] = looking_up(name, call)


@with_every_cause(OPERATIONS)
def test_nothing_happened(name, cause):
    nothing_happened(OPERATIONS[name], cause)
