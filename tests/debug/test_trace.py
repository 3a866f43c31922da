"""`vthreads.trace`: what the file says of a program, and that it is what the viewers take."""

import json
from collections import defaultdict

import pytest

import vthreads
from vthreads import ThreadGroup, sleep


@pytest.fixture
def traced(virtual, tmp_path):
    """Run a function as root on the virtual clock in a trace; the events of the file."""

    def traced(fn, **options):
        path = tmp_path / "out.json"
        with vthreads.trace(path):
            virtual(fn, **options)
        return json.loads(path.read_text())["traceEvents"]

    return traced


def tracks(events):
    """The name of each track, and its slices in order: name, beginning and length in seconds."""
    names = {event["tid"]: event["args"]["name"] for event in events if event["name"] == "thread_name"}
    slices = defaultdict(list)
    for event in events:
        if event["ph"] == "X":
            slices[names[event["tid"]]].append((event["ts"] / 1e6, event["name"], event["dur"] / 1e6))
    return {name: [(what, at, length) for at, what, length in sorted(found)] for name, found in slices.items()}


def test_a_track_tells_when_its_thread_ran_and_what_it_waited_for(traced):
    def root():
        with ThreadGroup() as group:
            group.spawn(sleep, 2).thread.name = "sleeper"

    slices = tracks(traced(root))["sleeper"]
    assert ("parked in sleep", 0, 2) in slices
    assert {"parked in sleep", "running", "ready"} == {what for what, _, _ in slices}
