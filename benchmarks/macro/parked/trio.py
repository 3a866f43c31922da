"""A nursery and `trio.Event`."""

from contextlib import ExitStack

import trio
import trio.testing


async def main(size, watch):
    async def parks():
        nonlocal done
        await event.wait()
        done += 1

    done, event = 0, trio.Event()
    with ExitStack() as until_all_have_ended:
        async with trio.open_nursery() as nursery:
            with watch("make"):
                for _ in range(size):
                    nursery.start_soon(parks)
                await trio.testing.wait_all_tasks_blocked()
            watch.weigh()
            until_all_have_ended.enter_context(watch("end"))
            event.set()
    return done


def run(size, _, watch):
    return trio.run(main, size, watch)
