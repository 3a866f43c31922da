"""A nursery."""

import trio


async def main(size, watch):
    async def nothing():
        nonlocal done
        done += 1

    done = 0
    with watch():
        async with trio.open_nursery() as nursery:
            for _ in range(size):
                nursery.start_soon(nothing)
    return done


def run(size, _, watch):
    return trio.run(main, size, watch)
