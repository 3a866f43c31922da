"""Two ends of a TLS connection in this process, with the contexts of a private authority."""

from __future__ import annotations

import socket
import ssl

import trustme

import vthreads

authority = trustme.CA()
server_context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
authority.issue_cert("localhost").configure_cert(server_context)
client_context = ssl.create_default_context()
authority.configure_trust(client_context)


def tls_pair():
    """The server's and the client's end over a pair of sockets. A checkpoint."""
    return tls_ends(*socket.socketpair())


def tls_ends(one, two):
    """The same over two connected sockets."""
    return vthreads.gather(
        lambda: server_context.wrap_socket(one, server_side=True),
        lambda: client_context.wrap_socket(two, server_hostname="localhost"),
    )
