"""`-P gevent`."""

import gevent  # noqa: F401  # raises if a package is missing

from . import application  # noqa: F401  # likewise

POOL = "gevent"
ENVIRONMENT: dict[str, str] = {}
