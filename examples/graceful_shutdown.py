"""A TCP server that stops accepting on SIGTERM, finishes current requests, and ends. It sends itself the signal."""

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
            return  # the listener was closed during accept()
        ThreadGroup.current.spawn(answer, connection)


def ask(address):
    with socket.create_connection(address) as connection:
        connection.sendall(b"the request under way")
        sleep(0.05)
        os.kill(os.getpid(), signal.SIGTERM)
        return connection.recv(100).decode()


def main():
    listener = socket.create_server(("127.0.0.1", 0))
    address = listener.getsockname()
    with ThreadGroup("clients") as clients:
        with ThreadGroup("server", on_failure="report") as server:

            def stop(signum, frame):
                print(signal.Signals(signum).name, "came")
                server.shutdown(grace=5)  # returns at once; cancels members that run after 5 seconds
                listener.close()

            signal.signal(signal.SIGTERM, stop)  # only the main thread may set handlers, as always in Python
            server.spawn(accept_all, listener)
            reply = clients.spawn(ask, address)
        print("the server has ended")
    print(reply.result())
    try:
        socket.create_connection(address)
    except ConnectionRefusedError:
        print("a late request is refused")


if __name__ == "__main__":
    main()
