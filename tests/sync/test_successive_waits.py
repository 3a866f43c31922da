"""A wait that did not have to park leaves nothing behind that changes the next wait of its thread."""

import socket
import threading
from queue import SimpleQueue

import pytest

import vthreads
from vthreads import ThreadGroup, move_on_after, serve, sleep


def asks_again():
    future = vthreads.spawn(int)
    assert future.result() == future.result()


def joins_again():
    thread = vthreads.spawn(int).thread
    thread.join()
    thread.join()


def is_set():
    event = vthreads.Event()
    event.set()
    event.wait()


def receives():
    channel = vthreads.Channel(1)
    channel.send(1)
    channel.receive()


def hands_over():
    queue = vthreads.Queue()
    queue.put(1)
    queue.get()


def hands_over_simply():
    queue = SimpleQueue()
    queue.put(1)
    queue.get()


WITHOUT_PARK = {
    "Semaphore": lambda: vthreads.Semaphore(1).acquire(),
    "Event": is_set,
    "Lock": lambda: vthreads.Lock().acquire(),
    "RLock": lambda: vthreads.RLock().acquire(),
    "channel": receives,
    "Queue": hands_over,
    "SimpleQueue": hands_over_simply,
    "result": asks_again,
    "join": joins_again,
    "standard Lock": lambda: threading.Lock().acquire(),
    "standard Semaphore": lambda: threading.Semaphore().acquire(),
    "sleep": lambda: sleep(0),
}


@pytest.fixture(params=WITHOUT_PARK)
def first(request):
    return WITHOUT_PARK[request.param]


def test_a_deadline_ends_the_next_wait_inside_a_buffer(first):
    def root():
        ours, theirs = socket.socketpair()
        with ours, theirs, ours.makefile("rb") as stream:
            first()
            with move_on_after(0.01) as scope:
                stream.readline()
        return scope.cancelled_caught

    assert vthreads.run(root)


def test_a_deadline_ends_the_next_wait_of_a_handler(first):
    caught = []

    def handle(connection):
        first()
        with move_on_after(0.01) as scope:
            sleep(60)
        caught.append(scope.cancelled_caught)

    def root():
        servers = vthreads.Queue()
        with ThreadGroup() as group:
            group.spawn(serve.tcp, handle, "127.0.0.1", 0, ready=servers.put)
            server = servers.get()
            with socket.create_connection(server.addresses[0]) as connection:
                connection.recv(1)
            server.stop()

    vthreads.run(root)
    assert [True] == caught
