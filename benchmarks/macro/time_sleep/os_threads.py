"""OS threads."""

from .program import run

AT_MOST = 1_000

__all__ = ["AT_MOST", "run"]
