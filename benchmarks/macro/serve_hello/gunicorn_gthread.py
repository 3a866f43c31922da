"""gunicorn with a worker of OS threads."""

import gunicorn  # noqa: F401  # reports the missing package

from .. import web_servers


def serve(announce):
    web_servers.gunicorn(announce, "macro.web_applications:wsgi", "gthread", "--threads", "64")
