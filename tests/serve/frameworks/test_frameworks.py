"""Flask, Django, Bottle and Falcon, unmodified, over HTTP: the same routes, and what they leave of a request."""

from __future__ import annotations

import importlib.util
import json
import socket
import threading
import uuid

import pytest

from .conftest import SECONDS, site_of

pytestmark = [pytest.mark.real, pytest.mark.thorough]

FRAMEWORKS = ["flask", "django", "bottle", "falcon"]
CLIENTS = 50


@pytest.fixture(scope="module", params=FRAMEWORKS)
def site(request, tmp_path_factory):
    if importlib.util.find_spec(request.param) is None:
        pytest.skip(f"{request.param} is not installed")
    log = tmp_path_factory.mktemp(request.param) / "log"
    with site_of(f"{request.param}_site", "--request-seconds", "5", log=log) as site:
        yield site
        assert 0 == site.stop()


def test_a_route(site):
    assert {"hello": "you"} == json.loads(site.ask("/hello/you")[1])
    assert 404 == site.ask("/none")[0]


def test_a_failure_of_a_route_is_answered_and_the_server_goes_on(site):
    assert 500 == site.ask("/fail")[0]
    assert 200 == site.ask("/hello/you")[0]


def test_requests_at_once_do_not_see_each_other(site):
    # Frameworks keep the current request in a context variable or a thread-local.
    answers = site.ask_at_once([f"/mine?mine={number}" for number in range(CLIENTS)])
    assert [(200, f"{number} {number}") for number in range(CLIENTS)] == answers


def test_a_form_with_a_file(site):
    boundary = uuid.uuid4().hex
    content = b"x" * 1_000_000
    body = (
        f'--{boundary}\r\nContent-Disposition: form-data; name="text"\r\n\r\nsome text\r\n'
        f'--{boundary}\r\nContent-Disposition: form-data; name="file"; filename="f"\r\n'
        "Content-Type: application/octet-stream\r\n\r\n"
    ).encode()
    body += content + f"\r\n--{boundary}--\r\n".encode()
    fields = {"Content-Type": f"multipart/form-data; boundary={boundary}"}
    assert (200, "1000000 some text") == site.ask("/upload", body, **fields)


def test_a_stream(site):
    assert (200, "".join(f"{number}," for number in range(1000))) == site.ask("/stream")


def state_of(site):
    return json.loads(site.ask("/state")[1])


def wait_for(site, name, count):
    # Another process works meanwhile.
    for _ in range(2000):
        if state_of(site)[name] == count:
            return
        threading.Event().wait(0.05)
    raise AssertionError(state_of(site))


def test_a_deadline_and_a_client_that_has_gone_end_the_handler_with_its_cleanup(site):
    assert 504 == site.ask("/hang")[0]
    wait_for(site, "ended", 1)
    with socket.create_connection(("127.0.0.1", site.port), timeout=SECONDS) as client:
        client.sendall(b"GET /hang HTTP/1.1\r\nHost: a\r\n\r\n")
        wait_for(site, "begun", 2)
    wait_for(site, "ended", 2)
