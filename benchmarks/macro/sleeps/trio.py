"""A nursery and `trio.sleep`."""

import trio

from . import FIGURES, SECONDS


async def main(size, watch):
    async def sleeps():
        nonlocal done
        await trio.sleep(SECONDS)
        done += 1

    done = 0
    for figure in FIGURES:
        with watch(figure):
            async with trio.open_nursery() as nursery:
                for _ in range(size):
                    nursery.start_soon(sleeps)
    return done // len(FIGURES)


def run(size, _, watch):
    return trio.run(main, size, watch)
