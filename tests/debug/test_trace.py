"""`vthreads.trace`: the contents of the file, and the format that viewers accept."""

import json
import os
import socket
import threading
from collections import Counter, defaultdict
from itertools import pairwise

import pytest

import vthreads
from vthreads import CancelScope, Event, Queue, ThreadGroup, sleep
from vthreads.debug import _event_log as event_log

pytestmark = pytest.mark.unpatched


@pytest.fixture
def path(tmp_path):
    return tmp_path / "out.json"


@pytest.fixture
def traced(virtual, path):
    """Run a function as root on the virtual clock in a trace; the events of the file."""

    def traced(fn, **options):
        with vthreads.trace(path):
            virtual(fn, **options)
        return read(path)

    return traced


def read(path):
    events = json.loads(path.read_text())["traceEvents"]
    check_format(events)
    return events


# The fields and types that the Trace Event Format requires of each kind of event.
NUMBER = (int, float)
COMMON = {"ph": str, "pid": int, "name": str}
FIELDS = {
    "M": {"tid": int, "args": dict},
    "X": {"tid": int, "ts": NUMBER, "dur": NUMBER},
    "s": {"tid": int, "ts": NUMBER, "id": int, "cat": str, "bp": str},
    "f": {"tid": int, "ts": NUMBER, "id": int, "cat": str, "bp": str},
    "C": {"ts": NUMBER, "args": dict},
    "i": {"tid": int, "ts": NUMBER, "s": str, "args": dict},
}


def check_format(events):
    """Fields, types, slices that follow each other, arrows that begin and end in a slice, curves of numbers."""
    for event in events:
        fields = COMMON | FIELDS[event["ph"]]
        assert set(fields) <= set(event) <= set(fields) | {"args"}, event
        assert all(isinstance(event[field], types) for field, types in fields.items()), event
        assert 0 <= event.get("ts", 0)
        # A slice without length would be nested in the next one, as `test_trace_in_perfetto.py` sees it.
        assert 0 < event.get("dur", 1)
        assert 0 <= event.get("tid", 0) < 2**31
        assert all(isinstance(value, int) for value in event["args"].values()) if event["ph"] == "C" else True
    slices = defaultdict(list)
    for event in events:
        if event["ph"] == "X":
            slices[event["tid"]].append((nanoseconds(event["ts"]), nanoseconds(event["ts"] + event["dur"])))
    for track in slices.values():
        track.sort()
        assert all(before[1] == after[0] for before, after in pairwise(track))
    check_arrows(events, slices)
    named = [event["tid"] for event in events if event["name"] == "thread_name"]
    assert set(slices) == set(named)
    assert len(named) == len(set(named))


def nanoseconds(ts):
    return round(ts * 1000)


def check_arrows(events, slices):
    arrows = defaultdict(list)
    for event in events:
        if event["ph"] in "sf":
            arrows[event["id"]].append(event)
            assert any(start <= nanoseconds(event["ts"]) < end for start, end in slices[event["tid"]]), event
    for ends in arrows.values():
        begin, *end = ends
        assert "s" == begin["ph"]
        assert ["f"] * len(end) == [event["ph"] for event in end]
        assert len(end) <= 1
        assert all(begin["ts"] <= event["ts"] for event in end)
        assert all(begin["name"] == event["name"] for event in end)


def names(events):
    return {event["tid"]: event["args"]["name"] for event in events if event["name"] == "thread_name"}


def tracks(events):
    """The slices of each track in order: name, beginning and length in seconds.

    In microseconds they are what the clock told: no slice has no length, so on the virtual clock each has a nanosecond.
    """
    tids, slices = names(events), defaultdict(list)
    for event in events:
        if event["ph"] == "X":
            slices[tids[event["tid"]]].append((event["ts"], event["name"], event["dur"]))
    return {
        name: [(what, round(at / 1e6, 6), round(length / 1e6, 6)) for at, what, length in sorted(found)]
        for name, found in slices.items()
    }


def arrows(events):
    """The arrows as name, from and to."""
    tids, ends = names(events), defaultdict(list)
    for event in events:
        if event["ph"] in "sf":
            ends[event["name"], event["id"]].append(tids[event["tid"]])
    return [(name, *track_names) for (name, _), track_names in ends.items()]


def curve(events, name):
    return [
        (round(event["ts"] / 1e6, 6), *event["args"].values())
        for event in events
        if event["ph"] == "C" and event["name"].startswith(name)
    ]


def spawn_named(group, name, fn, *args):
    def named():
        vthreads.current_thread().name = name
        return fn(*args)

    return group.spawn(named)


def test_a_track_tells_when_its_thread_ran_and_what_it_waited_for(traced):
    def root():
        with ThreadGroup() as group:
            spawn_named(group, "sleeper", sleep, 2)

    assert [("running", 0, 0), ("parked in sleep", 0, 2), ("ready", 2, 0), ("running", 2, 0)] == tracks(traced(root))[
        "sleeper"
    ]


def test_a_slice_tells_the_line_that_parks(traced):
    def root():
        with ThreadGroup() as group:
            group.spawn(lambda: sleep(1))

    lines = {event["name"]: event["args"]["at"] for event in traced(root) if "at" in event.get("args", ())}
    number = root.__code__.co_firstlineno + 2
    assert f'File "{__file__}", line {number}, in ' in lines["parked in sleep"]
    assert f'File "{__file__}", line {number - 1}, in ' in lines["parked in ThreadGroup.__exit__"]


def test_waits_of_different_depth_are_told_apart(traced):
    queue, event = Queue(), Event()

    def waits():
        for _ in range(3):
            queue.get()
            sleep(1)
            event.wait()

    def root():
        with ThreadGroup() as group:
            spawn_named(group, "waiter", waits)
            for _ in range(3):
                sleep(1)
                queue.put(1)
                sleep(2)
                event.set()
                vthreads.checkpoint()
                event.clear()

    parked = [what for what, _, _ in tracks(traced(root))["waiter"] if what.startswith("parked")]
    assert ["parked in Queue.get", "parked in sleep", "parked in Event.wait"] * 3 == parked


def test_a_thread_that_lets_others_run_is_ready(traced):
    def root():
        with ThreadGroup() as group:
            spawn_named(group, "yields", vthreads.checkpoint)

    assert ["running", "ready", "running"] == [what for what, _, _ in tracks(traced(root))["yields"]]


def test_arrows_lead_to_who_was_spawned_and_unparked(traced):
    queue = Queue()

    def root():
        vthreads.current_thread().name = "root"
        with ThreadGroup() as group:
            spawn_named(group, "getter", queue.get)
            spawn_named(group, "putter", queue.put, 1)

    assert Counter(
        {
            ("spawn", "root", "getter"): 1,
            ("spawn", "root", "putter"): 1,
            ("unpark", "putter", "getter"): 1,
            ("unpark", "getter", "root"): 1,
        }
    ) == Counter(arrows(traced(root)))


def test_a_curve_tells_how_many_were_ready(traced):
    def root():
        with ThreadGroup() as group:
            for _ in range(5):
                group.spawn(sleep, 1)

    assert [(1, 0)] == curve(traced(root), "run queue")[-1:]
    # A point is the last of its step, and on the virtual clock all happens at once.
    with_work = traced(lambda: work_while_others_are_ready(3))
    assert 3 in [count for _, count in curve(with_work, "run queue")]


def work_while_others_are_ready(count):
    clock = vthreads.current_thread()._scheduler.clock
    event = Event()
    with ThreadGroup() as group:
        for _ in range(count):
            group.spawn(event.wait)
        event.set()
        clock.advance(1)


@pytest.mark.real
def test_a_curve_tells_how_many_wait_for_descriptors(path):
    def root():
        pairs = [socket.socketpair() for _ in range(3)]
        with ThreadGroup() as group:
            for reader, _ in pairs:
                group.spawn(reader.recv, 1)
            sleep(0.01)
            for _, writer in pairs:
                writer.send(b"x")
        for end in sum(pairs, ()):
            end.close()

    with vthreads.trace(path):
        vthreads.run(root)
    assert 3 == max(count for _, count in curve(read(path), "descriptors"))


def test_a_name_that_was_given_late_is_the_name_of_the_track(traced):
    def root():
        with ThreadGroup(name="workers") as group:
            group.spawn(sleep, 1).thread.name = "late"

    assert "late" in names(traced(root)).values()


def test_a_mark_tells_how_a_track_ends_and_where_its_thread_came_from(virtual, path):
    def root():
        with ThreadGroup(name="workers") as group:
            spawn_named(group, "longer", sleep, 2)
            with vthreads.trace(path):
                spawn_named(group, "shorter", sleep, 1).result()

    virtual(root)
    events = read(path)
    tids = names(events)
    marks = {tids[event["tid"]]: (event["name"], event["args"]) for event in events if event["ph"] == "i"}
    assert {"longer": "not ended", "shorter": "ended", "MainThread": "not ended"} == {
        name: mark for name, (mark, _) in marks.items()
    }
    assert {} == marks["MainThread"][1]
    for name in ("longer", "shorter"):
        assert "workers" == marks[name][1]["group"]
        number = spawn_named.__code__.co_firstlineno + 5
        assert f'File "{__file__}", line {number}, in spawn_named' == marks[name][1]["spawned at"]


def test_threads_that_were_there_before_and_stay_after_have_tracks(virtual, path):
    def root():
        vthreads.current_thread().name = "root"
        with ThreadGroup() as group:
            spawn_named(group, "older", sleep, 5)
            sleep(1)
            # The file is written on an OS thread, for which virtual time does not wait.
            with vthreads.trace(path):
                sleep(1)

    virtual(root)
    found = tracks(read(path))
    assert [("parked", 0, 1)] == found["older"]
    assert [("running", 0, 0), ("parked in sleep", 0, 1), ("ready", 1, 0), ("running", 1, 0)] == found["root"]


def test_a_child_that_waits_for_its_turn_is_shown_when_it_starts(traced):
    def root():
        with ThreadGroup(max_concurrency=1) as group:

            def member():
                for _ in range(2):
                    spawn_named(group, "queued", sleep, 1)
                sleep(1)

            group.spawn(member)

    assert 2 == Counter(names(traced(root)).values())["queued"]


@pytest.mark.thorough
@pytest.mark.parametrize("block", [64, 16_384])
def test_a_long_trace_is_written_in_blocks(traced, monkeypatch, block):
    monkeypatch.setattr(event_log, "BLOCK", block)

    def root():
        with ThreadGroup() as group:
            for _ in range(20):
                group.spawn(lambda: [sleep(1) for _ in range(500)])

    slices = tracks(traced(root))
    assert 10_000 == sum(what == "parked in sleep" for found in slices.values() for what, _, _ in found)


def test_traces_may_be_nested(virtual, tmp_path):
    def root():
        with vthreads.trace(tmp_path / "outer.json"):
            sleep(1)
            with vthreads.trace(tmp_path / "inner.json"):
                sleep(2)
        return vthreads.current_thread()._scheduler.observer

    assert virtual(root) is None
    sleeps = {}
    for name in ("outer", "inner"):
        [found] = tracks(read(tmp_path / f"{name}.json")).values()
        sleeps[name] = [length for what, _, length in found if what == "parked in sleep"]
    assert {"outer": [1, 2], "inner": [2]} == sleeps


@pytest.mark.real
def test_carriers_that_start_meanwhile_take_part(path):
    def carrier():
        vthreads.run(sleep, 0.001)

    def root():
        sleep(0.001)
        thread = threading.Thread(target=carrier, name="second")
        thread.start()
        thread.join()

    with vthreads.trace(path):
        vthreads.run(root)
    found = tracks(read(path))
    assert {"MainThread", "second"} == set(found)
    assert all("parked in sleep" in [what for what, _, _ in slices] for slices in found.values())


@pytest.mark.real
def test_a_carrier_on_another_os_thread_takes_part_from_its_next_switch_on(path):
    def other():
        runs.set()
        while not traced.is_set():
            sleep(0.001)
        # The trace has begun, so it shows this wait.
        sleep(0.001)

    runs, traced = threading.Event(), threading.Event()
    thread = threading.Thread(target=vthreads.run, args=(other,), name="other")
    thread.start()
    runs.wait()
    try:
        with vthreads.trace(path):
            traced.set()
            thread.join()
    finally:
        traced.set()
        thread.join()
    assert "other" in tracks(read(path))


@pytest.mark.real
def test_nothing_is_raised_before_the_file_is_whole(path):
    def root():
        with CancelScope() as scope:
            with vthreads.trace(path):
                vthreads.checkpoint()
                scope.cancel()
            vthreads.checkpoint()
        return scope.cancelled_caught

    assert vthreads.run(root)
    read(path)


def test_an_exception_in_the_block_is_let_through(traced):
    def root():
        raise LookupError

    with pytest.raises(LookupError):
        traced(root)


def test_a_file_that_cannot_be_written_is_an_error_at_once(tmp_path):
    with pytest.raises(FileNotFoundError), vthreads.trace(tmp_path / "missing" / "out.json"):
        pass


def test_a_trace_is_entered_once(path):
    trace = vthreads.trace(path)
    with trace:
        pass
    with pytest.raises(RuntimeError, match="already entered"), trace:
        pass


def test_without_a_carrier_the_file_is_empty_but_valid(path):
    with vthreads.trace(path):
        pass
    assert ["process_name"] == [event["name"] for event in read(path)]


@pytest.mark.real
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of fork beside OS threads
def test_the_child_of_a_fork_leaves_the_file_to_its_parent(path):
    def root():
        with vthreads.trace(path):
            sleep(0.001)
            pid = os.fork()
            if pid == 0:
                sleep(0.001)
        if pid == 0:
            os._exit(7)
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])

    assert 7 == vthreads.run(root)
    assert {os.getpid()} == {event["pid"] for event in read(path)}


def test_the_recorder_is_compiled_where_the_engine_is():
    from vthreads._core.engine import engine_name

    if engine_name == "accelerated":
        assert not hasattr(event_log.EventLog.readied, "__code__")
