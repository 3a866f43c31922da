"""The guard that test suites of other projects run behind. Only names and addresses that cannot be reached are used."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

GUARD = Path(__file__).parents[1] / "loopback_only"

# RFC 5737 and RFC 3849 keep these addresses for documentation, RFC 2606 the name.
REFUSED = {
    "connect": "socket.socket().connect(('192.0.2.1', 80))",
    "connect_ex": "socket.socket().connect_ex(('192.0.2.1', 80))",
    "connect without waiting": "s = socket.socket(); s.setblocking(False); s.connect(('192.0.2.1', 80))",
    "connect to a name on a virtual thread": "import vthreads; vthreads.patch(); "
    "vthreads.run(socket.socket().connect, ('www.example.com', 80))",
    "IPv6": "socket.socket(socket.AF_INET6).connect(('2001:db8::1', 80))",
    "create_connection": "socket.create_connection(('192.0.2.1', 80), timeout=1)",
    "sendto": "socket.socket(type=socket.SOCK_DGRAM).sendto(b'x', ('192.0.2.1', 53))",
    "sendmsg": "socket.socket(type=socket.SOCK_DGRAM).sendmsg([b'x'], [], 0, ('192.0.2.1', 53))",
    "getaddrinfo": "socket.getaddrinfo('www.example.com', 80)",
    "getaddrinfo of bytes": "socket.getaddrinfo(b'www.example.com', 80)",
    "gethostbyname": "socket.gethostbyname('www.example.com')",
    "gethostbyname_ex": "socket.gethostbyname_ex('www.example.com')",
    "gethostbyaddr": "socket.gethostbyaddr('192.0.2.1')",
    "getnameinfo": "socket.getnameinfo(('192.0.2.1', 80), 0)",
    "a process of its own": "import subprocess; subprocess.run([sys.executable, '-c', "
    "'import socket; socket.gethostbyname(\"www.example.com\")'], check=True)",
    "on a virtual thread": "import vthreads; vthreads.patch(); "
    "vthreads.run(socket.create_connection, ('www.example.com', 80))",
}

ALLOWED = {
    "loopback": "s = socket.create_server(('127.0.0.1', 0)); socket.create_connection(s.getsockname()).close()",
    "by name": "s = socket.create_server(('127.0.0.1', 0)); "
    "socket.create_connection(('localhost', s.getsockname()[1])).close()",
    "any address": "socket.create_server(('', 0)).close()",
    "short form": "socket.getaddrinfo('127.1', 80)",
    "no host": "socket.getaddrinfo(None, 80)",
    "unix": "a, b = socket.socketpair(); a.sendmsg([b'x']); a.sendall(b'x')",
}


def run_guarded(code):
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(GUARD), *filter(None, sys.path)])}
    return subprocess.run(
        [sys.executable, "-c", f"import socket, sys\n{code}"],
        check=False, env=environment, capture_output=True, text=True, timeout=200,
    )  # fmt: skip


@pytest.mark.sampled(4)
@pytest.mark.parametrize("code", REFUSED.values(), ids=REFUSED)
def test_what_would_leave_the_machine_is_refused(code):
    done = run_guarded(code)
    assert done.returncode != 0
    assert "lies outside the loopback" in done.stderr


@pytest.mark.parametrize("code", ALLOWED.values(), ids=ALLOWED)
def test_what_stays_on_the_machine_passes(code):
    done = run_guarded(code)
    assert (0, "") == (done.returncode, done.stderr)
