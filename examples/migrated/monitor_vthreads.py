"""Monitors services over TCP: checks them in rounds, stores the results, and streams changes to subscribers."""

import argparse
import signal
import socket
import sqlite3
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import partial

from vthreads import (
    Event,
    Full,
    Lock,
    Queue,
    Semaphore,
    ShutDown,
    ThreadGroup,
    as_completed,
    fail_after,
    offload,
    serve,
    sleep,
)

TIMEOUT = 1.0
ATTEMPTS = 2


@dataclass(frozen=True)
class Result:
    target: str
    ok: bool
    attempts: int
    seconds: float


class Store:
    """Results in SQLite. Its calls are C code that waits for the disk, so they run on an OS thread."""

    def __init__(self, path: str) -> None:
        self._database = sqlite3.connect(path, check_same_thread=False)
        self._database.execute("create table if not exists result (target text, ok int, attempts int)")
        self._lock = Lock()

    def add(self, result: Result) -> None:
        with self._lock:
            offload(self._add, result)

    def _add(self, result: Result) -> None:
        with self._database:
            row = (result.target, result.ok, result.attempts)
            self._database.execute("insert into result values (?, ?, ?)", row)

    def summary(self) -> list[tuple[str, int, int]]:
        query = "select target, count(*), sum(ok) from result group by target order by target"
        with self._lock:
            return offload(lambda: self._database.execute(query).fetchall())

    def close(self) -> None:
        self._database.close()


class Changes:
    """Passes each change of a state on to all subscribers."""

    def __init__(self) -> None:
        self._states: dict[str, bool] = {}
        self._queues: set[Queue[str]] = set()

    def note(self, result: Result) -> None:
        if self._states.get(result.target) != result.ok:
            self._states[result.target] = result.ok
            for queue in self._queues:
                with suppress(Full):
                    queue.put_nowait(f"{result.target} {'up' if result.ok else 'down'}")

    def follow(self) -> Iterator[str]:
        queue: Queue[str] = Queue(maxsize=100)
        self._queues.add(queue)
        try:
            while True:
                yield queue.get()
        except ShutDown:
            pass
        finally:
            self._queues.discard(queue)

    def close(self) -> None:
        for queue in self._queues:
            queue.shutdown()


def ping(host: str, port: int) -> None:
    with socket.create_connection((host, port)) as connection, connection.makefile("rwb") as stream:
        stream.write(b"ping\n")
        stream.flush()
        if stream.readline() != b"pong\n":
            raise ConnectionError("wrong answer")


class Monitor:
    def __init__(self, targets: dict[str, tuple[str, int]], store: Store, limit: int = 10) -> None:
        self._targets = targets
        self._store = store
        self._limit = Semaphore(limit)
        self._results: Queue[Result] = Queue()
        self._stop = Event()
        self.changes = Changes()

    def stop(self) -> None:
        self._stop.set()

    def check(self, name: str) -> Result:
        started = time.monotonic()
        with self._limit:
            for attempt in range(1, ATTEMPTS + 1):
                try:
                    with fail_after(TIMEOUT):
                        ping(*self._targets[name])
                    return Result(name, True, attempt, time.monotonic() - started)
                except (OSError, TimeoutError):
                    sleep(0.01 * attempt)
        return Result(name, False, ATTEMPTS, time.monotonic() - started)

    def _keep_results(self) -> None:
        while True:
            result = self._results.get()
            self._store.add(result)
            self.changes.note(result)
            self._results.task_done()

    def _serve_subscriber(self, connection: socket.socket) -> None:
        with suppress(ConnectionError):
            for line in self.changes.follow():
                connection.sendall(f"{line}\n".encode())

    def run(self, rounds: int, pause: float, ready: Queue[int]) -> None:
        servers: Queue[serve.Server] = Queue()
        with ThreadGroup() as group:
            group.spawn(serve.tcp, self._serve_subscriber, "127.0.0.1", 0, ready=servers.put)
            keeper = group.spawn(self._keep_results)
            server = servers.get()
            ready.put(server.addresses[0][1])
            for _ in range(rounds):
                for future in as_completed([group.spawn(self.check, name) for name in self._targets]):
                    self._results.put(future.result())
                if self._stop.wait(pause):
                    break
            self._results.join()
            self.changes.close()
            server.stop()
            keeper.cancel()


def pretend(answers: bool, connection: socket.socket) -> None:
    """A service to monitor: it answers, or it hangs."""
    connection.recv(100)
    if answers:
        connection.sendall(b"pong\n")
    else:
        connection.recv(100)


def subscribe(port: int) -> list[str]:
    with socket.create_connection(("127.0.0.1", port)) as connection, connection.makefile() as lines:
        return sorted(line.strip() for line in lines)


def main(rounds: int) -> None:
    targets = {"closed": ("127.0.0.1", 1)}
    store = Store(":memory:")
    with ThreadGroup() as services:
        servers: Queue[serve.Server] = Queue()
        for name, answers in [("good", True), ("hanging", False)]:
            services.spawn(serve.tcp, partial(pretend, answers), "127.0.0.1", 0, ready=servers.put)
            targets[name] = servers.get().addresses[0]
        monitor = Monitor(targets, store)
        signal.signal(signal.SIGTERM, lambda number, frame: monitor.stop())
        with ThreadGroup() as group:
            ready: Queue[int] = Queue()
            group.spawn(monitor.run, rounds, 0.05, ready)
            changes = group.spawn(subscribe, ready.get())
        services.cancel()
    for target, checks, good in store.summary():
        print(f"{target}: {good} of {checks} checks")
    print(*changes.result(), sep=", ")
    store.close()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=2)
    main(parser.parse_args().rounds)
