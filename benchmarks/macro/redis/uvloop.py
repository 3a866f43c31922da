"""redis.asyncio on uvloop."""

import uvloop

from .asyncio import main


def run(size, operations, watch, server):
    return uvloop.run(main(size, operations // size, watch, server))
