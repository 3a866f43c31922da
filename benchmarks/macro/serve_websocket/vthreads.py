"""`serve.websocket` in a handler of `serve.wsgi`."""

import websockets  # noqa: F401  # reports the missing package

from ..web_servers import vthreads


def echo(environ, start_response):
    from vthreads.serve import websocket

    connection = websocket(environ)
    for message in connection:
        connection.send(message)
    return []


def serve(announce):
    vthreads(announce, echo)
