"""`CancelScope.cancel()` of the nursery."""

from contextlib import ExitStack

import trio
import trio.testing


async def main(size, watch):
    async def parks():
        nonlocal done
        try:
            await trio.sleep(3600)
        finally:
            done += 1

    done = 0
    with ExitStack() as until_all_have_ended:
        async with trio.open_nursery() as nursery:
            for _ in range(size):
                nursery.start_soon(parks)
            await trio.testing.wait_all_tasks_blocked()
            until_all_have_ended.enter_context(watch())
            nursery.cancel_scope.cancel()
    return done


def run(size, _, watch):
    return trio.run(main, size, watch)
