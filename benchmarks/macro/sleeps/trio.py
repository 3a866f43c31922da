"""A nursery and `trio.sleep`."""

import trio

from . import SECONDS


async def main(size, watch):
    async def sleeps():
        nonlocal done
        await trio.sleep(SECONDS)
        done += 1

    done = 0
    with watch():
        async with trio.open_nursery() as nursery:
            for _ in range(size):
                nursery.start_soon(sleeps)
    return done


def run(size, _, watch):
    return trio.run(main, size, watch)
