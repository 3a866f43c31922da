"""granian, ASGI."""

import granian  # noqa: F401  # reports the missing package

from .. import web_servers


def serve(announce):
    web_servers.granian(announce, "macro.web_applications:asgi", "asgi")
