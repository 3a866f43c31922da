"""Performance goals: a table, and a check of results against it."""

from typing import NamedTuple

OURS = "vthreads"


class Goal(NamedTuple):
    """At most `most` times the cost of the peer; if the peer is None, at most `most` units.

    Attributes:
        workload, size, figure: the compared figure.
        over: subtract the cost of the peer instead; `most` is the limit of the difference.
        beside: the figure of the peer, if it is another one; the peer may be vthreads itself.
    """

    workload: str
    size: int
    figure: str
    peer: str | None
    most: float
    over: bool = False
    beside: str | None = None


GOALS = [
    Goal("yield", 100, "cpu", "greenlet_pair", 1.6),
    Goal("yield", 100, "cpu", "uvloop", 0.5),
    Goal("spawn_join", 50_000, "cpu", "uvloop", 0.35),
    Goal("spawn_join", 50_000, "cpu", "gevent", 0.15),
    Goal("time_sleep", 100, "cpu", "uvloop", 0.5),
    Goal("sleeps", 50_000, "cpu", "uvloop", 0.8),
    Goal("sleeps", 50_000, "again", "uvloop", 0.5),
    Goal("queue", 1, "cpu", "uvloop", 0.4),
    Goal("carrier_queue", 1, "cpu", "os_threads", 0.5),
    Goal("standard_queue", 1, "cpu", "gevent", 0.7),
    Goal("standard_event", 1, "cpu", "os_threads", 0.3),
    Goal("standard_condition", 1, "cpu", "gevent", 0.5),
    Goal("standard_semaphore", 1, "cpu", "gevent", 0.25),
    Goal("await_done", 1, "cpu", "greenback", 1.0),
    Goal("await_sleep", 1, "cpu", "greenback", 0.8),
    Goal("aio_run", 1, "cpu", "uvloop", 1.2),
    Goal("def_endpoint", 1, "cpu", "pool", 0.15),
    Goal("guest_echo", 1, "cpu", "default_poller", 1.5),
    Goal("pool_map", 10_000, "cpu", "os_threads", 0.5),
    Goal("startup", 20, "cpu", "asyncio", 1.0),
    Goal("tls_echo", 1, "cpu", "gevent", 0.7),
    Goal("tcp_echo", 1, "cpu", "gevent", 0.5),
    Goal("recv_into", 1, "cpu", "gevent", 0.5),
    Goal("readline", 1, "cpu", "gevent", 0.6),
    Goal("udp_echo", 1, "cpu", "gevent", 0.6),
    Goal("pipe", 1, "cpu", "unix_socket", 1.2),
    Goal("select_one", 1, "cpu", "os_threads", 0.5),
    Goal("start_process", 1, "cpu", "os_threads", 0.9),
    Goal("read_file", 1, "cpu", "os_threads", 1.1),
    Goal("resolve", 1, "cpu", "os_threads", 1.5),
    *(
        Goal("echo", connections, "cpu", peer, most)
        for connections, limit, protocol in ((100, 1.25, 1.0), (1_000, 1.45, 1.05), (10_000, 1.45, 1.05))
        for peer, most in (("limit", limit), ("uvloop", 0.65), ("uvloop_protocol", protocol), ("gevent", 0.5))
    ),
    Goal("active_connections", 10_000, "cpu", OURS, 1.15, beside="alone"),
    Goal("postgresql", 32, "cpu", "psycopg_uvloop", 1.0),
    Goal("postgresql", 32, "cpu", "asyncpg_uvloop", 1.3),
    Goal("celery_tasks", 1_000, "cpu", "gevent", 0.8),
    *(
        Goal("http_client", 100, library, peer, most)
        for library in ("requests", "urllib3")
        for peer, most in (("gevent", 0.85), ("os_threads", 0.8))
    ),
    *(
        Goal("serve_hello", 64, "cpu", peer, most)
        for peer, most in (("uvicorn", 0.5), ("granian_asgi", 0.7), ("gunicorn_gevent", 0.15), ("bjoern", 1.5))
    ),
    Goal("serve_flask", 64, "cpu", "gunicorn_gthread", 0.7),
    Goal("serve_query", 64, "cpu", "starlette_asyncpg", 1.0),
    Goal("serve_query", 64, "cpu", "gunicorn_gevent", 0.6),
    Goal("serve_websocket", 500, "cpu", "websockets_uvloop", 0.6),
    Goal("serve_latency", 64, "p50", "uvicorn", 1.0),
    Goal("serve_latency", 64, "p99", "uvicorn", 1.0),
    Goal("serve_idle", 10_000, "memory", None, 3.0),
    Goal("parked", 1_000_000, "memory", None, 7.0),
    Goal("parked", 1_000_000, "memory", "greenlet", 0.6, over=True),
    Goal("idle_connections", 10_000, "memory", None, 12.0),
    Goal("cancel", 10_000, "cpu", None, 10.0),
    # 0.1 µs per call; the second and the third row make two calls.
    Goal("patched_calls", 1, "sleep", "original", 0.1, over=True),
    Goal("patched_calls", 1, "lock", "original", 0.2, over=True),
    Goal("patched_calls", 1, "socket", "original", 0.2, over=True),
]


def reached(goal, medians):
    """Return the measured figure in the unit of the goal; None if it was not measured.

    Args:
        medians: by workload, size, figure and peer.
    """
    place = goal.workload, goal.size, goal.figure
    ours = medians.get((*place, OURS))
    theirs = medians.get((goal.workload, goal.size, goal.beside or goal.figure, goal.peer))
    if ours is None or (goal.peer is not None and not theirs):
        return None
    if goal.peer is None:
        return ours
    return ours - theirs if goal.over else ours / theirs
