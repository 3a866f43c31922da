"""Events of orders, sent to every WebSocket of every process: Redis passes them on."""

import json
import logging
from contextlib import suppress

from redis import RedisError

from vthreads import Full, Queue, ThreadGroup, serve, sleep

log = logging.getLogger(__name__)


class News:
    """The visitors of this process, each with a queue and the group that serves it."""

    def __init__(self, redis, prefix):
        self._redis = redis
        self._channel = f"{prefix}:news"
        self._visitors = {}

    def publish(self, event, order):
        try:
            self._redis.publish(self._channel, json.dumps({"event": event, **order}))
        except RedisError as error:
            log.warning("not published: %s", error)

    def listen(self):
        """Pass on what is published, until cancelled."""
        while True:
            try:
                with self._redis.pubsub(ignore_subscribe_messages=True) as subscription:
                    subscription.subscribe(self._channel)
                    for message in subscription.listen():
                        self._pass_on(message["data"])
            except RedisError as error:
                log.warning("not listening: %s", error)
                sleep(1)

    def _pass_on(self, text):
        for queue, group in list(self._visitors.items()):
            try:
                queue.put_nowait(text)
            except Full:
                group.cancel("the visitor reads too slowly")

    def follow(self, socket):
        """Send the news to a WebSocket until it closes."""
        queue = Queue(maxsize=100)
        with ThreadGroup("visitor") as group:
            self._visitors[queue] = group
            try:
                group.spawn(self._send, queue, socket)
                for _ in socket:
                    pass  # a visitor has nothing to say; the loop answers pings and ends with the WebSocket
            finally:
                del self._visitors[queue]
                group.cancel()

    def _send(self, queue, socket):
        with suppress(serve.WebSocketClosed):
            while True:
                socket.send(queue.get())
