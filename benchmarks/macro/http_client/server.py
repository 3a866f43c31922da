"""Answers every request after 20 ms, with 4 KiB."""

import asyncio

LATENCY = 0.020
BODY = b"x" * 4_096
ANSWER = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: %d\r\n\r\n%s" % (len(BODY), BODY)


class Answers(asyncio.Protocol):
    def connection_made(self, transport):
        self.transport = transport
        self.unfinished = b""

    def data_received(self, data):
        *requests, self.unfinished = (self.unfinished + data).split(b"\r\n\r\n")
        for _ in requests:
            asyncio.get_running_loop().call_later(LATENCY, self.transport.write, ANSWER)


async def accept(announce):
    server = await asyncio.get_running_loop().create_server(Answers, "127.0.0.1", 0, backlog=4_096)
    announce(server.sockets[0].getsockname()[1])
    await server.serve_forever()


def serve(announce):
    asyncio.run(accept(announce))
