"""`dump` of the threads of this process, as data and as text."""

from __future__ import annotations

import contextlib
import json
import os
import queue
import re
import select
import socket
import threading
from _thread import allocate_lock
from functools import partial
from pathlib import Path

import pytest
from jsonschema import Draft202012Validator

import vthreads
from vthreads import CancelScope, ThreadGroup, dump, fail_after, move_on_after, offload, shield, sleep
from vthreads.debug import snapshot
from vthreads.debug._text import render
from vthreads.debug._waits import KINDS

pytestmark = pytest.mark.unpatched

SCHEMA = Path(__file__).parents[2] / "docs" / "reference" / "dump.schema.json"
VALIDATOR = Draft202012Validator(json.loads(SCHEMA.read_text()))


def look(**options):
    """The data of a dump, checked against the schema."""
    data = json.loads(dump("json", **options))
    VALIDATOR.validate(data)
    return data


def here(data):
    """The carrier of this OS thread."""
    return next(carrier for carrier in data["carriers"] if carrier["os_thread"]["ident"] == threading.get_ident())


def threads(tree):
    return {node["name"]: node for node in tree if node["type"] == "thread"}


def let_park(thread):
    while thread.state.value != "parked":
        # A checkpoint after a long run yields before it parks.
        vthreads.checkpoint()


def wait_of(spawn_it, run=True):
    """The wait of the thread that `spawn_it(group)` starts."""
    with ThreadGroup() as group:
        thread = spawn_it(group).thread
        thread.name = "waiter"
        let_park(thread)
        wait = threads(here(look())["tree"])["waiter"]["waits_for"]
        group.cancel()
    return wait


# --- the tree


def test_the_tree_holds_threads_scopes_and_groups_where_they_are(virtual):
    def nest():
        with fail_after(20), shield(10), ThreadGroup("inner") as inner:
            inner.spawn(sleep, 60).thread.name = "child"
            sleep(60)

    def root():
        with ThreadGroup("outer") as outer:
            outer.spawn(nest).thread.name = "nest"
            sleep(1)
            tree = here(look())["tree"]
            outer.cancel()
        return tree

    tree = virtual(root)
    assert ["thread", "group", "thread", "scope", "scope", "group", "thread"] == [node["type"] for node in tree]
    assert [None, 0, 1, 2, 3, 4, 5] == [node["parent"] for node in tree]
    assert list(range(7)) == [node["depth"] for node in tree]
    assert (19, 9) == (tree[3]["deadline_in"], tree[4]["shield_ends_in"])
    assert ["outer", "inner"] == [node["name"] for node in tree if node["type"] == "group"]
    assert ["parked", 1] == [threads(tree)["child"][key] for key in ("state", "parked_for")]


def test_a_shield_without_an_end_shows(virtual):
    def root():
        with shield(None):
            return here(look())["tree"][1], dump()

    scope, text = virtual(root)
    assert (True, None) == (scope["shielded"], scope["shield_ends_in"])
    assert "shield without an end" in text


def test_a_thread_that_is_cancelled_tells_why(virtual):
    def stubborn():
        with shield(30):
            sleep(60)

    def root():
        with move_on_after(100):
            with ThreadGroup("dying") as group:
                group.spawn(stubborn).thread.name = "stubborn"
                with CancelScope(shield=True):
                    group.cancel("the owner has gone")
                    sleep(1)
                    return here(look())["tree"]

    tree = virtual(root)
    group = next(node for node in tree if node["type"] == "group")
    assert "the owner has gone" == group["cancelled"]


def test_the_background_group_is_there_once_it_has_members(virtual):
    def root():
        groups_before = [node["name"] for node in here(look())["tree"] if node["type"] == "group"]
        vthreads.spawn(sleep, 1)
        return groups_before, [node["name"] for node in here(look())["tree"] if node["type"] == "group"]

    assert ([], ["background"]) == virtual(root)


def test_a_thread_tells_its_function_its_stack_and_where_it_was_spawned(virtual):
    def work():
        sleep(60)

    def root():
        with ThreadGroup() as group:
            group.spawn(work).thread.name = "worker"
            thread = threads(here(look())["tree"])["worker"]
            without = threads(here(look(stacks=False))["tree"])["worker"]
            group.cancel()
        return thread, without

    thread, without = virtual(root)
    assert thread["function"].endswith("work")
    assert ["sleep(60)"] == [place["source"] for place in thread["stack"]]
    assert re.search(r"test_dump\.py\", line \d+, in .*root$", thread["spawned_at"][0])
    assert [] == without["stack"]


def test_a_thread_that_has_not_run_waits_for_a_permit(virtual):
    def root():
        with ThreadGroup("narrow", max_concurrency=1) as group:

            def member():
                group.spawn(sleep, 1).thread.name = "queued"
                sleep(1)

            group.spawn(member)
            tree = here(look())["tree"]
        return threads(tree)["queued"]["waits_for"]["kind"], tree[1]["queued"]

    assert ("permit", 1) == virtual(root)


# --- what is waited for


def test_a_sleep_tells_when_it_is_due(virtual):
    def root():
        return wait_of(lambda group: group.spawn(sleep, 60))

    wait = virtual(root)
    assert ("timer", 60, "sleep") == (wait["kind"], wait["due_in"], wait["call"])


MAKERS = {
    "event": lambda group: group.spawn(vthreads.Event().wait),
    "standard event": lambda group: group.spawn(threading.Event().wait),
    "queue": lambda group: group.spawn(vthreads.Queue().get),
    "standard queue": lambda group: group.spawn(queue.Queue().get),
    "channel": lambda group: group.spawn(vthreads.Channel().receive),
    "semaphore": lambda group: group.spawn(vthreads.Semaphore(0).acquire),
    "standard semaphore": lambda group: group.spawn(threading.Semaphore(0).acquire),
    "barrier": lambda group: group.spawn(vthreads.Barrier(2).wait),
}


@pytest.mark.parametrize("kind", MAKERS)
def test_the_kind_of_object_is_told(virtual, kind):
    def root():
        return wait_of(MAKERS[kind])

    assert kind.removeprefix("standard ") == virtual(root, patch=True)["kind"]


def keys_in(schema):
    """All keys of objects that the schema describes."""
    if isinstance(schema, list):
        return {key for part in schema for key in keys_in(part)}
    if not isinstance(schema, dict):
        return set()
    own = schema.get("properties", {})
    return {*own, *(key for part in schema.values() for key in keys_in(part))}


def test_the_page_names_keys_of_the_schema():
    rows = re.findall(r"^\| (`.*?) \|", SCHEMA.with_name("dump.md").read_text(), re.M)
    named = {key for row in rows for key in re.findall(r"`(\w+)`", row)}
    assert set() == named - keys_in(json.loads(SCHEMA.read_text())), (
        "docs/reference/dump.md names keys that do not exist"
    )


def test_every_primitive_has_a_kind():
    known = tuple(cls for _, classes in KINDS for cls in classes)
    primitives = [cls for cls in map(vars(vthreads).get, vthreads.__all__) if hasattr(cls, "statistics")]
    assert [] == [cls for cls in primitives if not issubclass(cls, known)], "add it to KINDS in debug/_waits.py"


def test_the_schema_and_its_page_list_every_kind_of_wait():
    kinds = {"timer", "descriptor", "permit", "park", *(kind for kind, _ in KINDS)}
    [row] = re.findall(r"^\| `kind` \| (`\"timer.*) \|$", SCHEMA.with_name("dump.md").read_text(), re.M)
    in_schema = json.loads(SCHEMA.read_text())["$defs"]["wait"]["properties"]["kind"]["enum"]
    assert kinds == set(in_schema), "list each kind of KINDS in docs/reference/dump.schema.json"
    assert kinds == set(re.findall(r'`"(\w+)"`', row)), "list each kind of KINDS in docs/reference/dump.md"


def wait_in(condition):
    with condition:
        condition.wait(7)


@pytest.mark.parametrize("module", [vthreads, threading], ids=lambda module: module.__name__)
def test_waiting_for_a_condition_is_told_from_waiting_for_its_lock(virtual, module):
    def root():
        condition = module.Condition()
        waiting = wait_of(lambda group: group.spawn(wait_in, condition))
        with condition:
            entering = wait_of(lambda group: group.spawn(wait_in, condition))
        return waiting, entering

    waiting, entering = virtual(root, patch=True)
    assert ("condition", "lock") == (waiting["kind"], entering["kind"])
    assert 7 == waiting["due_in"]


def test_a_future_and_a_join_name_the_thread(virtual):
    def root():
        with ThreadGroup() as group:
            target = group.spawn(sleep, 60)
            target.thread.name = "target"
            waits = [
                wait_of(lambda inner: inner.spawn(target.result)),
                wait_of(lambda inner: inner.spawn(target.thread.join, 5)),
            ]
            group.cancel()
        return waits

    result, join = virtual(root)
    assert ("future", "target", None) == (result["kind"], result["thread"]["name"], result["due_in"])
    assert ("thread", "target", 5) == (join["kind"], join["thread"]["name"], join["due_in"])


def first_completed(futures):
    next(vthreads.as_completed(futures))


@pytest.mark.parametrize("wait", [vthreads.wait, first_completed])
@pytest.mark.parametrize("count", [1, 5])
def test_a_wait_for_several_futures_shows_them(virtual, wait, count):
    def root():
        with ThreadGroup() as group:
            futures = [group.spawn(sleep, 60) for _ in range(count)]
            waits = wait_of(lambda inner: inner.spawn(wait, futures))
            reprs = list(map(repr, futures))
            group.cancel()
        return waits, reprs

    told, reprs = virtual(root)
    assert "future" == told["kind"]
    shown = told["object"].split(" or ")
    assert min(count, 3) == len(set(shown) & set(reprs))
    assert (["2 more"] if count == 5 else []) == shown[3:]
    assert (count == 1) == ("thread" in told)


def test_a_wait_for_several_channels_shows_them(virtual):
    def root():
        channels = [vthreads.Channel(), vthreads.Channel(1)]
        return wait_of(lambda group: group.spawn(vthreads.receive_any, *channels))

    wait = virtual(root)
    assert ("channel", "receive_any") == (wait["kind"], wait["call"])
    assert "<Channel open buffered=0/0> or <Channel open buffered=0/1>" == wait["object"]


def test_the_end_of_a_group_counts_the_members(virtual):
    def body():
        with ThreadGroup("crew") as crew:
            for _ in range(3):
                crew.spawn(sleep, 60)

    def root():
        return wait_of(lambda group: group.spawn(body))

    wait = virtual(root)
    assert ("group", 3) == (wait["kind"], wait["members"])


@pytest.mark.real
def test_a_socket_tells_its_peer():
    def root():
        ours, theirs = socket.socketpair(), socket.create_server(("127.0.0.1", 0))
        with theirs, ours[0], ours[1]:
            client = socket.create_connection(theirs.getsockname())
            server, _ = theirs.accept()
            with client, server:
                reading = wait_of(lambda group: group.spawn(server.recv, 1))
                accepting = wait_of(lambda group: group.spawn(theirs.accept))
                return reading, accepting, "{}:{}".format(*client.getsockname()), server.fileno()

    reading, accepting, address, fd = vthreads.run(root)
    assert [
        {"fd": fd, "until": "read", "file": "socket", "local": reading["descriptors"][0]["local"], "peer": address}
    ] == (reading["descriptors"])
    assert (None, "read") == (accepting["descriptors"][0]["peer"], accepting["descriptors"][0]["until"])


@pytest.mark.real
def test_a_pipe_and_a_select_tell_their_descriptors():
    def root():
        reader, writer = os.pipe()
        with socket.create_server(("127.0.0.1", 0)) as listener:
            reading = wait_of(lambda group: group.spawn(os.read, reader, 1))
            selecting = wait_of(lambda group: group.spawn(select.select, [reader, listener], [], []))
            address = "{}:{}".format(*listener.getsockname())
        os.close(reader)
        os.close(writer)
        return reading, selecting, address

    reading, selecting, address = vthreads.run(root)
    assert reading["descriptors"][0]["file"].startswith("pipe:")
    assert [None, address] == [one.get("local") for one in selecting["descriptors"]]


@pytest.mark.real
def test_an_offloaded_call_is_named_and_an_abandoned_one_stays():
    gate = threading.Event()

    def hold():
        gate.wait()

    def root():
        waiting = wait_of(lambda group: group.spawn(partial(offload, hold, on_cancel="abandon")))
        calls = look()["calls"]
        text = dump()
        gate.set()
        return waiting, calls, text

    waiting, calls, text = vthreads.run(root, patch=False)
    assert ("offload", True) == (waiting["kind"], waiting["function"].endswith("hold"))
    assert [True] == [call["abandoned"] for call in calls]
    assert "abandoned: no thread waits for it any more" in text


# --- the holder of a lock


def take_and_keep(lock):
    with lock:
        sleep(60)


def take_by_acquire(lock):
    lock.acquire()
    sleep(60)


def take(lock):
    with lock:
        pass


class Owner:
    def __init__(self, lock):
        self.lock = lock

    def keep(self):
        with self.lock:
            sleep(60)

    def keep_enclosed(self):
        with vthreads.CancelScope(), self.lock.lock():
            sleep(60)


def owner_while(keep, take):
    with ThreadGroup() as group:
        holder = group.spawn(keep).thread
        holder.name = "holder"
        wait = wait_of(lambda inner: inner.spawn(take))
        group.cancel()
        return wait["kind"], wait["owner"]


# By name, since those of `threading` are exchanged when the runtime starts.
@pytest.mark.parametrize("name", ["Lock", "RLock"])
@pytest.mark.parametrize("module", [vthreads, threading], ids=lambda module: module.__name__)
@pytest.mark.parametrize("keep", [take_and_keep, lambda lock: Owner(lock).keep()], ids=["name", "attribute"])
def test_the_holder_of_a_lock_is_found_by_its_block(virtual, module, name, keep):
    def root():
        lock = getattr(module, name)()
        return owner_while(partial(keep, lock), partial(take, lock))

    kind, owner = virtual(root, patch=True)
    assert ("lock", "holder") == (kind, owner["name"])
    assert owner["at"]["function"] in ("take_and_keep", "Owner.keep")


@contextlib.contextmanager
def holding(lock):
    with lock:
        yield


def keep_in_a_generator(lock):
    with holding(lock):
        sleep(60)


@pytest.mark.parametrize("module", [vthreads, threading], ids=lambda module: module.__name__)
def test_the_holder_of_a_lock_is_known_if_its_block_is_that_of_a_generator(virtual, module):
    def root():
        lock = module.Lock()
        return owner_while(partial(keep_in_a_generator, lock), partial(take, lock))

    kind, owner = virtual(root, patch=True)
    assert ("lock", "holder", None) == (kind, owner["name"], owner["at"])


@pytest.mark.real
def test_an_os_thread_that_holds_a_lock_in_a_generator_is_named():
    held, is_over = threading.Event(), threading.Event()
    lock = vthreads.Lock()

    def keep():
        with holding(lock):
            held.set()
            is_over.wait()

    def root():
        held.wait()
        wait = wait_of(lambda group: group.spawn(partial(take, lock)))
        is_over.set()
        return wait

    os_thread = threading.Thread(target=keep, name="plain")
    os_thread.start()
    wait = vthreads.run(root, patch=False)
    os_thread.join()
    assert "plain" == wait["owner"]["name"]


def test_a_lock_that_was_acquired_by_hand_tells_its_holder_only_if_it_knows_it(virtual):
    def root():
        plain, reentrant = vthreads.Lock(), vthreads.RLock()
        return (
            owner_while(partial(take_by_acquire, plain), partial(take, plain))[1],
            owner_while(partial(take_by_acquire, reentrant), partial(take, reentrant))[1],
        )

    plain, reentrant = virtual(root)
    assert plain is None
    assert ("holder", None) == (reentrant["name"], reentrant["at"])


def test_the_holder_of_a_mutex_is_found_by_its_block(virtual):
    def take_enclosed(mutex):
        with mutex.lock():
            pass

    def root():
        mutex = vthreads.Mutex({})
        return owner_while(Owner(mutex).keep_enclosed, partial(take_enclosed, mutex))

    kind, owner = virtual(root)
    assert ("lock", "holder", "Owner.keep_enclosed") == (kind, owner["name"], owner["at"]["function"])


def test_who_has_left_the_block_or_only_enters_it_holds_nothing(virtual):
    def enter_and_leave(lock, other):
        with other, lock:
            pass
        sleep(60)

    def root():
        lock, other = vthreads.Lock(), vthreads.Lock()
        lock.acquire()
        with ThreadGroup() as group:
            group.spawn(enter_and_leave, lock, other).thread.name = "enters"
            entering = wait_of(lambda inner: inner.spawn(take, lock))["owner"]
            before = wait_of(lambda inner: inner.spawn(take, other))["owner"]
            lock.release()
            sleep(1)
            lock.acquire()
            left = wait_of(lambda inner: inner.spawn(take, lock))["owner"]
            group.cancel()
        return entering, before["name"], left

    assert (None, "enters", None) == virtual(root)


def take_both(first, second):
    with first:
        sleep(1)
        with second:
            pass


def test_a_circle_of_locks_is_told_in_the_text(virtual):
    def root():
        a, b = vthreads.Lock(), threading.Lock()
        with ThreadGroup() as group:
            group.spawn(take_both, a, b).thread.name = "one"
            group.spawn(take_both, b, a).thread.name = "two"
            sleep(2)
            text = dump()
            group.cancel()
        return text

    text = virtual(root, patch=True)
    circle = text[text.index("DEADLOCK") :].splitlines()[1:3]
    assert ["'one'", "'two'"] == sorted(line.split()[0] for line in circle)
    assert all(re.search(r"waits for .*, held by '(one|two)' in .*take_both at ", line) for line in circle)


def test_a_circle_is_told_although_one_of_it_is_like_a_thread_that_is_not(virtual):
    def root():
        a, b, c = vthreads.Lock(), vthreads.Lock(), vthreads.Lock()
        with ThreadGroup() as group:
            for name, first, second in (("aside", c, a), ("one", b, a), ("two", a, b)):
                group.spawn(take_both, first, second).thread.name = name
            sleep(2)
            text, circle = dump(), here(look())["circle"]
            group.cancel()
        return text, circle

    text, circle = virtual(root)
    assert "and 1 more like it, 'one'" in text
    assert ["'one'", "'two'"] == sorted(line.split()[0] for line in text[text.index("DEADLOCK") :].splitlines()[1:3])
    assert ["one", "two"] == sorted(thread["name"] for thread in circle)


def test_every_thread_that_waits_for_an_rlock_names_its_owner(virtual):
    def take(lock):
        with lock:
            sleep(10)

    def root():
        lock = threading.RLock()
        with ThreadGroup() as group:
            group.spawn(take, lock).thread.name = "owner"
            for _ in range(3):
                group.spawn(take, lock)
            sleep(1)
            waits = [node["waits_for"] for node in here(look())["tree"] if node["type"] == "thread"]
            group.cancel()
        return [wait["owner"]["name"] for wait in waits if wait is not None and wait["kind"] == "lock"]

    assert ["owner"] * 3 == virtual(root, patch=True)


# --- as text


def test_the_text_shows_like_threads_once(virtual):
    def wait(event):
        event.wait()

    def root():
        event = vthreads.Event()
        with ThreadGroup("crowd") as group:
            for number in range(1000):
                group.spawn(wait, event).thread.name = f"member-{number}"
                sleep(0.001)
            text = dump()
            event.set()
        return text

    text = virtual(root)
    assert 1 == text.count("waits in Event.wait() of <Event")
    assert "and 999 more like it, 'member-1' to 'member-999', parked for up to 999 ms" in text


def spawned(count, root):
    """What `root()` returns beside `count` members of a group that sleep."""

    def body():
        with ThreadGroup("crowd") as group:
            for number in range(count):
                group.spawn(sleep, 60 + number).thread.name = f"member-{number}"
            sleep(1)
            found = root()
            group.cancel()
        return found

    return body


def test_the_data_has_each_thread_and_the_text_of_it_shows_like_ones_once(virtual):
    data = virtual(spawned(5, look))
    members = [node for node in here(data)["tree"] if node["name"].startswith("member")]
    assert [f"member-{number}" for number in range(5)] == [node["name"] for node in members]
    assert "and 4 more like it, 'member-1' to 'member-4', parked for up to 1.0 s" in render(data)


def test_folded_data_counts_what_is_left_out_of_it(virtual):
    tree = here(virtual(spawned(5, partial(snapshot, fold=True))))["tree"]
    assert ["MainThread", "crowd", "member-0"] == [node["name"] for node in tree]
    assert {"count": 4, "first": "member-1", "last": "member-4", "parked_for": 1.0} == tree[2]["more"]


def test_a_limit_counts_the_threads_beyond_it(virtual):
    carrier = here(virtual(spawned(5, partial(look, limit=4))))
    assert ["MainThread", "crowd", "member-0", "member-1"] == [node["name"] for node in carrier["tree"]]
    assert (3, 5) == (carrier["left_out"], carrier["threads"]["parked"])


def test_a_limit_of_the_text_counts_like_threads_as_one(virtual):
    within, beyond = virtual(spawned(5, lambda: (dump(limit=3), dump(limit=2))))
    assert "and 4 more like it" in within
    assert "beyond the limit" not in within
    assert "and 5 threads beyond the limit" in beyond


def test_a_limit_of_nothing_is_refused():
    with pytest.raises(ValueError, match="limit=0 is too small; give 1 or more"):
        dump(limit=0)


def test_the_text_can_leave_the_stacks_out(virtual):
    assert "File" in virtual(dump)
    assert "File" not in virtual(partial(dump, stacks=False))


def test_without_a_carrier_there_is_little_to_tell():
    assert [] == look()["carriers"]
    assert "no carrier" in dump()


def test_another_format_is_refused():
    with pytest.raises(ValueError, match='format=\'xml\': pass "text" or "json"'):
        dump("xml")


# --- from other OS threads


def dump_on_os_thread(**options):
    """Return the dump that a plain OS thread gets."""
    answers = []
    os_thread = threading.Thread(target=lambda: answers.append(look(**options)), name="asks")
    os_thread.start()
    os_thread.join()
    return answers[0]


@pytest.mark.real
def test_a_carrier_that_switches_answers_an_os_thread():
    def root():
        with ThreadGroup() as group:
            sleeper = group.spawn(sleep, 60).thread
            sleeper.name = "sleeper"
            let_park(sleeper)
            data = dump_on_os_thread(patience=30)
            group.cancel()
        return data

    (carrier,) = vthreads.run(root)["carriers"]
    assert not carrier["pinned"]
    sleeper = threads(carrier["tree"])["sleeper"]
    assert ("timer", "parked") == (sleeper["waits_for"]["kind"], sleeper["state"])


@pytest.mark.real
def test_a_pinned_carrier_is_read_from_outside_and_shows_the_stack_that_pins_it():
    answers = []
    is_pinned = allocate_lock()
    is_pinned.acquire()

    def look_on():
        is_pinned.acquire()
        answers.extend([look(patience=0.05), dump(patience=0.05)])

    def pin():
        is_pinned.release()
        while len(answers) < 2:
            pass

    def root():
        os_thread = threading.Thread(target=look_on)
        os_thread.start()
        with ThreadGroup() as group:
            sleeper = group.spawn(sleep, 60).thread
            sleeper.name = "sleeper"
            let_park(sleeper)
            pin()
            group.cancel()
        os_thread.join()
        return answers

    data, text = vthreads.run(root, patch=False)
    (carrier,) = data["carriers"]
    assert carrier["pinned"]
    assert "pin()" in [place["source"] for place in carrier["stack"]]
    assert "PINNED" in text
    everybody = threads(carrier["tree"])
    assert ("timer", "running") == (everybody["sleeper"]["waits_for"]["kind"], everybody["MainThread"]["state"])
    assert carrier["stack"] == everybody["MainThread"]["stack"]


@pytest.mark.real
def test_an_os_thread_that_has_only_just_begun_is_shown_by_its_name(monkeypatch):
    end = threading.Event()
    os_thread = threading.Thread(target=end.wait, name="early")
    os_thread.start()
    with monkeypatch.context() as earlier:
        # Where `threading` keeps it until a moment after `start` has returned.
        earlier.delitem(threading._active, os_thread.ident)
        earlier.setitem(threading._limbo, os_thread, os_thread)
        data = look()
    end.set()
    os_thread.join()
    assert "early" in {os_thread["name"] for os_thread in data["os_threads"]}


@pytest.mark.real
def test_all_carriers_and_the_other_os_threads_are_shown():
    def root():
        begun, end = threading.Event(), threading.Event()

        def on_carrier():
            vthreads.run(lambda: (begun.set(), offload(end.wait)), patch=False)

        os_threads = [
            threading.Thread(target=on_carrier, name="second"),
            threading.Thread(target=end.wait, name="plain"),
        ]
        for os_thread in os_threads:
            os_thread.start()
        begun.wait()
        data = look(patience=30)
        end.set()
        for os_thread in os_threads:
            os_thread.join()
        return data

    data = vthreads.run(root, patch=False)
    assert {"MainThread", "second"} == {carrier["os_thread"]["name"] for carrier in data["carriers"]}
    assert "plain" in {os_thread["name"] for os_thread in data["os_threads"]}
