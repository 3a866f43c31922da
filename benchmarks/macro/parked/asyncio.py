"""`asyncio.TaskGroup` and `asyncio.Event`."""

import asyncio
from contextlib import ExitStack


async def main(size, watch):
    async def parks():
        nonlocal done
        await event.wait()
        done += 1

    done, event = 0, asyncio.Event()
    with ExitStack() as until_all_have_ended:
        async with asyncio.TaskGroup() as group:
            with watch("make"):
                for _ in range(size):
                    group.create_task(parks())
                await asyncio.sleep(0)
            watch.weigh()
            until_all_have_ended.enter_context(watch("end"))
            event.set()
    return done


def run(size, _, watch):
    return asyncio.run(main(size, watch))
