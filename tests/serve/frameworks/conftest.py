"""The command in a process with a site of `sites/`."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from pathlib import Path

SITES = Path(__file__).parent / "sites"
# Only ends a hang.
SECONDS = 100


class Site:
    """A running server."""

    def __init__(self, process, port):
        self.process = process
        self.port = port

    def ask(self, path, data=None, **fields):
        """Status and text of an answer."""
        request = urllib.request.Request(f"http://127.0.0.1:{self.port}{path}", data, fields)
        try:
            with urllib.request.urlopen(request, timeout=SECONDS) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read().decode()

    def ask_at_once(self, paths):
        """The answers to requests of a client each."""
        answers = [None] * len(paths)

        def ask(number):
            answers[number] = self.ask(paths[number])

        clients = [threading.Thread(target=ask, args=[number]) for number in range(len(paths))]
        for client in clients:
            client.start()
        for client in clients:
            client.join()
        return answers

    def stop(self):
        """End the server by SIGTERM; return its exit status."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(SECONDS)


@contextlib.contextmanager
def site_of(name, *options, log, database="", pool=""):
    """Serve the application of `sites/NAME.py`; its output goes to the file `log`."""
    settings = {"SITE_DATABASE": database, "SITE_POOL": pool}
    command = [sys.executable, "-m", "vthreads", "serve", f"{name}:application", "--app-dir", str(SITES)]
    # Not a pipe: the reports of failed requests would fill it, and then the server would wait for its reader.
    with log.open("w") as output:
        process = subprocess.Popen(
            [*command, "--bind", "127.0.0.1:0", "--access-log", "off", *options],
            stdout=output,
            stderr=output,
            env={**os.environ, **settings},
        )
    try:
        yield Site(process, port_in(log, process))
    finally:
        process.kill()
        process.wait(SECONDS)


def port_in(log, process):
    """Wait until the server has announced its port."""
    while process.poll() is None:
        if found := re.search(r"serving on .*:(\d+), process", log.read_text()):
            return int(found[1])
        threading.Event().wait(0.05)
    raise AssertionError(log.read_text())
