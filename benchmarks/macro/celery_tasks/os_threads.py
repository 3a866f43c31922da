"""`-P threads`."""

from . import application  # noqa: F401  # raises if a package is missing

POOL = "threads"
ENVIRONMENT: dict[str, str] = {}
