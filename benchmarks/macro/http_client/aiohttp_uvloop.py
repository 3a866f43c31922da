"""aiohttp on uvloop."""

import uvloop

from .aiohttp import main


def run(size, operations, watch, url):
    return uvloop.run(main(size, operations, url, watch))
