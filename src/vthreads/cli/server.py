"""The HTTP server of the demo, a process of its own: the standard library's threaded server, unchanged.

Each answer takes a while (the latency) and has a body that follows from its path alone, so that whoever asks can check
what came. The server ends when its standard input does, so it never outlives the process that started it.
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

# The path that is answered with status 500, and at once.
BROKEN = "/broken"


def body_of(path: str) -> bytes:
    """Make what the server sends for `path`: 4 to 20 KiB."""
    numbers = random.Random(path)
    return numbers.randbytes(numbers.randrange(4_096, 20_480))


class _Server(ThreadingHTTPServer):
    # Connections come by the hundred; the kernel refuses what does not fit into its queue.
    request_queue_size = 1_024

    def __init__(self, latency: float, certificate: Path | None) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.latency = latency
        if certificate is not None:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(certificate)
            # The handshake is left to the thread of the connection.
            self.socket = context.wrap_socket(self.socket, server_side=True, do_handshake_on_connect=False)

    def handle_error(self, request: object, client_address: object) -> None:
        """Say nothing: a client that is cancelled hangs up in the middle of an answer."""


class _Handler(BaseHTTPRequestHandler):
    server: _Server
    protocol_version = "HTTP/1.1"
    # Head and body leave in one piece, and without waiting for the client's acknowledgement of what went before.
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
        """Say nothing: the output belongs to the demo."""


class ServerProcess:
    """The server as a process: entering starts it and waits until it listens, leaving ends it.

    Args:
        latency: seconds that each answer takes.
        certificate: a PEM file with key and certificate chain; None: HTTP without TLS.
    """

    def __init__(self, latency: float, certificate: Path | None = None) -> None:
        self._command = [sys.executable, "-m", __name__, "--latency", str(latency)]
        if certificate is not None:
            self._command += ["--certificate", str(certificate)]
        self._scheme = "http" if certificate is None else "https"
        self.url = ""

    def __enter__(self) -> ServerProcess:
        # In a session of its own: Ctrl-C is for the demo, which then ends the server.
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
            # Leaving waits for the end and closes the pipes.
            pass


def _main() -> None:
    parser = argparse.ArgumentParser(description="The HTTP server of the demo. Prints its port; ends with its input.")
    parser.add_argument("--latency", type=float, default=0.05, metavar="SECONDS")
    parser.add_argument("--certificate", type=Path, metavar="PEM")
    options = parser.parse_args()
    server = _Server(options.latency, options.certificate)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    print(server.server_port, flush=True)
    sys.stdin.read()


if __name__ == "__main__":
    _main()
