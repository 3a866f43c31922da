"""The asynchronous connections of psycopg, a task for each."""

import asyncio

from psycopg import AsyncConnection


async def ask(connection, times):
    answers = 0
    for _ in range(times):
        cursor = await connection.execute("select 1")
        answers += (await cursor.fetchone())[0]
    return answers


async def main(size, times, watch, server):
    connections = [await AsyncConnection.connect(server, autocommit=True) for _ in range(size)]
    with watch():
        answers = await asyncio.gather(*(ask(connection, times) for connection in connections))
    for connection in connections:
        await connection.close()
    return sum(answers)


def run(size, operations, watch, server):
    return asyncio.run(main(size, operations // size, watch, server))
