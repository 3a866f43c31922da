"""`asyncio.TaskGroup` and `asyncio.sleep`."""

import asyncio

from . import SECONDS


async def main(size, watch):
    async def sleeps():
        nonlocal done
        await asyncio.sleep(SECONDS)
        done += 1

    done = 0
    with watch():
        async with asyncio.TaskGroup() as group:
            for _ in range(size):
                group.create_task(sleeps())
    return done


def run(size, _, watch):
    return asyncio.run(main(size, watch))
