"""gunicorn with a worker of gevent."""

import flask  # noqa: F401  # reports the missing package
import gevent  # noqa: F401  # reports the missing package
import gunicorn  # noqa: F401  # reports the missing package

from .. import web_servers


def serve(announce):
    web_servers.gunicorn(announce, "macro.serve_flask.site:app", "gevent")
