"""The asynchronous connections of psycopg on uvloop."""

import uvloop

from .psycopg_asyncio import main


def run(size, operations, watch, server):
    return uvloop.run(main(size, operations // size, watch, server))
