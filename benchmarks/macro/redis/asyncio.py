"""redis.asyncio, a task for each connection."""

import asyncio

from redis.asyncio import Redis

from . import KEY, VALUE


async def ask(client, times):
    return sum([await client.get(KEY) == VALUE for _ in range(times)])


async def main(size, times, watch, server):
    clients = [Redis.from_url(server, single_connection_client=True) for _ in range(size)]
    for client in clients:
        await client.set(KEY, VALUE)
    with watch():
        answers = await asyncio.gather(*(ask(client, times) for client in clients))
    await clients[0].delete(KEY)
    for client in clients:
        await client.aclose()
    return sum(answers)


def run(size, operations, watch, server):
    return asyncio.run(main(size, operations // size, watch, server))
