"""The routes of `test_frameworks` in Bottle."""

from __future__ import annotations

import time

import bottle

application = bottle.Bottle()
state = {"begun": 0, "ended": 0}


@application.get("/hello/<name>")
def hello(name):
    return {"hello": name}


@application.get("/mine")
def mine():
    before = bottle.request.query.mine
    time.sleep(0.05)
    return f"{before} {bottle.request.query.mine}"


@application.post("/upload")
def upload():
    return f"{len(bottle.request.files['file'].file.read())} {bottle.request.forms['text']}"


@application.get("/stream")
def stream():
    for number in range(1000):
        yield f"{number},"


@application.get("/fail")
def fail():
    raise ValueError("the route fails")


@application.get("/hang")
def hang():
    state["begun"] += 1
    try:
        time.sleep(3600)
    finally:
        state["ended"] += 1


@application.get("/state")
def show():
    return state
