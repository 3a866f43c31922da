"""The heartbeat of a worker: when it stops, and when the worker asks for its replacement."""

from __future__ import annotations

from math import inf

import vthreads
from vthreads import CancelScope, ThreadGroup, sleep
from vthreads.serve import Limits, _heartbeat
from vthreads.serve._addresses import parse_address
from vthreads.serve._heartbeat import Heart
from vthreads.serve._sight import Sight
from vthreads.serve._wsgi import WsgiOptions, serve_application

from .conftest import run_with

LAST = b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"


def with_heart(app, program, *, max_requests=inf, **limits):
    """Run `program(site)` beside a worker: when its heart has beaten, and when it has asked for its replacement."""

    def beside(site):
        heart = Heart(
            site.server,
            options.sight,
            beat=lambda: beats.append(vthreads.now()),
            max_requests=max_requests,
            recycle=lambda: asked.append(vthreads.now()),
        )
        with ThreadGroup() as group:
            group.spawn(heart.run)
            program(site)
            group.cancel("the test has ended")

    beats, asked = [], []
    options = WsgiOptions(limits=Limits(**limits), sight=Sight(), drain=3600)
    where = [parse_address("127.0.0.1:0")]
    run_with(lambda ready: serve_application(app, where, options, ready), beside)
    return beats, asked


def hello(environ, start_response):
    start_response("200 OK", [])
    return [b"hello"]


def test_a_worker_asks_for_its_replacement_again_after_a_time(monkeypatch):
    def program(site):
        sleep(1.5)
        site.ask(LAST)
        sleep(8)

    monkeypatch.setattr(_heartbeat, "ASKED_AGAIN_AFTER", 5.0)
    assert [2.0, 7.0] == with_heart(hello, program, max_requests=1)[1]


def test_a_worker_that_stops_does_not_ask_for_its_replacement():
    def app(environ, start_response):
        sleep(10)
        return hello(environ, start_response)

    def program(site):
        with site.client() as client:
            client.send(LAST)
            site.server.stop()
            client.rest()

    beats, asked = with_heart(app, program, max_requests=0, request_seconds=0)
    assert [] == asked
    # It goes on until the last request has ended.
    assert 9 <= len(beats)


def test_the_heart_does_not_beat_while_a_handler_ignores_its_deadline():
    def app(environ, start_response):
        with CancelScope(shield=True):
            sleep(40)
        return hello(environ, start_response)

    def program(site):
        site.ask(LAST)
        sleep(10)

    beats, _ = with_heart(app, program, request_seconds=10)
    # The deadline, 2 s for the cleanup and 5 s of slack.
    assert [*range(1, 18), *range(40, 51)] == [int(beat) for beat in beats]
