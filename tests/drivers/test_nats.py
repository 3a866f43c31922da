"""nats-py, which is written for asyncio: its loop on an OS thread beside virtual threads."""

import asyncio
import uuid

import pytest

nats = pytest.importorskip("nats", reason="nats-py is not installed")

import vthreads  # noqa: E402  a skipped module needs none of it
from vthreads import ThreadGroup  # noqa: E402

pytestmark = [pytest.mark.server("NATS"), pytest.mark.real]

SERVER = "nats://127.0.0.1:4222"


class Client:
    """A client on a private loop, which virtual threads ask for coroutines."""

    def __init__(self):
        self._loop = None
        self._started = vthreads.Event()
        self._over = None

    def serve(self, *servers):
        """Run the loop until `close`; to be offloaded."""
        asyncio.run(self._serve(servers))

    async def _serve(self, servers):
        self._loop, self._over = asyncio.get_running_loop(), asyncio.Event()
        self.connection = await nats.connect(list(servers), allow_reconnect=False)
        self._started.set()
        await self._over.wait()
        await self.connection.close()

    def wait_until_started(self):
        self._started.wait()

    def close(self):
        self._loop.call_soon_threadsafe(self._over.set)

    def ask(self, coroutine):
        """Wait for a coroutine of the loop; cancelled, cancel it."""
        future = asyncio.run_coroutine_threadsafe(coroutine, self._loop)
        try:
            return future.result()
        except BaseException:
            future.cancel()
            raise


def with_client(fn, *servers):
    client = Client()
    with ThreadGroup() as group:
        group.spawn(vthreads.offload, client.serve, *(servers or [SERVER]))
        client.wait_until_started()
        try:
            return fn(client)
        finally:
            client.close()


def test_many_wait_at_once(run):
    subject = f"vthreads.{uuid.uuid4()}"

    def root(client):
        async def listen():
            subscription = await client.connection.subscribe(subject)
            await client.connection.flush()
            ready.release()
            return (await subscription.next_msg(timeout=20)).data

        ready = vthreads.Semaphore(0)
        with ThreadGroup() as group:
            heard = [group.spawn(lambda: client.ask(listen())) for _ in range(50)]
            for _ in range(50):
                ready.acquire()
            client.ask(client.connection.publish(subject, b"hello"))
            return [future.result() for future in heard]

    assert [b"hello"] * 50 == run(lambda: with_client(root))


def test_a_cancelled_request_is_cancelled_on_the_loop(run):
    def root(client):
        cancelled = vthreads.Event()

        async def wait():
            subscription = await client.connection.subscribe(f"vthreads.{uuid.uuid4()}")
            try:
                await subscription.next_msg(timeout=60)
            except asyncio.CancelledError:
                cancelled.set()
                raise

        with vthreads.move_on_after(0.2) as scope:
            client.ask(wait())
        assert scope.cancelled_caught
        with vthreads.fail_after(20):
            cancelled.wait()

    run(lambda: with_client(root))


def test_messages_reach_virtual_threads_by_a_queue(run):
    subject = f"vthreads.{uuid.uuid4()}"

    def root(client):
        messages = vthreads.Queue()

        async def subscribe():
            async def heard(message):
                messages.put(message.data)

            await client.connection.subscribe(subject, cb=heard)
            for number in range(20):
                await client.connection.publish(subject, b"%d" % number)

        client.ask(subscribe())
        return [int(messages.get()) for _ in range(20)]

    assert list(range(20)) == run(lambda: with_client(root))


def test_a_server_that_goes_away_ends_the_request(run, proxy):
    def root():
        with proxy("NATS") as server:
            return with_client(lambda client: cut(client, server), f"nats://127.0.0.1:{server.port}")

    def cut(client, server):
        with ThreadGroup() as group:
            ready = vthreads.Event()

            async def wait():
                subscription = await client.connection.subscribe("vthreads.silence")
                await client.connection.flush()
                ready.set()
                await subscription.next_msg(timeout=20)

            @group.spawn
            def _():
                with pytest.raises(nats.errors.Error):
                    client.ask(wait())

            ready.wait()
            server.cut()

    run(root)
