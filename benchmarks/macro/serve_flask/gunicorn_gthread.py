"""gunicorn with a worker of OS threads."""

import flask  # noqa: F401  # reports the missing package
import gunicorn  # noqa: F401  # reports the missing package

from .. import web_servers


def serve(announce):
    web_servers.gunicorn(announce, "macro.serve_flask.site:app", "gthread", "--threads", "64")
