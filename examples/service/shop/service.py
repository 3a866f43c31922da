"""The parts together: what starts first, and what ends last."""

from contextlib import closing

import redis

from vthreads import ThreadGroup, serve

from .app import make_app
from .cache import Cache
from .metrics import Metrics, make_admin_app
from .news import News
from .orders import Orders
from .packing import Packing

WORKERS = 4


def run(database, redis_url, prefix, bind, admin, ready):
    """Serve until SIGTERM. `ready` is called with a name and a server when that one listens."""
    servers = {}

    def announce(name):
        def note(server):
            servers[name] = server
            ready(name, server)

        return note

    def is_ready():
        return "orders" in servers and not servers["orders"].is_stopping

    with (
        # Ends the service if one of its servers fails, for example because its port is in use.
        ThreadGroup("service", errors="first") as service,
        closing(Orders(database)) as orders,
        closing(redis.Redis.from_url(redis_url, decode_responses=True)) as client,
        # Ends before the connections close. A failure is reported, and the others go on.
        ThreadGroup("background", on_failure="report") as background,
    ):
        cache, news, metrics = Cache(client, prefix), News(client, prefix), Metrics()
        packing = Packing(orders, news, cache)
        for _ in range(WORKERS):
            background.spawn(packing.work)
        listener = background.spawn(news.listen)
        admin_app = make_admin_app(metrics, packing, is_ready)
        figures = service.spawn(serve.wsgi, admin_app, bind=[admin], ready=announce("figures"))

        app = make_app(orders, cache, news, packing, metrics)
        limits = serve.Limits(request_seconds=5)
        # Returns after SIGTERM, when every request under way has its answer.
        serve.wsgi(app, bind=[bind], limits=limits, drain=20, ready=announce("orders"))

        background.shutdown(grace=5)  # `stopping()` is true in its threads now
        packing.ring(WORKERS)
        listener.cancel()
        figures.cancel()
