"""`queue.Queue` between two OS threads."""

from ..queue.os_threads import run

__all__ = ["run"]
