"""Streams, a task for each connection."""

import asyncio


async def echo(reader, writer):
    while data := await reader.read(65_536):
        writer.write(data)
        await writer.drain()
    writer.close()


async def accept(announce):
    server = await asyncio.start_server(echo, "127.0.0.1", 0, backlog=4_096)
    announce(server.sockets[0].getsockname()[1])
    await server.serve_forever()


def serve(announce):
    asyncio.run(accept(announce))
