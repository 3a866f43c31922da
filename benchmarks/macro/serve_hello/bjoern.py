"""bjoern, a server in C."""

import bjoern

from ..web_applications import wsgi
from ..web_servers import ACCEPTED_AT_ONCE


def serve(announce):
    listener = bjoern.listen(wsgi, "127.0.0.1", 0, reuse_port=False, listen_backlog=ACCEPTED_AT_ONCE)
    announce(listener.getsockname()[1])
    bjoern.server_run(listener, wsgi)
