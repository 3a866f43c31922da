"""On an OS thread of the pool that Starlette uses by default."""

import uvloop

from .requests_in_turn import requests


def run(size, operations, watch):
    return uvloop.run(requests(operations, watch))
