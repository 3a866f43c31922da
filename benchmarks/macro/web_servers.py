"""Start the server of a peer for an application; the settings of each server are here.

A server that is a command replaces this process. It listens a moment after the port is announced: what measures it
connects again until then. Each server uses one worker process, and writes no access log.
"""

import os
import socket
import sys

ACCEPTED_AT_ONCE = 2048


def free_port():
    """Return a port that nothing listens on."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return listener.getsockname()[1]


def become(announce, module, *arguments):
    """Replace this process by the command `python -m module`, in whose arguments {port} is a free port."""
    port = free_port()
    announce(port)
    filled = [argument.format(port=port) for argument in arguments]
    os.execv(sys.executable, [sys.executable, "-P", "-m", module, *filled])


def gunicorn(announce, application, kind, *arguments):
    """Serve a WSGI application by gunicorn, with workers of one kind."""
    options = "--bind 127.0.0.1:{port} --workers 1 --log-level error --keep-alive 75 --worker-connections 10000"
    become(announce, "gunicorn", *options.split(), "--worker-class", kind, *arguments, application)


def uvicorn(announce, application):
    """Serve an ASGI application by uvicorn."""
    options = "--port {port} --loop uvloop --http httptools --no-access-log --log-level error --backlog 2048"
    become(announce, "uvicorn", *options.split(), "--timeout-keep-alive", "75", application)


def granian(announce, application, interface):
    """Serve an application by granian: one worker with one thread of its runtime."""
    options = "--port {port} --workers 1 --runtime-threads 1 --no-ws --log-level error --backlog 2048 --loop uvloop"
    become(announce, "granian", *options.split(), "--interface", interface, application)


def vthreads(announce, application, **options):
    """Serve a WSGI application by vthreads, with the default limits."""
    from vthreads import serve

    def ready(server):
        announce(server.addresses[0][1])

    serve.wsgi(application, "127.0.0.1", 0, ready=ready, **options)
