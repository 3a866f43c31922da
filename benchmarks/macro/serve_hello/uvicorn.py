"""uvicorn with uvloop and httptools, ASGI."""

import httptools  # noqa: F401  # reports the missing package
import uvicorn  # noqa: F401  # reports the missing package
import uvloop  # noqa: F401  # reports the missing package

from .. import web_servers


def serve(announce):
    web_servers.uvicorn(announce, "macro.web_applications:asgi")
