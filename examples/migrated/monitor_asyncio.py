"""Monitors services over TCP: checks them in rounds, stores the results, and streams changes to subscribers."""

import argparse
import asyncio
import contextlib
import signal
import sqlite3
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass

TIMEOUT = 1.0
ATTEMPTS = 2


@dataclass(frozen=True)
class Result:
    target: str
    ok: bool
    attempts: int
    seconds: float


class Store:
    """Results in SQLite. Its calls block, so they run in a thread."""

    def __init__(self, path: str) -> None:
        self._database = sqlite3.connect(path, check_same_thread=False)
        self._database.execute("create table if not exists result (target text, ok int, attempts int)")
        self._lock = asyncio.Lock()

    async def add(self, result: Result) -> None:
        async with self._lock:
            await asyncio.to_thread(self._add, result)

    def _add(self, result: Result) -> None:
        with self._database:
            row = (result.target, result.ok, result.attempts)
            self._database.execute("insert into result values (?, ?, ?)", row)

    async def summary(self) -> list[tuple[str, int, int]]:
        query = "select target, count(*), sum(ok) from result group by target order by target"
        async with self._lock:
            return await asyncio.to_thread(lambda: self._database.execute(query).fetchall())

    async def close(self) -> None:
        await asyncio.to_thread(self._database.close)


class Changes:
    """Passes each change of a state on to all subscribers."""

    def __init__(self) -> None:
        self._states: dict[str, bool] = {}
        self._queues: set[asyncio.Queue[str | None]] = set()

    def note(self, result: Result) -> None:
        if self._states.get(result.target) != result.ok:
            self._states[result.target] = result.ok
            for queue in self._queues:
                with contextlib.suppress(asyncio.QueueFull):
                    queue.put_nowait(f"{result.target} {'up' if result.ok else 'down'}")

    async def follow(self) -> AsyncIterator[str]:
        queue: asyncio.Queue[str | None] = asyncio.Queue(maxsize=100)
        self._queues.add(queue)
        try:
            while (line := await queue.get()) is not None:
                yield line
        finally:
            self._queues.discard(queue)

    def close(self) -> None:
        for queue in self._queues:
            queue.put_nowait(None)


async def ping(host: str, port: int) -> None:
    reader, writer = await asyncio.open_connection(host, port)
    try:
        writer.write(b"ping\n")
        await writer.drain()
        if await reader.readline() != b"pong\n":
            raise ConnectionError("wrong answer")
    finally:
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()


class Monitor:
    def __init__(self, targets: dict[str, tuple[str, int]], store: Store, limit: int = 10) -> None:
        self._targets = targets
        self._store = store
        self._limit = asyncio.Semaphore(limit)
        self._results: asyncio.Queue[Result] = asyncio.Queue()
        self._stop = asyncio.Event()
        self.changes = Changes()

    def stop(self) -> None:
        self._stop.set()

    async def check(self, name: str) -> Result:
        started = time.monotonic()
        async with self._limit:
            for attempt in range(1, ATTEMPTS + 1):
                try:
                    await asyncio.wait_for(ping(*self._targets[name]), TIMEOUT)
                    return Result(name, True, attempt, time.monotonic() - started)
                except (OSError, TimeoutError):
                    await asyncio.sleep(0.01 * attempt)
        return Result(name, False, ATTEMPTS, time.monotonic() - started)

    async def _keep_results(self) -> None:
        while True:
            result = await self._results.get()
            await self._store.add(result)
            self.changes.note(result)
            self._results.task_done()

    async def _serve_subscriber(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            async for line in self.changes.follow():
                writer.write(f"{line}\n".encode())
                await writer.drain()
        except ConnectionError:
            pass
        finally:
            writer.close()

    async def run(self, rounds: int, pause: float, ready: asyncio.Future[int]) -> None:
        server = await asyncio.start_server(self._serve_subscriber, "127.0.0.1", 0)
        ready.set_result(server.sockets[0].getsockname()[1])
        keeper = asyncio.create_task(self._keep_results())
        async with server:
            for _ in range(rounds):
                for result in asyncio.as_completed([self.check(name) for name in self._targets]):
                    await self._results.put(await result)
                with contextlib.suppress(asyncio.TimeoutError):
                    await asyncio.wait_for(self._stop.wait(), pause)
                if self._stop.is_set():
                    break
            await self._results.join()
            self.changes.close()
            keeper.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await keeper


async def pretend(answers: bool, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """A service to monitor: it answers, or it hangs."""
    await reader.readline()
    if answers:
        writer.write(b"pong\n")
    else:
        await reader.read()
    writer.close()


async def subscribe(port: int) -> list[str]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    lines = [line.decode().strip() async for line in reader]
    writer.close()
    return sorted(lines)


async def main(rounds: int) -> None:
    targets = {"closed": ("127.0.0.1", 1)}
    servers = []
    for name, answers in [("good", True), ("hanging", False)]:
        server = await asyncio.start_server(lambda r, w, answers=answers: pretend(answers, r, w), "127.0.0.1", 0)
        targets[name] = server.sockets[0].getsockname()
        servers.append(server)
    store = Store(":memory:")
    monitor = Monitor(targets, store)
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, monitor.stop)
    ready: asyncio.Future[int] = asyncio.get_running_loop().create_future()
    async with asyncio.TaskGroup() as group:
        group.create_task(monitor.run(rounds, 0.05, ready))
        changes = group.create_task(subscribe(await ready))
    for target, checks, good in await store.summary():
        print(f"{target}: {good} of {checks} checks")
    print(*changes.result(), sep=", ")
    await store.close()
    for server in servers:
        server.close()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=2)
    asyncio.run(main(parser.parse_args().rounds))
