"""Scan 500 TCP ports of this machine, 50 at a time: with `max_concurrency`, `spawn` waits for a free permit."""

import socket
from contextlib import ExitStack

from vthreads import ThreadGroup


def answers(port):
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=1):
            return True
    except OSError:
        return False


def scan(ports):
    with ThreadGroup("scan", max_concurrency=50) as group:
        tries = {port: group.spawn(answers, port) for port in ports}
    return [port for port, attempt in tries.items() if attempt.result()]


def main():
    with ExitStack() as listeners:
        # Open three ports for the scanner to find. Most others are closed.
        opened = [listeners.enter_context(socket.create_server(("127.0.0.1", 0))).getsockname()[1] for _ in range(3)]
        found = scan([*range(20_000, 20_497), *opened])
    print(f"{len(set(opened) & set(found))} of the 3 ports opened here were found")


if __name__ == "__main__":
    main()
