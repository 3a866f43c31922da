"""A chat server over TCP with three guests: one virtual thread per connection, with blocking reads and writes."""

import socket

from vthreads import Mutex, ThreadGroup

present = Mutex({})


def say(line):
    with present.lock() as connections:
        for connection in connections.values():
            connection.sendall(f"{line}\n".encode())


def converse(connection):
    with connection, connection.makefile() as lines:
        name = lines.readline().strip()
        with present.lock() as connections:
            connections[name] = connection
        try:
            say(f"{name} has come")
            for line in lines:
                say(f"{name}: {line.strip()}")
        finally:
            with present.lock() as connections:
                del connections[name]


def serve(listener):
    while True:
        ThreadGroup.current.spawn(converse, listener.accept()[0])


def be_guest(connection, lines, cue, answer):
    heard = []
    with connection, lines:
        for line in lines:
            heard.append(line.strip())
            if heard[-1] == cue:
                connection.sendall(f"{answer}\n".encode())
            if heard[-1].endswith("good night"):
                break
    return heard


guests = {"Ann": ("Cleo has come", "hello"), "Bob": ("Ann: hello", "hi"), "Cleo": ("Bob: hi", "good night")}
with socket.create_server(("127.0.0.1", 0)) as listener, ThreadGroup("server", on_failure="report") as server:
    server.spawn(serve, listener)
    with ThreadGroup("guests") as group:
        talks = {}
        for name, (cue, answer) in guests.items():
            connection = socket.create_connection(listener.getsockname())
            connection.sendall(f"{name}\n".encode())
            lines = connection.makefile()
            lines.readline()  # now the server has registered the guest
            talks[name] = group.spawn(be_guest, connection, lines, cue, answer)
    server.cancel("the guests have gone")
for name, talk in talks.items():
    print(f"{name} heard {' | '.join(talk.result())}")
