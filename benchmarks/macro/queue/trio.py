"""Memory channels."""

import trio


async def main(pairs, times, watch):
    async def returns(there, back):
        for _ in range(times):
            await back.send(await there.receive())

    async def asks(there, back):
        trips = 0
        for _ in range(times):
            await there.send(1)
            trips += await back.receive()
        done.append(trips)

    done = []
    with watch():
        async with trio.open_nursery() as nursery:
            for _ in range(pairs):
                send_there, receive_there = trio.open_memory_channel(1)
                send_back, receive_back = trio.open_memory_channel(1)
                nursery.start_soon(returns, receive_there, send_back)
                nursery.start_soon(asks, send_there, receive_back)
    return sum(done)


def run(size, operations, watch):
    return trio.run(main, size, operations // size, watch)
