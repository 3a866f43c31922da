"""The HTTP server of the demo, in a separate process: the standard library's threaded server, unchanged.

Each answer takes a fixed time (the latency), and its body depends only on its path, so that a client can verify it. The
server ends when its standard input is closed, so it does not outlive the process that started it.
"""

from __future__ import annotations

import argparse
import random
import ssl
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType

__all__ = ["BROKEN", "ServerProcess", "body_of"]

# The path that is answered at once with status 500.
BROKEN = "/broken"


def body_of(path: str) -> bytes:
    """Return the body that the server sends for `path`: 4 to 20 KiB."""
    numbers = random.Random(path)
    return numbers.randbytes(numbers.randrange(4_096, 20_480))


class _Server(ThreadingHTTPServer):
    # Hundreds of connections arrive at the same time; the kernel refuses those beyond this queue size.
    request_queue_size = 1_024

    def __init__(self, latency: float, certificate: Path | None) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.latency = latency
        if certificate is not None:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(certificate)
            # The thread of the connection does the handshake: done in accept(), it would delay the other connections.
            self.socket = context.wrap_socket(self.socket, server_side=True, do_handshake_on_connect=False)

    def handle_error(self, request: object, client_address: object) -> None:
        """Ignore the error: a cancelled client closes its connection in the middle of an answer."""


class _Handler(BaseHTTPRequestHandler):
    server: _Server
    protocol_version = "HTTP/1.1"
    # Send head and body together, and without waiting for the client to acknowledge earlier data.
    wbufsize = -1
    disable_nagle_algorithm = True

    def do_GET(self) -> None:
        if self.path == BROKEN:
            status, body = 500, b"this answer fails on purpose\n"
        else:
            time.sleep(self.server.latency)
            status, body = 200, body_of(self.path)
        self.send_response(status)
        self.send_header("Content-Type", "application/octet-stream")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Do not log: the output belongs to the demo."""


class ServerProcess:
    """The server process: entering starts it and waits until it listens, leaving ends it.

    Args:
        latency: seconds that each answer takes.
        certificate: path of a PEM file with key and certificate chain; None: HTTP without TLS.
    """

    def __init__(self, latency: float, certificate: Path | None = None) -> None:
        self._command = [sys.executable, "-m", __name__, "--latency", str(latency)]
        if certificate is not None:
            self._command += ["--certificate", str(certificate)]
        self._scheme = "http" if certificate is None else "https"
        self.url = ""

    def __enter__(self) -> ServerProcess:
        # In a new session, so that Ctrl-C reaches the demo only, which then ends the server.
        self._process = subprocess.Popen(
            self._command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True
        )
        assert self._process.stdout is not None
        port = self._process.stdout.readline().strip()
        if not port:
            self._end()
            raise RuntimeError(f"the server ended with status {self._process.returncode} before it listened")
        self.url = f"{self._scheme}://127.0.0.1:{port}"
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._end()

    def _end(self) -> None:
        self._process.terminate()
        with self._process:
            # Leaving the block waits for the end of the process and closes the pipes.
            pass


def _main() -> None:
    parser = argparse.ArgumentParser(
        description="The HTTP server of the demo. Prints its port; ends at the end of its input."
    )
    parser.add_argument("--latency", type=float, default=0.05, metavar="SECONDS")
    parser.add_argument("--certificate", type=Path, metavar="PEM")
    options = parser.parse_args()
    server = _Server(options.latency, options.certificate)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    print(server.server_port, flush=True)
    sys.stdin.read()


if __name__ == "__main__":
    _main()
