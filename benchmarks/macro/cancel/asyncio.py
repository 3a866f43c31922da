"""`Task.cancel()` of each; a `TaskGroup` cannot be cancelled as a whole."""

import asyncio


async def main(size, watch):
    async def parks():
        nonlocal done
        try:
            await asyncio.sleep(3600)
        finally:
            done += 1

    done = 0
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(parks()) for _ in range(size)]
        await asyncio.sleep(0)
        with watch():
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)
    return done


def run(size, _, watch):
    return asyncio.run(main(size, watch))
