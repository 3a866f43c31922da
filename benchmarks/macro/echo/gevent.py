"""A greenlet for each connection."""

from gevent.server import StreamServer


def echo(connection, _):
    while data := connection.recv(65_536):
        connection.sendall(data)
    connection.close()


def serve(announce):
    server = StreamServer(("127.0.0.1", 0), echo, backlog=4_096)
    server.start()
    announce(server.server_port)
    server.serve_forever()
