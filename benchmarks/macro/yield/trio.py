"""`trio.lowlevel.checkpoint()`."""

import trio


async def main(size, rounds, watch):
    async def turns(number):
        while going_on:
            await trio.lowlevel.checkpoint()
            counts[number] += 1

    going_on = True
    counts = [0] * (size - 1)
    async with trio.open_nursery() as nursery:
        for number in range(size - 1):
            nursery.start_soon(turns, number)
        await trio.lowlevel.checkpoint()
        with watch():
            for _ in range(rounds):
                await trio.lowlevel.checkpoint()
        going_on = False
    return rounds + sum(min(count, rounds) for count in counts)


def run(size, operations, watch):
    return trio.run(main, size, operations // size, watch)
