"""asyncio on uvloop."""

import uvloop

from .asyncio import main


def run(size, operations, watch):
    return uvloop.run(main(size, operations // size, watch))
