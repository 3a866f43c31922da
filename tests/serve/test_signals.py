"""Signals of the command beside those that stop it: SIGHUP without workers; and what systemd gets to know."""

from __future__ import annotations

import signal
import socket
import ssl

import pytest
import trustme

from .test_command import SECONDS, fetch, serving
from .test_operation import ask, free_port, kill
from .test_workers import children_of, stop, wait_until

pytestmark = pytest.mark.real


def write_certificate(folder, authority, name):
    certificate = authority.issue_cert(name)
    certificate.private_key_pem.write_to_path(str(folder / "key.pem"))
    (folder / "cert.pem").write_bytes(b"".join(blob.bytes() for blob in certificate.cert_chain_pems))


def name_served(authority, port):
    """The name in the certificate of a new connection."""
    context = ssl.create_default_context()
    context.check_hostname = False
    authority.configure_trust(context)
    with (
        socket.create_connection(("127.0.0.1", port), timeout=SECONDS) as sock,
        context.wrap_socket(sock) as wrapped,
    ):
        return wrapped.getpeercert()["subjectAltName"][0][1]


def wait_for_line(process, part):
    while part not in (line := process.stderr.readline()):
        assert line, "the process has ended"


@pytest.mark.parametrize("workers", [1, pytest.param(2, marks=pytest.mark.thorough)])
def test_sighup_loads_the_certificate_anew_and_keeps_it_after_a_failure(tmp_path, workers):
    authority = trustme.CA()
    write_certificate(tmp_path, authority, "old.example")
    files = "--certfile", str(tmp_path / "cert.pem"), "--keyfile", str(tmp_path / "key.pem")
    command = "site_of_test:app", "--bind", "127.0.0.1:0", "--workers", str(workers)
    with serving(tmp_path, *command, *files) as (process, port):
        before = children_of(process.pid)
        assert "old.example" == name_served(authority, port)
        write_certificate(tmp_path, authority, "new.example")
        process.send_signal(signal.SIGHUP)
        wait_until(lambda: name_served(authority, port) == "new.example")
        if workers > 1:
            wait_until(lambda: not before & (now := children_of(process.pid)) and len(now) == workers)
        (tmp_path / "key.pem").write_text("broken")
        process.send_signal(signal.SIGHUP)
        wait_for_line(process, "old certificate stays" if workers == 1 else "reload is given up")
        assert "new.example" == name_served(authority, port)
        stop(process)


def test_sighup_without_tls_changes_nothing(tmp_path):
    with serving(tmp_path, "site_of_test:app", "--bind", "127.0.0.1:0") as (process, port):
        process.send_signal(signal.SIGHUP)
        assert b"hello" == fetch(port)
        stop(process)


@pytest.mark.parametrize("workers", ["1", pytest.param("2", marks=pytest.mark.thorough)])
def test_systemd_is_notified_of_a_reload_and_of_the_stop(tmp_path, monkeypatch, workers):
    admin = free_port()
    command = "site_of_test:app", "--bind", "127.0.0.1:0", "--workers", workers, "--admin", f"127.0.0.1:{admin}"
    path = str(tmp_path / "notify")
    monkeypatch.setenv("NOTIFY_SOCKET", path)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(path)
        manager.settimeout(SECONDS)
        # A worker answers at the admin port until the end of the delay, so kill them all.
        with serving(tmp_path, *command, "--drain-delay", "600") as (process, _):
            assert b"READY=1" == manager.recv(1000)
            process.send_signal(signal.SIGHUP)
            assert manager.recv(1000).startswith(b"RELOADING=1\nMONOTONIC_USEC=")
            assert b"READY=1" == manager.recv(1000)
            assert (200, "ready\n") == ask(admin, "/ready")
            process.send_signal(signal.SIGTERM)
            assert b"STOPPING=1" == manager.recv(1000)
            # By then at the latest, whichever worker answers.
            assert (503, "not ready\n") == ask(admin, "/ready")
            kill(process)
