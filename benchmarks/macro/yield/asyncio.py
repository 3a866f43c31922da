"""`asyncio.sleep(0)`."""

import asyncio


async def main(size, rounds, watch):
    async def turns():
        count = 0
        while going_on:
            await asyncio.sleep(0)
            count += 1
        return count

    going_on = True
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(turns()) for _ in range(size - 1)]
        await asyncio.sleep(0)
        with watch():
            for _ in range(rounds):
                await asyncio.sleep(0)
        going_on = False
    return rounds + sum(min(task.result(), rounds) for task in tasks)


def run(size, operations, watch):
    return asyncio.run(main(size, operations // size, watch))
