"""What vthreads wants to reach: a table, and whether results reach it."""

from typing import NamedTuple

OURS = "vthreads"


class Goal(NamedTuple):
    """At most `most` times what the peer costs; of a peer that is None: at most `most` units.

    Attributes:
        workload, size, figure: what is compared.
        over: the cost of the peer is subtracted instead, and `most` is what may remain.
    """

    workload: str
    size: int
    figure: str
    peer: str | None
    most: float
    over: bool = False


GOALS = [
    Goal("yield", 100, "cpu", "greenlet_pair", 1.6),
    Goal("yield", 100, "cpu", "uvloop", 0.5),
    Goal("spawn_join", 50_000, "cpu", "uvloop", 0.35),
    Goal("spawn_join", 50_000, "cpu", "gevent", 0.15),
    Goal("sleeps", 50_000, "cpu", "uvloop", 0.6),
    Goal("queue", 1, "cpu", "uvloop", 0.4),
    *(
        Goal("echo", connections, "cpu", peer, most)
        for connections in (100, 1_000)
        for peer, most in (("limit", 1.35), ("uvloop", 0.65), ("uvloop_protocol", 1.0), ("gevent", 0.5))
    ),
    Goal("postgresql", 32, "cpu", "psycopg_uvloop", 1.0),
    Goal("postgresql", 32, "cpu", "asyncpg_uvloop", 1.3),
    *(
        Goal("http_client", 100, library, peer, most)
        for library in ("requests", "urllib3")
        for peer, most in (("gevent", 0.85), ("os_threads", 0.8))
    ),
    Goal("parked", 1_000_000, "memory", None, 7.0),
    Goal("idle_connections", 10_000, "memory", None, 12.0),
    Goal("cancel", 10_000, "cpu", None, 10.0),
    # 0.1 µs a call; the second and the third make two calls.
    Goal("patched_calls", 1, "sleep", "original", 0.1, over=True),
    Goal("patched_calls", 1, "lock", "original", 0.2, over=True),
    Goal("patched_calls", 1, "socket", "original", 0.2, over=True),
]


def reached(goal, medians):
    """What was measured for a goal, and in which unit; None if it was not.

    Args:
        medians: by workload, size, figure and peer.
    """
    place = goal.workload, goal.size, goal.figure
    ours, theirs = medians.get((*place, OURS)), medians.get((*place, goal.peer))
    if ours is None or (goal.peer is not None and not theirs):
        return None
    if goal.peer is None:
        return ours
    return ours - theirs if goal.over else ours / theirs
