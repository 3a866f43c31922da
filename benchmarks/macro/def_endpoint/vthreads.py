"""On a virtual thread, guest of the loop."""

import uvloop

from vthreads.integrations import starlette

from .requests_in_turn import requests


def run(size, operations, watch):
    uninstall = starlette.install()
    try:
        return uvloop.run(requests(operations, watch))
    finally:
        uninstall()
