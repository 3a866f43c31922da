"""The routes of `test_frameworks` in Falcon."""

from __future__ import annotations

import time

import falcon

state = {"begun": 0, "ended": 0}


class Hello:
    def on_get(self, request, response, name):
        response.media = {"hello": name}


class Mine:
    def on_get(self, request, response):
        request.context.mine = request.get_param("mine")
        time.sleep(0.05)
        response.text = f"{request.context.mine} {request.get_param('mine')}"


class Upload:
    def on_post(self, request, response):
        found = {part.name: part.stream.read() for part in request.get_media()}
        response.text = f"{len(found['file'])} {found['text'].decode()}"


class Stream:
    def on_get(self, request, response):
        response.stream = (b"%d," % number for number in range(1000))


class Fail:
    def on_get(self, request, response):
        raise ValueError("the route fails")


class Hang:
    def on_get(self, request, response):
        state["begun"] += 1
        try:
            time.sleep(3600)
        finally:
            state["ended"] += 1


class Show:
    def on_get(self, request, response):
        response.media = state


application = falcon.App()
application.add_route("/hello/{name}", Hello())
for path, resource in {
    "/mine": Mine(),
    "/upload": Upload(),
    "/stream": Stream(),
    "/fail": Fail(),
    "/hang": Hang(),
    "/state": Show(),
}.items():
    application.add_route(path, resource)
