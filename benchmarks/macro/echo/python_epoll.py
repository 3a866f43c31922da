"""A bare loop of Python code on epoll: each request is one `recv` and one `send`, which no thread waits for."""

import select
import socket


def serve(announce):
    with socket.create_server(("127.0.0.1", 0), backlog=4_096) as listener, select.epoll() as poller:
        announce(listener.getsockname()[1])
        poller.register(listener, select.EPOLLIN)
        connections = {}
        while True:
            for fd, _ in poller.poll():
                connection = connections.get(fd)
                if connection is None:
                    connection = listener.accept()[0]
                    connections[connection.fileno()] = connection
                    poller.register(connection, select.EPOLLIN)
                elif data := connection.recv(65_536):
                    connection.send(data)
                else:
                    del connections[fd]
                    connection.close()
