"""nginx in front, with keep-alive connections to the server: addresses, bodies, errors, and a reload under load."""

from __future__ import annotations

import contextlib
import http.client
import os
import signal
import socket
import subprocess
import textwrap
import threading
from collections import Counter

import pytest

from ...servers import NGINX
from ..test_command import SECONDS, serving
from ..test_workers import children_of

pytestmark = [pytest.mark.real, pytest.mark.thorough, pytest.mark.server("nginx")]

CONFIGURATION = """
    {user}
    daemon off;
    worker_processes 1;
    pid {folder}/nginx.pid;
    error_log stderr;
    events {{ worker_connections 512; }}
    http {{
        access_log off;
        client_body_temp_path {folder}/bodies;
        proxy_temp_path {folder}/proxy;
        fastcgi_temp_path {folder}/fastcgi;
        uwsgi_temp_path {folder}/uwsgi;
        scgi_temp_path {folder}/scgi;
        client_max_body_size 0;
        upstream site {{
            server {upstream};
            keepalive 16;
        }}
        server {{
            listen 127.0.0.1:{port};
            location / {{
                proxy_pass http://site;
                proxy_http_version 1.1;
                proxy_set_header Connection "";
                proxy_set_header Host $http_host;
                proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
                proxy_set_header X-Forwarded-Proto $scheme;
                proxy_request_buffering off;
                proxy_buffering off;
            }}
        }}
    }}
"""
APP = """
    import os
    import time

    def app(environ, start_response):
        path = environ["PATH_INFO"]
        body = environ["wsgi.input"].read()
        if path == "/slow":
            time.sleep(0.1)
        start_response("200 OK", [("Content-Type", "text/plain")])
        if path == "/large":
            return iter([b"x" * 100_000] * 50)
        if path == "/upload":
            return [b"%d" % len(body)]
        keys = "REMOTE_ADDR", "wsgi.url_scheme", "HTTP_HOST", "REMOTE_PORT"
        return ["\\n".join(environ.get(key, "") for key in keys).encode()]
"""
COMMAND = ["site_of_test:app", "--workers", "2", "--trusted-proxies", "127.0.0.1", "unix", "--access-log", "off"]


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return listener.getsockname()[1]


@contextlib.contextmanager
def nginx(folder, upstream):
    """The port of an nginx in front of `upstream`."""
    port = free_port()
    # As root it would drop its privileges, and then it cannot enter the folder of the socket.
    user = "user root;" if os.geteuid() == 0 else ""
    text = CONFIGURATION.format(folder=folder, upstream=upstream, port=port, user=user)
    (folder / "nginx.conf").write_text(textwrap.dedent(text))
    command = [NGINX, "-p", str(folder), "-c", str(folder / "nginx.conf"), "-e", "stderr"]
    with (folder / "nginx.log").open("w") as log, subprocess.Popen(command, stderr=log) as process:
        try:
            wait_for_port(port, process)
            yield port
        finally:
            process.terminate()
            process.wait(SECONDS)


def wait_for_port(port, process):
    while process.poll() is None:
        try:
            socket.create_connection(("127.0.0.1", port)).close()
        except ConnectionRefusedError:
            threading.Event().wait(0.05)
        else:
            return
    raise AssertionError("nginx has ended; see nginx.log")


@pytest.fixture(params=["tcp", "unix"])
def site(request, tmp_path):
    """The server, and the port of the nginx before it."""
    path = tmp_path / "site.sock"
    bind = "127.0.0.1:0" if request.param == "tcp" else f"unix:{path}"
    with serving(tmp_path, *COMMAND, "--bind", bind, app=APP) as (process, port):
        upstream = f"127.0.0.1:{port}" if request.param == "tcp" else f"unix:{path}"
        with nginx(tmp_path, upstream) as front:
            yield process, front
        process.send_signal(signal.SIGTERM)
        assert 0 == process.wait(SECONDS)


def ask(port, path, body=None, **fields):
    """Status and body of an answer, on a connection of its own."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=SECONDS)
    with contextlib.closing(connection):
        connection.request("GET" if body is None else "POST", path, body, fields)
        answer = connection.getresponse()
        return answer.status, answer.read()


def test_the_address_of_the_client_comes_from_nginx(site):
    _, port = site
    status, body = ask(port, "/", **{"X-Forwarded-For": "203.0.113.7", "Host": "example.org:80"})
    address, scheme, host, _ = body.decode().split("\n")
    # 127.0.0.1 is trusted, so the address before it is the client's.
    assert (200, "203.0.113.7", "http", "example.org:80") == (status, address, scheme, host)


def test_bodies_in_both_directions(site):
    _, port = site
    assert (200, b"3000000") == ask(port, "/upload", b"y" * 3_000_000)
    # Chunked by the client, and so by nginx.
    assert (200, b"3000000") == ask(port, "/upload", iter([b"y" * 30_000] * 100))
    status, body = ask(port, "/large")
    assert (200, 5_000_000) == (status, len(body))


def test_nginx_keeps_its_connections(site):
    _, port = site
    ends = Counter()
    for _ in range(50):
        ends[ask(port, "/")[1].decode().split("\n")[3]] += 1
    assert len(ends) <= 16


def test_a_reload_behind_nginx_loses_no_request(site):
    """Clients send requests until the workers have been replaced twice, and 1,000 answers more."""
    process, port = site
    statuses = Counter()
    stop = threading.Event()

    def ask_often(number):
        while not stop.is_set():
            statuses[ask(port, "/slow" if statuses[200] % 10 == number else "/")[0]] += 1

    clients = [threading.Thread(target=ask_often, args=[number]) for number in range(8)]
    for client in clients:
        client.start()
    try:
        for _ in range(2):
            before = children_of(process.pid)
            os.kill(process.pid, signal.SIGHUP)
            wait(lambda before=before: not before & children_of(process.pid))
        enough = statuses[200] + 1000
        wait(lambda: statuses[200] >= enough)
    finally:
        stop.set()
        for client in clients:
            client.join(SECONDS)
    assert {200} == statuses.keys()


def wait(reached):
    # Other processes work meanwhile.
    for _ in range(4000):
        if reached():
            return
        threading.Event().wait(0.05)
    raise AssertionError("not reached")
