"""Orders in PostgreSQL."""

from contextlib import contextmanager

import psycopg
from psycopg.rows import dict_row
from psycopg_pool import ConnectionPool

SCHEMA = """
select pg_advisory_xact_lock(7063);  -- processes that start together create it one after the other
create table if not exists shop_order (
    id bigint generated always as identity primary key,
    item text not null,
    state text not null default 'new'
);
create index if not exists shop_order_new on shop_order (id) where state = 'new';
"""


class Orders:
    """Each call borrows a connection; while all are in use, only the virtual thread that calls waits."""

    def __init__(self, database, connections=16):
        with psycopg.connect(database, connect_timeout=5) as connection:
            connection.execute(SCHEMA)
        options = {"row_factory": dict_row}
        self._pool = ConnectionPool(database, kwargs=options, min_size=2, max_size=connections, timeout=3, open=True)

    def close(self):
        self._pool.close()

    def add(self, item):
        with self._pool.connection() as connection:
            return connection.execute("insert into shop_order (item) values (%s) returning *", [item]).fetchone()

    def find(self, number):
        with self._pool.connection() as connection:
            return connection.execute("select * from shop_order where id = %s", [number]).fetchone()

    def count(self):
        with self._pool.connection() as connection:
            rows = connection.execute("select state, count(*) from shop_order group by state").fetchall()
        return {row["state"]: row["count"] for row in rows}

    @contextmanager
    def next_new(self):
        """Lock the oldest new order; None if there is none. At the end of the block it is packed.

        If the block fails or the process dies, the transaction is undone, and the order is new again.
        """
        with self._pool.connection() as connection:
            order = connection.execute(
                "select * from shop_order where state = 'new' order by id limit 1 for update skip locked"
            ).fetchone()
            yield order
            if order is not None:
                connection.execute("update shop_order set state = 'packed' where id = %s", [order["id"]])
