"""Servers of other projects that tests need: the mark `server`.

A test names its server with `@pytest.mark.server("PostgreSQL")`. Without it the test is skipped, or fails with
`VTHREADS_REQUIRE_SERVERS=1`. Those that run on a port are never started or stopped; nginx is a program that its tests
start.
"""

import os
import shutil
import socket
from functools import cache

import pytest

PORTS = {
    "PostgreSQL": 5432,
    "MariaDB": 3306,
    "Redis": 6379,
    "RabbitMQ": 5672,
    "Mosquitto": 1883,
    "NATS": 4222,
}

# Distributions install it where only the PATH of root leads.
NGINX = shutil.which("nginx", path=os.pathsep.join([os.environ.get("PATH", ""), "/usr/local/sbin", "/usr/sbin"]))


def pytest_configure(config):
    config.addinivalue_line("markers", f"server(name): needs nginx, or one of {', '.join(PORTS)} on 127.0.0.1")


@cache
def absent(name):
    """What is missing for that server; empty if it is there."""
    if name == "nginx":
        return "" if NGINX else "no nginx on PATH"
    try:
        socket.create_connection(("127.0.0.1", PORTS[name]), timeout=5).close()
    except OSError:
        return f"no {name} on 127.0.0.1:{PORTS[name]}"
    return ""


def server_or_skip(name):
    """Skip the running test, or fail it, unless that server is there."""
    if absent(name):
        if os.environ.get("VTHREADS_REQUIRE_SERVERS") == "1":
            pytest.fail(absent(name), pytrace=False)
        pytest.skip(absent(name))


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item):
    # Before the fixtures, of which some connect to the server.
    for mark in item.iter_markers("server"):
        server_or_skip(*mark.args)
