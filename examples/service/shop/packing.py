"""Background work: virtual threads that pack new orders."""

import logging

import psycopg

from vthreads import Semaphore, sleep, stopping

log = logging.getLogger(__name__)


class Packing:
    """New orders are in the database, so none is forgotten when the process ends."""

    def __init__(self, orders, news, cache):
        self._orders = orders
        self._news = news
        self._cache = cache
        self._bell = Semaphore(0)
        self.packed = 0

    def ring(self, times=1):
        """Wake a worker."""
        self._bell.release(times)

    def work(self):
        """Pack orders until the group of this thread shuts down; the order in hand is finished."""
        while not stopping():
            try:
                found = self._pack_one()
            except psycopg.Error as error:
                log.warning("not packed: %s", error)
                found = False
            if not found:
                # Without the bell, too: an order may come from another process, or from before a failure.
                self._bell.acquire(timeout=1)

    def _pack_one(self):
        with self._orders.next_new() as order:
            if order is None:
                return False
            sleep(0.02)  # the work
        self.packed += 1
        order["state"] = "packed"
        self._cache.add(order)
        self._news.publish("packed", order)
        return True
