"""`asyncio.TaskGroup` and `asyncio.sleep`."""

import asyncio

from . import FIGURES, SECONDS


async def main(size, watch):
    async def sleeps():
        nonlocal done
        await asyncio.sleep(SECONDS)
        done += 1

    done = 0
    for figure in FIGURES:
        with watch(figure):
            async with asyncio.TaskGroup() as group:
                for _ in range(size):
                    group.create_task(sleeps())
    return done // len(FIGURES)


def run(size, _, watch):
    return asyncio.run(main(size, watch))
