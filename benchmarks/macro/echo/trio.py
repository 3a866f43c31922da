"""A task for each connection."""

from functools import partial

import trio


async def echo(stream):
    async for data in stream:
        await stream.send_all(data)


async def accept(announce):
    async with trio.open_nursery() as nursery:
        listen = partial(trio.serve_tcp, echo, 0, host="127.0.0.1", backlog=4_096)
        [listener] = await nursery.start(listen)
        announce(listener.socket.getsockname()[1])


def serve(announce):
    trio.run(accept, announce)
