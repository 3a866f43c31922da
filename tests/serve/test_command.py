"""`python -m vthreads serve`: a process, its addresses, SIGTERM and SIGINT under load, and its complaints."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import socket
import subprocess
import sys
import textwrap
import threading
import urllib.request
from dataclasses import fields

import pytest
import trustme

from vthreads._cli.serve import main
from vthreads._core.engine import engine_name
from vthreads.serve import Limits

pytestmark = pytest.mark.real

APP = """
    import functools
    import time

    def app(environ, start_response):
        if environ["PATH_INFO"] == "/slow":
            time.sleep(0.3)
        start_response("200 OK", [("Content-Length", "5")])
        return [b"hello"]

    def make():
        return app

    @functools.wraps(make)
    def decorated(environ, start_response):
        return make()(environ, start_response)

    class site:
        app = staticmethod(app)

    value = 3

    def value_maker():
        return value
"""
SECONDS = 60

# Executes the command in its arguments as systemd would, with a listener as descriptor 3.
BECOME_SERVICE = """
import os, sys
os.dup2(int(sys.argv[1]), 3)
os.environ["LISTEN_PID"] = str(os.getpid())
os.execv(sys.argv[2], sys.argv[2:])
"""


@contextlib.contextmanager
def serving(folder, *arguments, app=APP, starter=(), **options):
    """The command in a process of its own, and the port that it has announced."""
    (folder / "site_of_test.py").write_text(textwrap.dedent(app))
    command = [sys.executable, "-m", "vthreads", "serve", *arguments, "--app-dir", str(folder)]
    with subprocess.Popen([*starter, *command], stderr=subprocess.PIPE, text=True, **options) as process:
        try:
            line = process.stderr.readline()
            # On a busy machine a worker may be replaced before all of them serve, which is logged.
            while line and not line.startswith("serving on "):
                line = process.stderr.readline()
            port = re.search(r":(\d+), process", line)
            yield process, port and int(port[1])
        finally:
            process.kill()


def fetch(port, path=""):
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/{path}", timeout=SECONDS) as answer:
        return answer.read()


@pytest.mark.sampled(1)
@pytest.mark.parametrize(
    "arguments",
    [["site_of_test:app"], ["site_of_test:make", "--factory"], ["site_of_test:site.app"], ["site_of_test:decorated"]],
)
def test_it_serves_the_application(tmp_path, arguments):
    with serving(tmp_path, *arguments, "--bind", "127.0.0.1:0") as (process, port):
        assert b"hello" == fetch(port)
        process.send_signal(signal.SIGTERM)
        assert 0 == process.wait(SECONDS)


def test_it_listens_on_a_unix_socket(tmp_path):
    path = str(tmp_path / "socket")
    with serving(tmp_path, "site_of_test:app", "--bind", f"unix:{path}"), socket.socket(socket.AF_UNIX) as sock:
        sock.connect(path)
        sock.sendall(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
        data = b""
        while piece := sock.recv(1000):
            data += piece
        assert data.endswith(b"hello")


@pytest.mark.parametrize("workers", ["1", pytest.param("2", marks=pytest.mark.thorough)])
def test_it_announces_urls(tmp_path, workers):
    certificate = trustme.CA().issue_cert("localhost")
    certificate.private_key_and_cert_chain_pem.write_to_path(str(tmp_path / "both.pem"))
    file = str(tmp_path / "both.pem")
    command = [sys.executable, "-m", "vthreads", "serve", "site_of_test:app", "--app-dir", str(tmp_path)]
    command += ["--bind", "[::1]:0", "--bind", f"unix:{tmp_path}/socket", "--bind", "127.0.0.1:0", "--workers", workers]
    (tmp_path / "site_of_test.py").write_text(textwrap.dedent(APP))
    with subprocess.Popen(
        [*command, "--certfile", file, "--keyfile", file], stderr=subprocess.PIPE, text=True
    ) as process:
        line = process.stderr.readline()
        process.kill()
    addresses = rf"https://\[::1\]:\d+, unix:{tmp_path}/socket, https://127\.0\.0\.1:\d+"
    assert re.fullmatch(rf"serving on {addresses}, process \d+, {engine_name} engine\n", line)


class Load:
    """Clients that send requests until their connection is refused, and count."""

    def __init__(self, port, when_answered):
        self.port = port
        self.when_answered = when_answered
        self.sent = self.answered = 0
        self.lost = []

    def ask_often(self):
        while True:
            try:
                sock = socket.create_connection(("127.0.0.1", self.port), timeout=SECONDS)
            except ConnectionRefusedError:
                return
            with sock:
                while self.ask(sock):
                    pass

    def ask(self, sock):
        """Whether the connection may be used again."""
        path = b"slow" if self.sent % 10 == 0 else b""
        data = b""
        self.sent += 1
        try:
            sock.sendall(b"GET /%b HTTP/1.1\r\nHost: a\r\n\r\n" % path)
            while not data.endswith((b"hello", b"0\r\n\r\n")):
                piece = sock.recv(1000)
                if not piece:
                    raise ConnectionError("the connection has ended")
                data += piece
        except ConnectionError as error:
            self.lost.append((data, error))
            return False
        self.answered += 1
        self.when_answered(self.answered)
        return b"Connection: close" not in data

    def run(self, clients):
        threads = [threading.Thread(target=self.ask_often) for _ in range(clients)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(SECONDS)


def test_sigterm_under_load_loses_no_request(tmp_path):
    def stop_at(count):
        if count == 300:
            process.send_signal(signal.SIGTERM)

    with serving(tmp_path, "site_of_test:app", "--bind", "127.0.0.1:0") as (process, port):
        load = Load(port, stop_at)
        load.run(8)
        assert 0 == process.wait(SECONDS)
    assert [] == load.lost
    assert load.sent == load.answered >= 300


@pytest.mark.parametrize("workers", [1, 2])
def test_systemd_passes_the_listener_and_is_notified(tmp_path, monkeypatch, workers):
    path = str(tmp_path / "notify")
    monkeypatch.setenv("NOTIFY_SOCKET", path)
    monkeypatch.setenv("LISTEN_FDS", "1")
    with (
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager,
        socket.create_server(("127.0.0.1", 0)) as listener,
    ):
        manager.bind(path)
        manager.settimeout(SECONDS)

        fd = listener.fileno()
        starter = [sys.executable, "-c", BECOME_SERVICE, str(fd)]
        command = "site_of_test:app", "--workers", str(workers)
        with serving(tmp_path, *command, starter=starter, pass_fds=[fd]) as (process, port):
            assert listener.getsockname()[1] == port
            assert b"READY=1" == manager.recv(1000)
            assert b"hello" == fetch(port)
            process.send_signal(signal.SIGTERM)
            if workers > 1:
                assert b"STOPPING=1" == manager.recv(1000)
            assert 0 == process.wait(SECONDS)


@pytest.mark.parametrize(
    ("pid", "count", "status"),
    [
        # Variables of another process, as in a child of the service: not meant for this one.
        ("1", "1", 0),
        pytest.param("", "1", 0, marks=pytest.mark.thorough),
        pytest.param("x", "x", 0, marks=pytest.mark.thorough),
        ("SELF", "x", "LISTEN_FDS='x' is not the number"),
        pytest.param("SELF", "", "LISTEN_FDS='' is not the number", marks=pytest.mark.thorough),
        pytest.param("SELF", "-1", "LISTEN_FDS='-1' is not the number", marks=pytest.mark.thorough),
        pytest.param("SELF", "99999999999", "LISTEN_FDS='99999999999' is not the number", marks=pytest.mark.thorough),
        pytest.param("SELF", "9", "cannot listen on fd://", marks=pytest.mark.thorough),
    ],
)
def test_wrong_variables_of_systemd(tmp_path, pid, count, status):
    become = BECOME_SERVICE.replace("str(os.getpid())", repr(pid)) if pid != "SELF" else BECOME_SERVICE
    with socket.create_server(("127.0.0.1", 0)) as listener:
        fd = listener.fileno()
        starter = [sys.executable, "-c", become, str(fd)]
        arguments = ["site_of_test:app"] if pid == "SELF" else ["site_of_test:app", "--print-config"]
        (tmp_path / "site_of_test.py").write_text(textwrap.dedent(APP))
        command = [*starter, sys.executable, "-m", "vthreads", "serve", *arguments, "--app-dir", str(tmp_path)]
        environment = {**os.environ, "LISTEN_FDS": count}
        ended = subprocess.run(
            command, capture_output=True, text=True, timeout=SECONDS, check=False, pass_fds=[fd], env=environment
        )
    if status == 0:
        assert (0, True) == (ended.returncode, 'bind = ["127.0.0.1:8000"]' in ended.stdout)
    else:
        assert 0 < ended.returncode
        assert status in ended.stderr
        assert "Traceback" not in ended.stderr


@pytest.mark.thorough
@pytest.mark.parametrize(
    ("number", "handler", "status"),
    [
        (signal.SIGTERM, "time.sleep(3600)", 0),
        (signal.SIGINT, "time.sleep(3600)", 130),
        (signal.SIGTERM, "sum(range(10**6))", 0),
        (signal.SIGINT, "sum(range(10**6))", 130),
    ],
    ids=["parks", "parks, Ctrl-C", "pins", "pins, Ctrl-C"],
)
def test_a_handler_that_ignores_its_cancellation_does_not_keep_the_process_alive(tmp_path, number, handler, status):
    app = f"""
        import time

        def app(environ, start_response):
            print("begun", flush=True)
            while True:
                try:
                    {handler}
                except BaseException:
                    pass
    """
    command = "site_of_test:app", "--bind", "127.0.0.1:0", "--drain", "0.1"
    with (
        serving(tmp_path, *command, app=app, stdout=subprocess.PIPE) as (process, port),
        socket.create_connection(("127.0.0.1", port)) as sock,
    ):
        sock.sendall(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        assert "begun\n" == process.stdout.readline()
        process.send_signal(number)
        assert status == process.wait(SECONDS)
        text = process.stderr.read()
        assert "a handler or another thread has not ended" in text
        assert "site_of_test.py" in text or handler == "time.sleep(3600)"


@pytest.mark.thorough
def test_an_os_thread_of_the_application_that_never_ends_does_not_keep_the_process(tmp_path):
    app = """
        import socket
        import threading

        def app(environ, start_response):
            start_response("200 OK", [("Content-Length", "5")])
            return [b"hello"]

        one, other = socket.socketpair()
        # Not a daemon: Python would wait for it.
        threading.Thread(target=one.recv, args=[1]).start()
    """
    with serving(tmp_path, "site_of_test:app", "--bind", "127.0.0.1:0", app=app) as (process, port):
        assert b"hello" == fetch(port)
        process.send_signal(signal.SIGTERM)
        assert 0 == process.wait(SECONDS)
        assert "another thread has not ended" in process.stderr.read()


def test_ctrl_c_ends_it_at_once(tmp_path):
    with serving(tmp_path, "site_of_test:app", "--bind", "127.0.0.1:0") as (process, port):
        assert b"hello" == fetch(port)
        process.send_signal(signal.SIGINT)
        assert -signal.SIGINT == process.wait(SECONDS)
        assert "Traceback" not in process.stderr.read()


WAITING = """
    import time

    def app(environ, start_response):
        print("begun", flush=True)
        time.sleep(3600)
"""


@pytest.mark.parametrize("workers", ["1", "2"])
def test_during_a_stop_ctrl_c_ends_it_and_sighup_has_no_effect(tmp_path, monkeypatch, workers):
    path = str(tmp_path / "notify")
    monkeypatch.setenv("NOTIFY_SOCKET", path)
    command = (
        "site_of_test:app",
        "--bind",
        "127.0.0.1:0",
        "--drain",
        "3600",
        "--access-log",
        "off",
        "--workers",
        workers,
    )
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(path)
        manager.settimeout(SECONDS)
        with (
            serving(tmp_path, *command, app=WAITING, stdout=subprocess.PIPE) as (process, port),
            socket.create_connection(("127.0.0.1", port)) as sock,
        ):
            assert b"READY=1" == manager.recv(1000)
            sock.sendall(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
            assert "begun\n" == process.stdout.readline()
            process.send_signal(signal.SIGTERM)
            assert b"STOPPING=1" == manager.recv(1000)
            process.send_signal(signal.SIGHUP)
            process.send_signal(signal.SIGINT)
            assert -signal.SIGINT == process.wait(SECONDS)
        # Nothing like READY=1 after STOPPING=1.
        manager.setblocking(False)
        with pytest.raises(BlockingIOError):
            manager.recv(1000)


@pytest.mark.sampled(3)
@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["site_of_test"], "write MODULE:NAME"),
        (["site_of_test:missing"], "has no 'missing'"),
        (["site_of_test:value"], "not callable"),
        (["site_of_test:value_maker", "--factory"], "returned 3"),
        (["site_of_test:value_maker"], "add --factory"),
        (["site_of_test:app", "--factory"], "omit --factory"),
        (["no_site:app"], "there is no module 'no_site'"),
        (["no_site:app", "--workers", "2"], "there is no module 'no_site'"),
        (["site_of_test.sub:app"], "there is no module 'site_of_test.sub'"),
        (["site_of_test:app", "--bind", "nowhere"], "is not an address"),
        (["site_of_test:app", "--bind", "a..b:80"], "is not an address"),
        (["site_of_test:app", "--bind", "unix:@name"], "write the path of a file"),
        (["site_of_test:app", "--bind", "unix:/" + "a" * 107], "the path has 108 bytes"),
        (["site_of_test:app", "--workers", "0"], "--workers: must be a whole number >= 1, got 0"),
        (["site_of_test:app", "--workers", "abc"], "--workers: must be a whole number >= 1, got 'abc'"),
        (["site_of_test:app", "--drain", "-1"], "--drain: must be a number >= 0, got -1"),
        (["site_of_test:app", "--certfile", "missing", "--keyfile", "x"], "cannot load --certfile 'missing'"),
        (["site_of_test:app", "--idle-seconds", "-1"], "--idle-seconds: must be a number >= 0"),
        (["site_of_test:app", "--certfile", "x"], "belong together"),
        (["site_of_test:app", "--trusted-proxies", "10.0.0.0/99"], "--trusted-proxies: "),
        ([], "no application is given"),
    ],
)
def test_a_wrong_command_is_explained(tmp_path, arguments, complaint):
    (tmp_path / "site_of_test.py").write_text(textwrap.dedent(APP))
    command = [sys.executable, "-m", "vthreads", "serve", *arguments, "--app-dir", str(tmp_path)]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS, check=False)
    assert 2 == ended.returncode
    assert complaint in ended.stderr
    assert "Traceback" not in ended.stderr


@pytest.mark.sampled(1)
@pytest.mark.parametrize("line", ["import no_library", "{}['SETTING']", "int('x')"])
def test_a_failure_inside_the_application_has_its_traceback(tmp_path, line):
    (tmp_path / "site_of_test.py").write_text(line)
    command = [sys.executable, "-m", "vthreads", "serve", "site_of_test:app", "--app-dir", str(tmp_path)]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS, check=False)
    assert 1 == ended.returncode
    assert f'site_of_test.py", line 1, in <module>\n    {line}\n' in ended.stderr


def test_without_httptools_it_names_the_package_to_install(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "httptools", None)
    with pytest.raises(SystemExit):
        main(["site_of_test:app"])
    assert "pip install 'vthreads[serve]'" in capsys.readouterr().err


def test_the_help_explains_every_limit(capsys):
    with pytest.raises(SystemExit):
        main(["--help"])
    text = capsys.readouterr().out
    assert [] == [field.name for field in fields(Limits) if f"--{field.name.replace('_', '-')} N " not in text]
    assert "(67108864)" in text


@pytest.fixture
def unusable(tmp_path):
    """Addresses that cannot be listened on, with the reason that is shown."""
    (tmp_path / "file").touch()
    with socket.create_server(("127.0.0.1", 0)) as taken, open(tmp_path / "file") as file:
        os.dup2(file.fileno(), 63)
        yield {
            f"127.0.0.1:{taken.getsockname()[1]}": "another process listens there",
            "192.0.2.1:8000": "no interface of this machine has this address",
            f"unix:{tmp_path}/file": "the path exists and is not a socket",
            f"unix:{tmp_path}/missing/socket": "its directory does not exist",
            "fd://62": "the process has no such descriptor",
            "fd://63": "it is not a socket",
        }
        os.close(63)


@pytest.mark.parametrize("number", range(6))
@pytest.mark.parametrize("workers", ["1", pytest.param("2", marks=pytest.mark.thorough)])
@pytest.mark.parametrize("option", ["--bind", "--admin"])
def test_an_address_that_cannot_be_used_ends_the_command(tmp_path, unusable, number, option, workers):
    (tmp_path / "site_of_test.py").write_text(textwrap.dedent(APP))
    address, reason = list(unusable.items())[number]
    command = [sys.executable, "-m", "vthreads", "serve", "site_of_test:app", option, address, "--workers", workers]
    command += ["--bind", "127.0.0.1:0"] if option == "--admin" else []
    ended = subprocess.run(
        [*command, "--app-dir", str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
        pass_fds=[63],
    )
    assert 1 == ended.returncode
    assert f"cannot listen on {address}: {reason}" in ended.stderr
    assert "Traceback" not in ended.stderr
