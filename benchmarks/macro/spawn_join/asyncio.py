"""`asyncio.TaskGroup`."""

import asyncio


async def main(size, watch):
    async def nothing():
        nonlocal done
        done += 1

    done = 0
    with watch():
        async with asyncio.TaskGroup() as group:
            for _ in range(size):
                group.create_task(nothing())
    return done


def run(size, _, watch):
    return asyncio.run(main(size, watch))
