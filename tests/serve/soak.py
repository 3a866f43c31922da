"""A server under load and abuse at once: every request is answered as it must be, and nothing of it stays.

    python -m tests.serve.soak [--seconds 60] [--seed 0]

Clients send requests of all kinds to `python -m vthreads serve`: kept and new connections, bodies, streams, files,
WebSockets, handlers that fail or pass their deadline. Others reset, send slowly, do not read or send nonsense. At the
end the server must have no more memory than after the first quarter, and no connection and descriptor of a client.
Exit status 1: something is not.
"""

import argparse
import os
import random
import re
import signal
import socket
import statistics
import struct
import subprocess
import sys
import tempfile
import textwrap
import urllib.request
from collections import Counter
from contextlib import closing

import vthreads
from vthreads import ThreadGroup, move_on_after, sleep

CLIENTS = 24
APP = """
    import time

    from vthreads import serve

    class Page:
        def __iter__(self):
            for _ in range(50):
                yield b"x" * 10_000

    def app(environ, start_response):
        path = environ["PATH_INFO"]
        if path == "/socket":
            for message in serve.websocket(environ):
                pass
            return []
        if path == "/fail":
            raise ValueError("as requested")
        if path == "/hang":
            time.sleep(3600)
        body = environ["wsgi.input"].read()
        start_response("200 OK", [("Content-Type", "text/plain")])
        if path == "/page":
            return Page()
        if path == "/file":
            return environ["wsgi.file_wrapper"](open(__file__, "rb"))
        return [b"%d" % len(body)]
"""
OPTIONS = ["--bind", "127.0.0.1:0", "--access-log", "off", "--request-seconds", "1", "--header-seconds", "1"]
# More memory than after the first quarter that is not growth: the arenas of the allocators fill gradually.
TOLERANCE = 1.05, 2 << 20
# A request for each kind of connection, and the statuses that it may get; None: it is not answered at all.
REQUESTS = {
    "small": (b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", {200}),
    "body": (b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 50000\r\n\r\n" + bytes(50_000), {200}),
    "chunked": (
        b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\nX: y\r\n\r\n",
        {200},
    ),
    "page": (b"GET /page HTTP/1.1\r\nHost: a\r\n\r\n", {200}),
    "file": (b"GET /file HTTP/1.1\r\nHost: a\r\n\r\n", {200}),
    "fail": (b"GET /fail HTTP/1.1\r\nHost: a\r\n\r\n", {500}),
    "hang": (b"GET /hang HTTP/1.1\r\nHost: a\r\n\r\n", {504}),
    "nonsense": (b"GET /\0 HTTP/1.1\r\nHost: a\r\nX : y\r\n\r\n", {400}),
    "slow head": (b"GET / HTTP/1.1\r\nHost", {408}),
}
KINDS = *REQUESTS, "reset", "unread", "pipeline", "upgrade"
WEIGHTS = [20, 8, 8, 8, 8, 2, 1, 2, 1, 6, 2, 4, 2]
UPGRADE = (
    b"GET /socket HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
    b"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
)


def status_of(sock):
    """Read a response to its end, which closes the connection; return its status."""
    data = sock.recv(65536)
    while sock.recv(65536):
        pass
    return int(data[9:12] or 0)


def client(port, chance, counts, wrong):
    """The life of one client: a connection after the other, each of a random kind."""
    while True:
        (kind,) = chance.choices(KINDS, WEIGHTS)
        with closing(socket.create_connection(("127.0.0.1", port))) as sock:
            if kind in REQUESTS:
                request, expected = REQUESTS[kind]
                if kind == "small":
                    for _ in range(chance.randrange(30)):
                        sock.sendall(request)
                        sock.recv(1000)
                last = request.replace(b"Host: a\r\n", b"Host: a\r\nConnection: close\r\n", 1)
                sock.sendall(last)
                status = status_of(sock)
                if status not in expected:
                    wrong.append((kind, status))
            elif kind == "reset":
                sock.sendall(chance.choice([REQUESTS["page"], REQUESTS["hang"], REQUESTS["body"]])[0][:60])
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            elif kind == "unread":
                sock.sendall(REQUESTS["page"][0])
            elif kind == "pipeline":
                sock.sendall(
                    REQUESTS["chunked"][0] * 49
                    + REQUESTS["small"][0].replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n")
                )
                status_of(sock)
            else:
                sock.sendall(UPGRADE)
                sock.recv(1000)
                # A masked close frame.
                sock.sendall(b"\x88\x80\0\0\0\0")
                while sock.recv(1000):
                    pass
        counts[kind] += 1


def resident(pid):
    with open(f"/proc/{pid}/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def load(pid, port, seconds, seed):
    """Run the clients; return their counts, what was wrong, and the memory of the server over time."""
    counts, wrong, memory = Counter(), [], []

    def root():
        with ThreadGroup() as clients, move_on_after(seconds):
            for number in range(CLIENTS):
                clients.spawn(client, port, random.Random(f"{seed} {number}"), counts, wrong)
            try:
                while True:
                    sleep(seconds / 60)
                    memory.append(resident(pid))
            finally:
                clients.cancel()

    vthreads.run(root)
    return counts, wrong, memory


def sockets_of(pid):
    """The descriptors of a process that are sockets."""
    found = 0
    for fd in os.listdir(f"/proc/{pid}/fd"):
        try:
            found += os.readlink(f"/proc/{pid}/fd/{fd}").startswith("socket:")
        except FileNotFoundError:
            pass
    return found


def faults_of(process, port, sockets, seconds, seed):
    """Put the server under load; return what was wrong, as sentences."""
    counts, wrong, memory = load(process.pid, port, seconds, seed)
    print(f"{sum(counts.values())} connections: {dict(counts.most_common())}")
    faults = [f"a request of the kind {kind!r} got the status {status}" for kind, status in wrong]
    faults += [f"no connection of the kind {kind!r} has ended" for kind in KINDS if not counts[kind]]
    quarter = len(memory) // 4
    early, late = statistics.median(memory[quarter : 2 * quarter]), statistics.median(memory[-quarter:])
    print(f"memory of the server: {early / 2**20:.1f} MiB in the second quarter, {late / 2**20:.1f} MiB in the last")
    if late > early * TOLERANCE[0] + TOLERANCE[1]:
        faults.append("the memory has grown")
    for _ in range(200):
        if sockets_of(process.pid) == sockets:
            break
        vthreads.run(sleep, 0.1)
    else:
        faults.append(f"{sockets_of(process.pid) - sockets} sockets of clients are left")
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=60) as answer:
        if answer.read() != b"0":
            faults.append("a last request was not answered")
    process.send_signal(signal.SIGTERM)
    if process.wait(60):
        faults.append(f"the server has ended with status {process.returncode}")
    return faults


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, open(f"{folder}/log", "w+") as log:
        with open(f"{folder}/soak_site.py", "w") as file:
            file.write(textwrap.dedent(APP))
        command = [sys.executable, "-m", "vthreads", "serve", "soak_site:app", "--app-dir", folder, *OPTIONS]
        with subprocess.Popen(command, stdout=log, stderr=log) as process:
            try:
                port = port_in(log.name, process)
                faults = faults_of(process, port, sockets_of(process.pid), options.seconds, options.seed)
            finally:
                process.kill()
    print("\n".join(faults) or "nothing is wrong")
    return 1 if faults else 0


def port_in(path, process):
    """Wait until the server has announced its port."""
    while process.poll() is None:
        with open(path) as log:
            if found := re.search(r"serving on .*:(\d+), process", log.read()):
                return int(found[1])
        vthreads.run(sleep, 0.05)
    with open(path) as log:
        raise RuntimeError(log.read())


if __name__ == "__main__":
    sys.exit(main())
