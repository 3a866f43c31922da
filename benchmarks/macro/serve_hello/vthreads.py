"""`serve.wsgi` with its default limits."""

from ..web_applications import wsgi
from ..web_servers import vthreads


def serve(announce):
    vthreads(announce, wsgi)
