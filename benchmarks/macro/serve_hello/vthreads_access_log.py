"""The same with an access log: JSON lines in a file."""

import tempfile

from ..web_applications import wsgi
from ..web_servers import vthreads


def serve(announce):
    with tempfile.TemporaryFile("w") as log:
        vthreads(announce, wsgi, access_log=log)
