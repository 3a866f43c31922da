"""Flask and psycopg on `serve.wsgi`."""

import flask  # noqa: F401  # reports the missing package
import psycopg_pool  # noqa: F401  # reports the missing package

from ..web_servers import vthreads


def serve(announce):
    from .flask_site import app

    vthreads(announce, app)
