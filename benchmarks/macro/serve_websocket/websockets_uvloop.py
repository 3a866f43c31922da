"""The server of `websockets` on asyncio with uvloop, without compression, as the other one."""

import uvloop
from websockets.asyncio.server import serve as serve_websockets


async def echo(connection):
    async for message in connection:
        await connection.send(message)


async def main(announce):
    async with serve_websockets(echo, "127.0.0.1", 0, compression=None, backlog=2048) as server:
        announce(next(iter(server.sockets)).getsockname()[1])
        await server.serve_forever()


def serve(announce):
    uvloop.run(main(announce))
