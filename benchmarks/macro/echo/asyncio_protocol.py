"""Callbacks instead of streams: no task, no buffer, no flow control."""

import asyncio


class Echo(asyncio.Protocol):
    def connection_made(self, transport):
        self.transport = transport

    def data_received(self, data):
        self.transport.write(data)


async def accept(announce):
    server = await asyncio.get_running_loop().create_server(Echo, "127.0.0.1", 0, backlog=4_096)
    announce(server.sockets[0].getsockname()[1])
    await server.serve_forever()


def serve(announce):
    asyncio.run(accept(announce))
