"""aiohttp: with a new connection per URL beside requests, with a connection pool beside urllib3."""

import asyncio

import aiohttp


async def main(size, urls, url, watch):
    async def get():
        async with session.get(url) as response:
            lengths.append(len(await response.read()))

    lengths = []
    for figure, alone in ("requests", True), ("urllib3", False):
        connector = aiohttp.TCPConnector(limit=size, force_close=alone)
        with watch(figure):
            async with aiohttp.ClientSession(connector=connector) as session, asyncio.TaskGroup() as group:
                for _ in range(urls):
                    group.create_task(get())
    return lengths.count(4_096) // 2


def run(size, operations, watch, url):
    return asyncio.run(main(size, operations, url, watch))
