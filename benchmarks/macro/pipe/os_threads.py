"""OS threads."""

from .program import run

__all__ = ["run"]
