"""The application of all peers, and its requests, one after another. Each is a call of the application: no server."""

import asyncio

from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Route


def blocking(request):
    return PlainTextResponse("hello")


async def coroutine(request):
    return PlainTextResponse("hello")


ENDPOINTS = {"async def": coroutine, "def": blocking}


async def requests(operations, watch):
    """Make the requests to both endpoints; return how many each has answered.

    The first request to each is not measured: it starts a runtime or an OS thread, once for a process.
    """
    for figure, endpoint in ENDPOINTS.items():
        application = Starlette(routes=[Route("/", endpoint)])
        if not await is_answered(application):
            return 0
        with watch(figure):
            answered = sum([await is_answered(application) for _ in range(operations)])
        if answered != operations:
            return answered
    return operations


async def is_answered(application):
    scope = {
        "type": "http",
        "method": "GET",
        "path": "/",
        "raw_path": b"/",
        "query_string": b"",
        "headers": [],
    }
    has_left, messages = asyncio.Event(), [{"type": "http.request", "body": b"", "more_body": False}]
    sent = []

    async def receive():
        if not messages:
            await has_left.wait()
            return {"type": "http.disconnect"}
        return messages.pop()

    async def send(message):
        sent.append(message)

    await application(scope, receive, send)
    has_left.set()
    return sent[0]["status"] == 200 and sent[-1]["body"] == b"hello"
