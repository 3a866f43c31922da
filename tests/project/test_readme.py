"""The Python in README.md runs, and does what the text around it says."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.real

README = Path(__file__).parents[2] / "README.md"

# Runs in a separate process: the blocks of a section in turn, as one module that keeps its line numbers. A section is a
# program of its own for readers, so it does not see the names of the others.
PROGRAM = """
import requests
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

class Site(BaseHTTPRequestHandler):
    def do_GET(self):
        self.wfile.write(f"HTTP/1.0 200 OK\\r\\n\\r\\npage {self.path}".encode())

modules = {}
for section, line, block in BLOCKS:
    module = modules.setdefault(section, {"__name__": "readme"})
    exec(compile("\\n" * line + block, README, "exec"), module)
sizes, app = modules["Twenty lines"]["sizes"], modules["A server in ten lines"]["app"]

# So many may connect at once; 5 is the default, and a client that comes then tries again after a second.
ThreadingHTTPServer.request_queue_size = 100

from vthreads import Queue, ThreadGroup, serve

with ThreadingHTTPServer(("127.0.0.1", 0), Site) as server, ThreadGroup() as site:
    site.spawn(server.serve_forever, 0.05)
    pages = sizes([f"http://127.0.0.1:{server.server_port}/{number}" for number in range(20)])
    print(*pages.values())
    server.shutdown()

with ThreadGroup() as group:
    started = Queue()
    group.spawn(serve.wsgi, app, "127.0.0.1", 0, ready=started.put)
    server = started.get()
    print(requests.get("http://{}:{}/orders/3".format(*server.addresses[0])).text)
    server.stop()
"""


def blocks():
    """Each Python block: the heading above it, the number of lines before it, its code."""
    text = README.read_text()
    found = [
        (re.findall("^## (.*)$", text[: match.start()], re.M)[-1], text.count("\n", 0, match.start(1)), match[1])
        for match in re.finditer("^```python\n(.*?)^```$", text, re.M | re.S)
    ]
    assert text.count("```python") == len(found)
    return found


def test_the_blocks_run_the_first_downloads_and_the_last_serves():
    program = f"BLOCKS, README = {blocks()!r}, {str(README)!r}\n{PROGRAM}"
    ended = subprocess.run([sys.executable, "-c", program], check=False, capture_output=True, text=True, timeout=200)

    assert "" == ended.stderr
    pages = " ".join(str(len(f"page /{number}")) for number in range(20))
    assert f'{pages}\n{{"order":"3"}}\n\n' == ended.stdout
    assert 0 == ended.returncode
