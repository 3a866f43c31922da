"""The applications that the servers of `serve_hello` serve, one for each interface."""

BODY = b"Hello, world!\n"
LENGTH = str(len(BODY))


def wsgi(environ, start_response):
    """Answer each request by the same text."""
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", LENGTH)])
    return [BODY]


HEAD = {
    "type": "http.response.start",
    "status": 200,
    "headers": [(b"content-type", b"text/plain"), (b"content-length", LENGTH.encode())],
}


async def asgi(scope, receive, send):
    """Answer each request by the same text."""
    await send(HEAD)
    await send({"type": "http.response.body", "body": BODY})
