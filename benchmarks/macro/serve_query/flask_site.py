"""The application with Flask and psycopg's pool."""

import flask
from psycopg.rows import dict_row
from psycopg_pool import ConnectionPool

from .database import POOL, QUERY, SERVER

app = flask.Flask(__name__)
options = {"autocommit": True, "row_factory": dict_row}
pool = ConnectionPool(SERVER, min_size=POOL, max_size=POOL, kwargs=options, open=False)


@app.get("/")
def item():
    """Return one item."""
    pool.open()
    with pool.connection() as connection:
        return connection.execute(QUERY).fetchone()
