"""A TCP server that on SIGTERM accepts no more, answers what it has begun, and ends. It sends itself the signal."""

import os
import signal
import socket

from vthreads import ThreadGroup, sleep, stopping


def answer(connection):
    with connection:
        request = connection.recv(100).decode()
        for _ in range(1_000):
            if stopping():
                break
            sleep(0.01)  # the work
        connection.sendall(f"{request} was answered {'early' if stopping() else 'in full'}".encode())


def accept_all(listener):
    while not stopping():
        try:
            connection, _ = listener.accept()
        except OSError:
            return  # the listener was closed while this waited in it
        ThreadGroup.current.spawn(answer, connection)


def serve(listener):
    with ThreadGroup("server") as server:

        def stop(signum, frame):
            print(signal.Signals(signum).name, "came")
            server.shutdown(grace=5)  # returns at once; whoever is not done in 5 seconds is cancelled
            listener.close()

        signal.signal(signal.SIGTERM, stop)
        server.spawn(accept_all, listener)
    print("the server has ended")


def main():
    listener = socket.create_server(("127.0.0.1", 0))
    address = listener.getsockname()
    with ThreadGroup() as group:
        group.spawn(serve, listener)
        with socket.create_connection(address) as early:
            early.sendall(b"the request under way")
            sleep(0.05)
            os.kill(os.getpid(), signal.SIGTERM)
            reply = early.recv(100).decode()
    print(reply)
    try:
        socket.create_connection(address)
    except ConnectionRefusedError:
        print("a late request is refused")


if __name__ == "__main__":
    main()
