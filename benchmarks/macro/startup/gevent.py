"""`gevent.monkey.patch_all`, and one greenlet."""

import gevent  # noqa: F401  # the process is started only if it is installed

PROGRAM = """
from gevent import monkey
monkey.patch_all()
import gevent
gevent.spawn(done.append, 1).join()
"""
