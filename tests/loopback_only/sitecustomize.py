"""Imported by every interpreter that has this directory on PYTHONPATH."""

import loopback_guard

loopback_guard.install()
