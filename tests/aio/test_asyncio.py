"""asyncio beside virtual threads and inside them, with one loop per thread."""

import asyncio
import contextvars
import queue
import subprocess
import sys
import threading
import time

import pytest

import vthreads
from vthreads import ThreadGroup, checkpoint, move_on_after


async def running_loop_through(pauses):
    loops = {asyncio.get_running_loop()}
    for _ in range(pauses):
        await asyncio.sleep(0.001)
        loops.add(asyncio.get_running_loop())
        # A blocking call of this virtual thread, during which the loops of the others run.
        checkpoint()
        loops.add(asyncio.get_running_loop())
        assert asyncio.current_task() is not None
        # Made without a loop: it is looked up in C.
        loops.add(asyncio.Future().get_loop())
    return loops


def test_each_virtual_thread_has_a_running_loop_of_its_own():
    def root():
        with ThreadGroup() as group:
            futures = [group.spawn(asyncio.run, running_loop_through(20)) for _ in range(10)]
        with pytest.raises(RuntimeError, match="no running event loop"):
            asyncio.get_running_loop()
        return [future.result() for future in futures]

    loops = vthreads.run(root)
    assert [1] * 10 == [len(of_one) for of_one in loops]
    assert 10 == len(set().union(*loops))


def test_who_has_no_loop_sees_none_while_another_runs_one():
    seen = []

    def looks():
        for _ in range(20):
            with pytest.raises(RuntimeError):
                asyncio.get_running_loop()
            seen.append(asyncio._get_running_loop())
            checkpoint()

    def root():
        with ThreadGroup() as group:
            group.spawn(asyncio.run, running_loop_through(20))
            group.spawn(looks)
            asyncio.run(running_loop_through(20))

    vthreads.run(root)
    assert [None] * 20 == seen


def test_a_spawn_inside_a_coroutine_does_not_inherit_its_loop():
    async def spawns():
        child = vthreads.spawn(asyncio._get_running_loop)
        assert child.result() is None
        return asyncio.get_running_loop()

    assert vthreads.run(asyncio.run, spawns()) is not None


def test_run_inside_a_running_loop_is_the_error_that_asyncio_makes_of_it():
    async def outer():
        inner = running_loop_through(1)
        try:
            asyncio.run(inner)
        finally:
            inner.close()

    def root():
        with pytest.raises(RuntimeError, match="cannot be called from a running event loop"):
            asyncio.run(outer())

    vthreads.run(root)


def test_a_loop_set_by_the_policy_belongs_to_its_virtual_thread():
    def sets():
        loop = asyncio.new_event_loop()
        try:
            asyncio.set_event_loop(loop)
            for _ in range(5):
                checkpoint()
                assert asyncio.get_event_loop() is loop
            asyncio.set_event_loop(None)
        finally:
            loop.close()

    def root():
        with ThreadGroup() as group:
            for _ in range(5):
                group.spawn(sets)

    vthreads.run(root)


def test_a_loop_in_an_os_thread_runs_beside_virtual_threads():
    answers = []

    def root():
        os_thread = threading.Thread(target=lambda: answers.append(asyncio.run(running_loop_through(20))))
        os_thread.start()
        with ThreadGroup() as group:
            for _ in range(3):
                group.spawn(lambda: answers.append(asyncio.run(running_loop_through(20))))
        os_thread.join()

    vthreads.run(root)
    assert 4 == len(set().union(*answers))


def test_coroutines_and_virtual_threads_share_queues_and_futures():
    requests, answers = queue.Queue(), queue.Queue()

    async def serve():
        loop = asyncio.get_running_loop()
        while (request := await loop.run_in_executor(None, requests.get)) is not None:
            await asyncio.sleep(0)
            answers.put(request * 2)

    def root():
        with ThreadGroup() as group:
            group.spawn(asyncio.run, serve())
            for number in range(50):
                requests.put(number)
            results = [answers.get() for _ in range(50)]
            requests.put(None)
        return results

    assert [2 * number for number in range(50)] == vthreads.run(root)


def test_run_coroutine_threadsafe_parks_only_who_waits():
    async def double(number):
        await asyncio.sleep(0.001)
        return 2 * number

    def root():
        loop = asyncio.new_event_loop()
        with ThreadGroup() as group:
            group.spawn(loop.run_forever)
            results = list(
                vthreads.map(lambda number: asyncio.run_coroutine_threadsafe(double(number), loop).result(), range(20))
            )
            loop.call_soon_threadsafe(loop.stop)
        loop.close()
        return results

    assert [2 * number for number in range(20)] == vthreads.run(root)


def test_cancelling_the_virtual_thread_ends_its_loop_and_closes_it():
    loops, cleaned = [], []

    async def waits():
        loops.append(asyncio.get_running_loop())
        try:
            await asyncio.sleep(3600)
        finally:
            cleaned.append(True)

    def root():
        with ThreadGroup() as group:
            group.spawn(asyncio.run, waits())
            group.cancel()
        assert asyncio._get_running_loop() is None

    vthreads.run(root)
    assert [True] == [loop.is_closed() for loop in loops]
    assert [True] == cleaned


def test_a_deadline_reaches_a_blocking_call_inside_a_coroutine():
    async def blocks():
        time.sleep(3600)

    def root():
        with move_on_after(0.01) as scope:
            asyncio.run(blocks())
        return scope.cancelled_caught

    assert vthreads.run(root)


def test_streams_of_a_loop_and_sockets_of_virtual_threads_talk():
    import socket

    async def echo(reader, writer):
        writer.write(await reader.read(100))
        await writer.drain()
        writer.close()

    async def serve(address, done):
        server = await asyncio.start_server(echo, "127.0.0.1", 0)
        address.put(server.sockets[0].getsockname())
        await asyncio.get_running_loop().run_in_executor(None, done.get)
        server.close()

    def client(address):
        with socket.create_connection(address) as sock:
            sock.sendall(b"ping")
            return sock.recv(100)

    def root():
        address, done = queue.Queue(), queue.Queue()
        with ThreadGroup() as group:
            group.spawn(asyncio.run, serve(address, done))
            where = address.get()
            answers = list(vthreads.map(client, [where] * 20))
            done.put(None)
        return answers

    assert [b"ping"] * 20 == vthreads.run(root)


def test_the_context_of_a_virtual_thread_is_that_of_its_coroutines():
    variable = contextvars.ContextVar("variable")

    async def get():
        await asyncio.sleep(0)
        return variable.get()

    def root():
        variable.set("from the spawner")
        return vthreads.spawn(asyncio.run, get()).result()

    assert "from the spawner" == vthreads.run(root)


@pytest.mark.parametrize("first", ["asyncio", "vthreads"])
def test_the_order_of_imports_does_not_matter(first):
    program = f"""
import {first}
import asyncio, vthreads
async def loop():
    await asyncio.sleep(0.01)
    return asyncio.get_running_loop()
vthreads.patch()
with vthreads.ThreadGroup() as group:
    futures = [group.spawn(asyncio.run, loop()) for _ in range(3)]
print(len({{future.result() for future in futures}}))
vthreads.unpatch()
assert asyncio.events._set_running_loop.__module__ in ("_asyncio", "asyncio.events")
print(asyncio.run(loop()) is not None)
"""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", program], check=False, capture_output=True, text=True, timeout=60
    )
    assert ("3\nTrue\n", "") == (done.stdout, done.stderr)


# --- loops that do not drive the virtual threads


class Watchless(asyncio.SelectorEventLoop):
    """A loop of which no descriptor can be watched, as the one of Windows."""

    def add_reader(self, fd, callback, *args):
        raise NotImplementedError


async def wait_for_a_thread():
    loop = asyncio.get_running_loop()
    done = loop.create_future()
    # It ends only if the loop does not block the carrier.
    vthreads.spawn(lambda: (vthreads.sleep(0.001), loop.call_soon_threadsafe(done.set_result, "set")))
    return await done


def test_a_loop_that_cannot_watch_descriptors_parks_its_thread():
    def root():
        loop = Watchless()
        try:
            return loop.run_until_complete(wait_for_a_thread())
        finally:
            loop.close()

    assert "set" == vthreads.run(root)


class Watching(asyncio.SelectorEventLoop):
    """A loop that records which descriptors it watches for others."""

    def __init__(self):
        super().__init__()
        self.watched = []

    def add_reader(self, fd, callback, *args):
        super().add_reader(fd, callback, *args)
        self.watched.append(fd)

    def remove_reader(self, fd):
        self.watched.remove(fd)
        return super().remove_reader(fd)


def test_a_loop_that_has_driven_the_virtual_threads_can_be_run_by_one_of_them():
    def root():
        loop = Watching()
        try:
            assert "set" == loop.run_until_complete(wait_for_a_thread())
            assert [] == loop.watched
            return vthreads.spawn(loop.run_until_complete, wait_for_a_thread()).result()
        finally:
            loop.close()

    assert "set" == vthreads.run(root)
