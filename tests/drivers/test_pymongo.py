"""pymongo against a server of the test with the part of MongoDB's protocol that a client needs.

There is no MongoDB on the machines where this runs. The stand-in knows `hello`, `ping`, `insert`, `find` and
`endSessions`, and answers a `find` in the collection `hang` only once it is let go.
"""

import gc
import random
import socketserver
import struct
import threading

import pytest

pymongo = pytest.importorskip("pymongo", reason="pymongo is not installed")

import bson  # noqa: E402  comes with pymongo
from pymongo.server_api import ServerApi  # noqa: E402

import vthreads  # noqa: E402  a skipped module needs none of it
from vthreads import ThreadGroup  # noqa: E402

pytestmark = pytest.mark.real

OP_MSG = 2013
HELLO = {
    "isWritablePrimary": True,
    "maxBsonObjectSize": 2**24,
    "maxMessageSizeBytes": 2**25,
    "maxWriteBatchSize": 10**5,
}


class Connection(socketserver.StreamRequestHandler):
    def handle(self):
        while head := self.rfile.read(16):
            length, request, _, opcode = struct.unpack("<iiii", head)
            assert OP_MSG == opcode
            answer = b"\0\0\0\0\0" + bson.encode({**self.answer(self.read_command(length - 16)), "ok": 1.0})
            self.wfile.write(struct.pack("<iiii", 16 + len(answer), 0, request, OP_MSG) + answer)

    def read_command(self, length):
        """The sections of one message as one document."""
        message = self.rfile.read(length)
        command, position = {}, 4
        while position < length:
            kind, position = message[position], position + 1
            (size,) = struct.unpack_from("<i", message, position)
            if kind == 0:
                command.update(bson.decode(message[position : position + size]))
            else:
                name, _, documents = message[position + 4 : position + size].partition(b"\0")
                command[name.decode()] = bson.decode_all(documents)
            position += size
        return command

    def answer(self, command):
        name = next(iter(command))
        return getattr(self, name, lambda command: {})(command)

    def hello(self, command):
        return {**HELLO, "minWireVersion": 0, "maxWireVersion": 21}

    def insert(self, command):
        self.server.documents.extend(command["documents"])
        return {"n": len(command["documents"])}

    def find(self, command):
        if command["find"] == "hang":
            with self.server.counting:
                self.server.hanging += 1
            self.server.let_go.wait()
        found = [document for document in self.server.documents if command["filter"].items() <= document.items()]
        return {"cursor": {"id": bson.Int64(0), "ns": "test.numbers", "firstBatch": found}}


class StandIn(socketserver.ThreadingTCPServer):
    """On OS threads, which are joined when it is closed."""

    request_queue_size = 128
    block_on_close = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Connection)
        self.documents = []
        self.counting = threading.Lock()
        self.hanging = 0
        self.let_go = threading.Event()

    @property
    def port(self):
        return self.server_address[1]

    def handle_error(self, *_):
        # A client that was cancelled has gone in the middle.
        pass

    def wait_for_hanging(self, count):
        with vthreads.fail_after(20):
            while self.hanging != count:
                vthreads.sleep(0.01)


@pytest.fixture
def server():
    server = StandIn()
    accepting = threading.Thread(target=server.serve_forever, args=[0.01])
    accepting.start()
    yield server
    server.let_go.set()
    server.shutdown()
    accepting.join()
    server.server_close()


@pytest.fixture
def client(server):
    """Make a client of the server, which is closed afterwards, with its monitors on OS threads."""
    made = []

    def client(size=10, port=None, **options):
        made.append(
            pymongo.MongoClient(
                "127.0.0.1",
                port or server.port,
                directConnection=True,
                server_api=ServerApi("1"),
                maxPoolSize=size,
                retryReads=False,
                serverSelectionTimeoutMS=5000,
                **options,
            )
        )
        return made[-1].test

    yield client
    for one in made:
        one.close()


def test_many_wait_at_once(run, server, client):
    def root():
        database = client(30)
        with ThreadGroup() as group:
            found = [group.spawn(database.hang.find_one, {}) for _ in range(30)]
            server.wait_for_hanging(30)
            server.let_go.set()
        return [future.result() for future in found]

    assert [None] * 30 == run(root)


def test_a_deadline_spoils_no_later_answer(run, server, client):
    def root():
        database = client(1)
        database.numbers.insert_many([{"number": number} for number in range(3)])
        with vthreads.move_on_after(0.2) as scope:
            database.hang.find_one({})
        assert scope.cancelled_caught
        return database.numbers.find_one({"number": 2})["number"]

    assert 2 == run(root)


def test_those_who_find_the_pool_exhausted_park(run, client):
    def root():
        database = client(2)
        database.numbers.insert_many([{"number": number} for number in range(50)])
        return list(vthreads.map(lambda number: database.numbers.find_one({"number": number})["number"], range(50)))

    assert list(range(50)) == run(root)


def test_those_who_find_the_pool_exhausted_time_out(run, server, client):
    def root():
        database = client(1, waitQueueTimeoutMS=100)
        with ThreadGroup() as group:
            group.spawn(database.hang.find_one, {})
            server.wait_for_hanging(1)
            with pytest.raises(pymongo.errors.WaitQueueTimeoutError):
                database.numbers.find_one({})
            server.let_go.set()

    run(root)


def test_a_cancelled_waiter_for_the_pool_loses_nothing(run, server, client):
    def root():
        database = client(1)
        with ThreadGroup() as group:
            group.spawn(database.hang.find_one, {})
            server.wait_for_hanging(1)
            with ThreadGroup() as waiting:
                for _ in range(10):
                    waiting.spawn(database.numbers.find_one, {})
                waiting.cancel()
            server.let_go.set()
        return database.command("ping")["ok"]

    assert 1.0 == run(root)


# pymongo closes a socket whose connect fails only if the error is an OSError, which `Cancelled` is not.
@pytest.mark.filterwarnings("ignore:unclosed <socket:ResourceWarning")
def test_no_place_is_lost_under_random_timeouts(run, server, client):
    def work(database, chance):
        for number in range(10):
            with vthreads.move_on_after(chance.uniform(0, 0.02)):
                assert number == database.numbers.find_one({"number": number})["number"]

    def root():
        database = client(3)
        database.numbers.insert_many([{"number": number} for number in range(10)])
        with ThreadGroup() as group:
            for seed in range(8):
                group.spawn(work, database, random.Random(seed))
        with ThreadGroup() as group:
            for _ in range(3):
                group.spawn(database.hang.find_one, {})
            # As many at once as the pool has places.
            server.wait_for_hanging(3)
            server.let_go.set()

    run(root)
    gc.collect()


def test_a_server_that_goes_away_ends_every_query(run, server, client, proxy):
    def wait(database):
        with pytest.raises(pymongo.errors.AutoReconnect):
            database.hang.find_one({})

    def root():
        with proxy(server.port) as cuttable, ThreadGroup() as group:
            database = client(10, cuttable.port)
            for _ in range(10):
                group.spawn(wait, database)
            server.wait_for_hanging(10)
            cuttable.cut()

    run(root)
