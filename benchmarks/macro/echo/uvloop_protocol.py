"""The callbacks of asyncio on uvloop."""

import uvloop

from .asyncio_protocol import accept


def serve(announce):
    uvloop.run(accept(announce))
