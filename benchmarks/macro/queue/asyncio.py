"""`asyncio.Queue`."""

import asyncio


async def returns(there, back, times):
    for _ in range(times):
        await back.put(await there.get())


async def asks(there, back, times):
    trips = 0
    for _ in range(times):
        await there.put(1)
        trips += await back.get()
    return trips


async def main(pairs, times, watch):
    with watch():
        async with asyncio.TaskGroup() as group:
            tasks = []
            for _ in range(pairs):
                queues = asyncio.Queue(1), asyncio.Queue(1)
                group.create_task(returns(*queues, times))
                tasks.append(group.create_task(asks(*queues, times)))
    return sum(task.result() for task in tasks)


def run(size, operations, watch):
    return asyncio.run(main(size, operations // size, watch))
