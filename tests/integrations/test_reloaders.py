"""Development servers that restart themselves, under `python -m vthreads run --threads`."""

from __future__ import annotations

import http.client
import os
import re
import signal
import subprocess
import sys
import textwrap
import time
import types
import urllib.request

import pytest

from vthreads.integrations._django_reloader import fit, is_run_by_us

# Attempts to see a state that other processes reach; each waits for 0.1 s or an answer.
ATTEMPTS = 600

FLASK = """
    import flask
    from vthreads._core.current import running

    app = flask.Flask("site_of_test")

    @app.get("/")
    def index():
        return f"VERSION {running() is not None}"
"""


@pytest.mark.parametrize(
    ("command", "expected"),
    [
        (["python", "-m", "vthreads", "run", "--threads", "manage.py", "runserver"], True),
        (["python", "-X", "dev", "-m", "vthreads", "run", "manage.py"], True),
        (["python", "/venv/bin/vthreads", "run", "manage.py", "runserver"], True),
        (["python", "manage.py", "runserver"], False),
        (["python", "manage.py", "-m", "vthreads", "run"], False),
        (["python", "-m", "django", "vthreads", "run"], False),
        (["python", "-m", "vthreads", "serve", "run:app"], False),
        (["python", "/venv/bin/vthreads", "serve", "run"], False),
        (["python"], False),
        (["python", "-m"], False),
    ],
)
def test_our_command_is_recognized(command, expected):
    assert expected == is_run_by_us(command)


def test_the_child_of_django_gets_the_whole_command(monkeypatch):
    autoreload = types.ModuleType("django.utils.autoreload")
    autoreload.get_child_arguments = original = lambda: ["python", "manage.py"]
    (undo,) = fit(autoreload)
    monkeypatch.setattr(sys, "orig_argv", ["python3", "-m", "vthreads", "run", "--threads", "manage.py"])
    assert [sys.executable, "-m", "vthreads", "run", "--threads", "manage.py"] == autoreload.get_child_arguments()
    monkeypatch.setattr(sys, "orig_argv", ["python3", "manage.py"])
    assert ["python", "manage.py"] == autoreload.get_child_arguments()
    undo()
    assert original is autoreload.get_child_arguments


def wait_for(port, text):
    for _ in range(ATTEMPTS):
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=60) as answer:
                if answer.read().decode() == text:
                    return
        except (OSError, http.client.HTTPException):
            # It restarts, perhaps in the middle of an answer.
            pass
        time.sleep(0.1)  # another process works meanwhile
    raise AssertionError(f"no answer {text!r}")


@pytest.mark.real
@pytest.mark.thorough
def test_flask_reloads_on_virtual_threads_without_a_traceback(tmp_path):
    site = tmp_path / "site_of_test.py"
    site.write_text(textwrap.dedent(FLASK))
    arguments = "-m", "flask", "--app", "site_of_test", "--debug", "run", "--port", "0"
    command = [sys.executable, "-m", "vthreads", "run", "--threads", *arguments]
    with subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.PIPE, text=True, start_new_session=True) as process:
        lines = []
        try:
            # Only the parent writes it: the child of each reload inherits the listener.
            while (found := re.search(r"http://127\.0\.0\.1:(\d+)", line := process.stderr.readline())) is None:
                assert line, lines
            wait_for(found[1], "VERSION True")
            site.write_text(textwrap.dedent(FLASK).replace("VERSION", "EDITED"))
            wait_for(found[1], "EDITED True")
        finally:
            os.killpg(process.pid, signal.SIGKILL)
            lines += process.stderr.readlines()
    assert [] == [line for line in lines if "Traceback" in line or "Error" in line]
