"""gRPC: its core blocks in C, so a program waits for futures, or offloads calls with a cancel function."""

import os
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

grpc = pytest.importorskip("grpc", reason="grpcio is not installed")

import vthreads  # noqa: E402  a skipped module needs none of it
from vthreads import ThreadGroup  # noqa: E402

pytestmark = pytest.mark.real


class Service(grpc.GenericRpcHandler):
    """`/echo` answers at once, `/hang` once it is let go or cancelled."""

    def __init__(self):
        self.changed = threading.Condition()
        self.hanging = self.cancelled = 0
        self.let_go = False

    def service(self, details):
        handle = {"/test/echo": lambda request, _: request, "/test/hang": self._hang}[details.method]
        return grpc.unary_unary_rpc_method_handler(handle)

    def _hang(self, request, context):
        with self.changed:
            self.hanging += 1
            self.changed.notify_all()
            context.add_callback(self._ended)
            self.changed.wait_for(lambda: self.let_go or not context.is_active(), timeout=20)
        return request

    def _ended(self):
        with self.changed:
            self.cancelled += 1
            self.changed.notify_all()

    def wait_until(self, predicate):
        with self.changed:
            assert self.changed.wait_for(predicate, timeout=20)

    def finish(self):
        with self.changed:
            self.let_go = True
            self.changed.notify_all()


@pytest.fixture(autouse=True, scope="module")
def core():
    """The core keeps descriptors as long as there is a channel; one for all tests."""
    with grpc.insecure_channel("127.0.0.1:1") as channel:
        grpc.channel_ready_future(channel).cancel()
        yield


@pytest.fixture
def service():
    return Service()


@pytest.fixture
def call(service):
    """Make a callable for a method of the service, on a channel that is closed afterwards."""
    before = set(os.listdir("/proc/self/fd"))
    pool = ThreadPoolExecutor(40)
    server = grpc.server(pool, handlers=[service])
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        yield lambda method: channel.unary_unary(f"/test/{method}")
    service.finish()
    server.stop(0).wait()
    pool.shutdown()
    # The core closes its sockets in private OS threads, which nobody can wait for.
    patience = time.monotonic() + 20
    while set(os.listdir("/proc/self/fd")) - before and time.monotonic() < patience:
        time.sleep(0.01)


def test_many_futures_are_waited_for_at_once(run, service, call):
    def root():
        hang = call("hang")
        with ThreadGroup() as group:
            answers = [group.spawn(hang.future(b"%d" % number).result) for number in range(30)]
            service.wait_until(lambda: service.hanging == 30)
            service.finish()
        return [int(answer.result()) for answer in answers]

    assert list(range(30)) == run(root)


def test_a_cancelled_wait_leaves_the_call_to_be_cancelled(run, service, call):
    def root():
        future = call("hang").future(b"")
        with vthreads.move_on_after(0.2) as scope:
            future.result()
        assert scope.cancelled_caught
        assert not future.done()
        future.cancel()
        service.wait_until(lambda: service.cancelled == 1)

    run(root)


def test_a_blocking_call_is_offloaded(run, call):
    def root():
        echo = call("echo")
        return list(vthreads.map(lambda number: int(vthreads.offload(echo, b"%d" % number)), range(50)))

    assert list(range(50)) == run(root)


def test_an_offloaded_call_is_cancelled_with_its_thread(run, service, call):
    def root():
        future = call("hang").future(b"")
        with vthreads.move_on_after(0.2) as scope:
            vthreads.offload(future.result, cancel=future.cancel)
        assert scope.cancelled_caught
        service.wait_until(lambda: service.cancelled == 1)

    run(root)


def test_call_backs_come_from_another_os_thread(run, call):
    def root():
        answered = vthreads.Queue()
        for number in range(20):
            call("echo").future(b"%d" % number).add_done_callback(lambda future: answered.put(int(future.result())))
        return sorted(answered.get() for _ in range(20))

    assert list(range(20)) == run(root)


def test_a_server_that_is_not_there(run):
    def root():
        with grpc.insecure_channel("127.0.0.1:1") as channel, pytest.raises(grpc.RpcError) as raised:
            channel.unary_unary("/test/echo").future(b"").result()
        return raised.value.code()

    assert grpc.StatusCode.UNAVAILABLE is run(root)
