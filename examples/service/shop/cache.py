"""Packed orders in Redis. They never change, so an entry is never wrong."""

import json
import logging

from redis import RedisError

log = logging.getLogger(__name__)
SECONDS = 600


class Cache:
    """Without Redis it finds nothing, and the service goes on."""

    def __init__(self, redis, prefix):
        self._redis = redis
        self._prefix = prefix

    def find(self, number):
        try:
            text = self._redis.get(self._key(number))
        except RedisError as error:
            log.warning("not read: %s", error)
            return None
        return json.loads(text) if text else None

    def add(self, order):
        try:
            self._redis.set(self._key(order["id"]), json.dumps(order), ex=SECONDS)
        except RedisError as error:
            log.warning("not written: %s", error)

    def _key(self, number):
        return f"{self._prefix}:order:{number}"
