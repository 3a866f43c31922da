"""asyncio on uvloop."""

import uvloop

from .asyncio import main


def run(size, _, watch):
    return uvloop.run(main(size, watch))
