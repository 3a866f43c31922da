"""A program that calls `serve.wsgi` itself, in several processes that listen at one port (`reuse_port`)."""

from __future__ import annotations

import contextlib
import signal
import subprocess
import sys
import textwrap

import pytest

from .test_command import SECONDS, Load
from .test_operation import free_port

pytestmark = pytest.mark.real

PROGRAM = """
    import sys
    import time

    from vthreads import ThreadGroup, serve, sleep, stopping

    def app(environ, start_response):
        if environ["PATH_INFO"] == "/slow":
            time.sleep(0.3)
        start_response("200 OK", [("Content-Length", "5")])
        return [b"hello"]

    def work():
        while not stopping():
            sleep(0.01)
        print("worked", flush=True)

    with ThreadGroup("background", on_failure="report") as background:
        background.spawn(work)
        serve.wsgi(
            app, "127.0.0.1", int(sys.argv[1]), reuse_port=True, ready=lambda server: print("serves", flush=True)
        )
        background.shutdown(grace=5)
"""


@contextlib.contextmanager
def program(folder, port):
    """A process of the program, which serves."""
    path = folder / "program.py"
    path.write_text(textwrap.dedent(PROGRAM))
    with subprocess.Popen([sys.executable, path, str(port)], stdout=subprocess.PIPE, text=True) as process:
        try:
            assert "serves\n" == process.stdout.readline()
            yield process
        finally:
            process.kill()


def ended(process):
    out, _ = process.communicate(timeout=SECONDS)
    return process.returncode, out


@pytest.mark.thorough
def test_processes_at_one_port_are_replaced_one_by_one_and_lose_no_request(tmp_path):
    port = free_port()
    with contextlib.ExitStack() as stack:
        old = [stack.enter_context(program(tmp_path, port)) for _ in range(2)]
        new = []

        def act(count):
            if count in (200, 600):
                # A new process serves before an old one stops.
                new.append(stack.enter_context(program(tmp_path, port)))
                old[len(new) - 1].send_signal(signal.SIGTERM)
            elif count == 1000:
                for process in new:
                    process.send_signal(signal.SIGTERM)

        load = Load(port, act)
        load.run(8)
        assert [(0, "worked\n")] * 4 == [ended(process) for process in (*old, *new)]
    assert [] == load.lost
    assert load.sent == load.answered >= 1000
