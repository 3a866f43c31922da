"""`greenback.await_`, in a coroutine of uvloop."""

import greenback
import uvloop

from .program import calls


def run(size, operations, watch, *more):
    async def main():
        await greenback.ensure_portal()
        return calls(greenback.await_, operations, watch, *more)

    return uvloop.run(main())
