"""asyncpg, a task for each connection."""

import asyncio

import asyncpg


async def ask(connection, times):
    return sum([await connection.fetchval("select 1") for _ in range(times)])


async def main(size, times, watch, server):
    connections = [await asyncpg.connect(server) for _ in range(size)]
    with watch():
        answers = await asyncio.gather(*(ask(connection, times) for connection in connections))
    for connection in connections:
        await connection.close()
    return sum(answers)


def run(size, operations, watch, server):
    return asyncio.run(main(size, operations // size, watch, server))
