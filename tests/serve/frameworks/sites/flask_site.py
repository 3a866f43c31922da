"""The routes of `test_frameworks` in Flask, and queries by a pool of psycopg."""

from __future__ import annotations

import os
import threading
import time

import flask

application = flask.Flask(__name__)
state = {"begun": 0, "ended": 0}


@application.teardown_request
def end(error):
    if "counted" in flask.g:
        state["ended"] += 1


@application.get("/hello/<name>")
def hello(name):
    return {"hello": name}


@application.get("/mine")
def mine():
    flask.g.mine = flask.request.args["mine"]
    time.sleep(0.05)
    return f"{flask.g.mine} {flask.request.args['mine']}"


@application.post("/upload")
def upload():
    return f"{len(flask.request.files['file'].read())} {flask.request.form['text']}"


@application.get("/stream")
def stream():
    return flask.stream_with_context(f"{number}," for number in range(1000))


@application.get("/fail")
def fail():
    raise ValueError("the route fails")


@application.get("/hang")
def hang():
    flask.g.counted = True
    state["begun"] += 1
    time.sleep(3600)


@application.get("/state")
def show():
    return state


# --- PostgreSQL


making = threading.Lock()
pools = []


def pool():
    """The pool, opened by the first request: its size is below the number of clients."""
    from psycopg_pool import ConnectionPool

    # Requests that come at once would make a pool each: the import, and the start of a pool, let others run.
    with making:
        if not pools:
            where = f"host=127.0.0.1 user=postgres dbname={os.environ['SITE_DATABASE']}"
            pools.append(ConnectionPool(where, min_size=4, max_size=4, open=True))
        return pools[0]


@application.get("/query/<int:number>")
def query(number):
    with pool().connection() as connection:
        return connection.execute("select (%s + 1)::text, pg_sleep(0.01)", [number]).fetchone()[0]


@application.get("/hang-in-query")
def hang_in_query():
    with pool().connection() as connection:
        connection.execute("select pg_sleep(3600)")
