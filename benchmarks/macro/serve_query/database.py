"""What both applications ask the database."""

from ..postgresql import SERVER

__all__ = ["POOL", "QUERY", "SERVER"]

POOL = 16
QUERY = "select 7 as id, 'item 7' as name, 1234 as price"
