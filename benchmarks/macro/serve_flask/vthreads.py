"""`serve.wsgi` with its default limits."""

import flask  # noqa: F401  # reports the missing package

from ..web_servers import vthreads


def serve(announce):
    from .site import app

    vthreads(announce, app)
