"""Blocking style: a virtual thread for each connection, with the standard library's sockets."""

import socket

import vthreads
from vthreads import ThreadGroup


def echo(connection):
    with connection:
        while data := connection.recv(65_536):
            connection.sendall(data)


def accept(announce):
    with socket.create_server(("127.0.0.1", 0), backlog=4_096) as listener, ThreadGroup() as group:
        announce(listener.getsockname()[1])
        while True:
            group.spawn(echo, listener.accept()[0])


def serve(announce):
    vthreads.run(accept, announce)
