"""The streams of asyncio on uvloop."""

import uvloop

from .asyncio import accept


def serve(announce):
    uvloop.run(accept(announce))
