"""The carriers of `run(carriers=N)`: where threads run, and how all carriers start and end."""

import gc
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
import weakref
from collections import Counter
from contextvars import ContextVar
from functools import partial

import pytest

import vthreads
from vthreads import Future, Lock, Queue, Semaphore, ThreadGroup, run, shield, sleep
from vthreads._core import fleet as fleets
from vthreads._core.current import carriers
from vthreads._preemption import preempt
from vthreads.errors import DeadlockError
from vthreads.testing import SeededOrder, VirtualClock

# The standard library blocks the OS thread here: a call of it pins its carrier, which makes the tests exact.
pytestmark = pytest.mark.unpatched


def descriptors():
    return len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else 0


@pytest.fixture
def fleet():
    """Call a function on several carriers; afterwards no carrier and no descriptor may be left."""
    before = set(carriers), descriptors()
    yield partial(run, carriers=3, patch=False)
    assert before == (set(carriers), descriptors())


def carrier():
    return threading.get_native_id()


# --- arguments


def test_run_returns_the_result_of_its_function(fleet):
    assert (1, 2) == fleet(lambda *args: args, 1, 2)


def test_run_raises_what_its_function_raises(fleet):
    def root():
        raise KeyError("broken")

    with pytest.raises(KeyError, match="broken"):
        fleet(root)


@pytest.mark.parametrize(
    "options",
    [{"clock": VirtualClock()}, {"order": SeededOrder(1)}, {"poller": "asyncio"}, {"preempt": 0.01}],
    ids=["clock", "order", "poller", "preempt"],
)
def test_options_that_need_a_single_carrier_are_refused(options):
    ((name, _),) = options.items()
    with pytest.raises(ValueError, match=f"carriers=2 with {name}="):
        run(lambda: None, carriers=2, **options)


def test_a_run_with_several_carriers_cannot_be_preempted_later_either(fleet):
    with pytest.raises(RuntimeError, match=r"preempt=0\.01 in a run with several carriers"):
        fleet(lambda: preempt(vthreads.current_thread()._scheduler, 0.01))


def test_a_number_of_carriers_that_is_not_whole_is_refused():
    with pytest.raises(TypeError, match=r"carriers=1\.5"):
        run(lambda: None, carriers=1.5)


def test_an_unknown_placement_is_refused():
    with pytest.raises(ValueError, match="placement='everywhere'"):
        ThreadGroup(placement="everywhere")


# --- placement


def test_spread_threads_run_on_all_carriers_at_once(fleet):
    def root():
        # Each thread pins its carrier until all of them do.
        all_pinned = threading.Barrier(3)
        with ThreadGroup(placement="spread") as g:
            futures = [g.spawn(lambda: (all_pinned.wait(), carrier())[1]) for _ in range(3)]
        return {future.result() for future in futures}

    assert 3 == len(fleet(root))


def test_a_thread_stays_on_its_carrier(fleet):
    def visits():
        seen = set()
        for _ in range(20):
            seen.add(carrier())
            sleep(0)
        return len(seen)

    def root():
        with ThreadGroup(placement="spread") as g:
            futures = [g.spawn(visits) for _ in range(12)]
        return {future.result() for future in futures}

    assert {1} == fleet(root)


def test_by_default_a_child_runs_at_once_on_the_carrier_of_its_spawner(fleet):
    def member():
        ran = []
        with ThreadGroup() as inner:
            inner.spawn(lambda: ran.append(carrier()))
            assert [carrier()] == ran
            vthreads.spawn(lambda: ran.append(carrier()))
            assert [carrier()] * 2 == ran
        return True

    def root():
        with ThreadGroup(placement="spread") as g:
            futures = [g.spawn(member) for _ in range(9)]
        return all(future.result() for future in futures)

    assert fleet(root)


def test_a_member_on_another_carrier_spawns_into_the_group_of_the_root_on_its_own_carrier(fleet):
    def root():
        with ThreadGroup() as outer:

            def member():
                return carrier() == outer.spawn(carrier).result()

            with ThreadGroup(placement="spread") as g:
                futures = [g.spawn(member) for _ in range(9)]
        return all(future.result() for future in futures)

    assert fleet(root)


def test_with_one_carrier_a_spread_thread_does_not_run_before_spawn_returns():
    def root():
        ran = []
        with ThreadGroup(placement="spread") as g:
            g.spawn(ran.append, 1)
            g.spawn(ran.append, 2)
            before = list(ran)
        return before, ran

    assert ([], [1, 2]) == run(root, patch=False)


def test_the_context_of_the_spawner_is_copied(fleet):
    colour = ContextVar("colour")

    def root():
        colour.set("red")
        with ThreadGroup(placement="spread") as g:
            futures = [g.spawn(colour.get) for _ in range(6)]
            colour.set("blue")
        return [future.result() for future in futures]

    assert ["red"] * 6 == fleet(root)


def test_what_a_pinned_carrier_has_not_started_is_started_elsewhere(fleet):
    def root():
        go_on = threading.Lock()
        go_on.acquire()
        ran = []

        def short(number):
            ran.append(number)
            if len(ran) == 30:
                go_on.release()

        with ThreadGroup(placement="spread") as g:
            # Two of three carriers are pinned until the last of the other threads has run.
            for _ in range(2):
                g.spawn(lambda: (go_on.acquire(), go_on.release()))
            for number in range(30):
                g.spawn(short, number)
        return sorted(ran)

    assert list(range(30)) == fleet(root)


def test_threads_that_are_parked_on_a_pinned_carrier_run_there_when_it_is_back(fleet):
    def root():
        begun, event, queue, ran = Semaphore(0), vthreads.Event(), Queue(), []
        go_on = threading.Lock()
        go_on.acquire()

        def waits(for_it):
            ran.append((for_it(), carrier()))

        def pins():
            with ThreadGroup() as here:
                for for_it in event.wait, queue.get, partial(sleep, 0.001):
                    here.spawn(waits, for_it)
                begun.release()
                with go_on:
                    return carrier()

        with ThreadGroup(placement="spread") as g:
            pinned = g.spawn(pins)
            begun.acquire()
            event.set()
            queue.put("item")
            sleep(0.01)
            meanwhile = list(ran)
            go_on.release()
        return meanwhile, {place for _, place in ran} == {pinned.result()}, {value for value, _ in ran}

    assert ([], True, {True, "item", None}) == fleet(root)


@pytest.mark.parametrize("waits", [True, False])
@pytest.mark.parametrize("width", [2, 4])
def test_a_carrier_that_is_never_idle_starts_what_a_pinned_one_has_not_started(fleet, width, waits):
    def root():
        go_on, pinned, ran = threading.Lock(), threading.Barrier(width), []
        go_on.acquire()

        def pins():
            pinned.wait()
            with go_on:
                pass

        def busy():
            while len(ran) < 20:
                sleep(0)

        with ThreadGroup(placement="spread") as g, ThreadGroup() as here:
            # With ready threads here, the other carriers have fewer, and get the threads below before they are pinned.
            for _ in range(30):
                here.spawn(busy)
            for _ in range(width - 1):
                g.spawn(pins)
            if waits:
                pinned.wait()
            for number in range(20):
                g.spawn(ran.append, number)
            if not waits:
                pinned.wait()
            busy()
            go_on.release()
        return sorted(ran)

    assert list(range(20)) == fleet(root, carriers=width)


@pytest.mark.parametrize("width", [3, 4])
def test_a_child_that_waits_for_a_permit_is_not_bound_to_a_pinned_carrier(fleet, width):
    def root():
        go_on = threading.Lock()
        go_on.acquire()
        ran = []

        def short(number):
            ran.append(number)
            if len(ran) == 10:
                go_on.release()

        def parent(g):
            for number in range(10):
                g.spawn(short, number)
            # It pins its own carrier, and keeps its permit.
            with go_on:
                pass

        with ThreadGroup(placement="spread", max_concurrency=2) as g:
            g.spawn(parent, g)
        return sorted(ran)

    assert list(range(10)) == fleet(root, carriers=width)


def test_threads_are_placed_on_the_carriers_with_the_fewest_threads(fleet):
    def root():
        counted = Counter()

        def parks():
            counted[carrier()] += 1
            sleep(60)

        with ThreadGroup(placement="spread") as g:
            for _ in range(12):
                thread = g.spawn(parks).thread
                while thread.state.value != "parked":
                    sleep(0.001)
            g.cancel()
        return counted

    # Six on each of the two carriers that are idle at each spawn. A bit more if one of them is not idle yet.
    assert max(fleet(root).values()) <= 8


def test_threads_start_although_no_carrier_is_ever_idle(fleet):
    def root():
        begun, ran = threading.Barrier(3), []

        def busy():
            begun.wait()
            while len(ran) < 50:
                sleep(0)

        with ThreadGroup(placement="spread") as g:
            for _ in range(3):
                g.spawn(busy)
            for number in range(50):
                g.spawn(ran.append, number)
                while len(ran) <= number:
                    sleep(0)
        return ran

    assert list(range(50)) == fleet(root)


def test_a_busy_carrier_starts_its_threads_while_all_others_are_pinned(fleet):
    def root():
        ran = []

        def busy():
            while not ran:
                sleep(0)

        with ThreadGroup(placement="spread") as g, ThreadGroup() as here:
            # With ready threads here, the other carrier has fewer.
            for _ in range(9):
                here.spawn(sleep, 0)
            g.spawn(busy)
            g.spawn(ran.append, 1)
            while not ran:
                time.sleep(0.001)
        return ran

    # The other carrier wakes up before or after the second spawn.
    assert [[1]] * 30 == [fleet(root, carriers=2) for _ in range(30)]


def test_the_threads_of_a_carrier_start_in_the_order_of_their_spawns(fleet):
    def root():
        go_on, pinned, ran = threading.Lock(), threading.Barrier(2), []
        go_on.acquire()

        def pins():
            pinned.wait()
            with go_on:
                pass

        with ThreadGroup(placement="spread") as g, ThreadGroup() as here:
            # With ready threads here, the other carrier has fewer.
            for _ in range(30):
                here.spawn(sleep, 0)
            g.spawn(pins)
            pinned.wait()
            for number in range(20):
                g.spawn(ran.append, number)
            go_on.release()
            while len(ran) < 20:
                time.sleep(0.001)
        return ran

    assert list(range(20)) == fleet(root, carriers=2)


def test_an_idle_carrier_starts_a_thread_before_one_that_is_unparked_pins_it(fleet):
    def root():
        event, ran = vthreads.Event(), []

        def pins():
            event.wait()
            while not ran:
                time.sleep(0.001)

        def busy():
            while not ran:
                sleep(0)

        with ThreadGroup(placement="spread") as g, ThreadGroup() as here:
            thread = g.spawn(pins).thread
            while thread.state.value != "parked":
                sleep(0.001)
            for _ in range(9):
                here.spawn(busy)
            # The other carrier wakes up at the first message, or has both.
            event.set()
            g.spawn(ran.append, 1)
            busy()
        return ran

    assert [[1]] * 30 == [fleet(root, carriers=2) for _ in range(30)]


def test_a_thread_is_freed_after_its_end(fleet):
    def root():
        with ThreadGroup(placement="spread") as g:
            references = [weakref.ref(g.spawn(sleep, 0.001).thread) for _ in range(9)]
            for _ in range(1000):
                gc.collect()
                if not any(reference() for reference in references):
                    return "freed"
                sleep(0.001)
            return "kept"

    assert "freed" == fleet(root)


def test_a_thread_that_another_os_thread_spawns_runs_while_the_carrier_waits():
    def root():
        here, ran = vthreads.current_thread(), vthreads.Event()

        def spawns():
            while here.state.value != "parked":
                pass
            g.spawn(ran.set)

        with ThreadGroup(placement="spread") as g:
            os_thread = threading.Thread(target=spawns)
            os_thread.start()
            ran.wait()
        os_thread.join()

    run(root, patch=False)


@pytest.mark.parametrize("placement", ["same", "spread"])
def test_a_child_that_is_cancelled_while_it_waits_for_a_permit_gives_none_back(fleet, placement):
    def root():
        permits, ran = Semaphore(1), []

        def parent():
            children = [g.spawn(ran.append, number) for number in range(5)]
            for child in children:
                child.cancel()
            return children

        with ThreadGroup(placement=placement, max_concurrency=permits) as g:
            children = g.spawn(parent)
        assert all(child.cancelled() for child in children.result())
        return [permits.acquire(blocking=False) for _ in range(2)], ran

    assert ([True, False], []) == fleet(root)


def test_no_more_members_run_at_once_than_the_group_allows(fleet):
    def root():
        running, most = [], []

        def member(depth):
            running.append(1)
            most.append(len(running))
            if depth:
                g.spawn(member, depth - 1)
            sleep(0.001)
            running.pop()

        with ThreadGroup(placement="spread", max_concurrency=4) as g:
            for _ in range(10):
                g.spawn(member, 3)
        return max(most), len(most)

    most, count = fleet(root)
    assert (True, 40) == (most <= 4, count)


# --- failures and cancellation


def test_a_failure_on_one_carrier_cancels_the_members_on_the_others(fleet):
    def root():
        started = Queue()
        all_pinned = threading.Barrier(3)

        def member(number):
            all_pinned.wait()
            started.put(number)
            if number == 1:
                raise KeyError(number)
            sleep(60)

        futures = []
        with pytest.raises(ExceptionGroup) as caught:
            with ThreadGroup(placement="spread") as g:
                futures += [g.spawn(member, number) for number in range(3)]
        assert [KeyError] == [type(error) for error in caught.value.exceptions]
        return [future.cancelled() for future in futures]

    assert [True, False, True] == fleet(root)


def test_cancel_reaches_parked_members_on_all_carriers(fleet):
    def root():
        all_pinned, started = threading.Barrier(3), Semaphore(0)
        cleaned = []

        def member():
            all_pinned.wait()
            started.release()
            try:
                sleep(60)
            finally:
                sleep(0.001)
                cleaned.append(carrier())

        with ThreadGroup(placement="spread") as g:
            futures = [g.spawn(member) for _ in range(3)]
            for _ in range(3):
                started.acquire()
            g.cancel()
        return [future.cancelled() for future in futures], len(set(cleaned))

    assert ([True] * 3, 3) == fleet(root)


def test_a_deadline_of_the_root_ends_members_on_other_carriers(fleet):
    def root():
        with vthreads.CancelScope() as scope, ThreadGroup(placement="spread") as g:
            futures = [g.spawn(sleep, 60) for _ in range(6)]
            scope.deadline = vthreads.now() + 0.05
        return scope.cancelled_caught, [future.cancelled() for future in futures]

    assert (True, [True] * 6) == fleet(root)


@pytest.mark.parametrize("sets_on", ["a carrier", "an OS thread"])
def test_a_deadline_that_another_os_thread_sets_ends_a_wait(fleet, sets_on):
    def root():
        scopes = Queue()

        def member():
            with vthreads.CancelScope() as scope:
                scopes.put(scope)
                sleep(60)
            return scope.cancelled_caught

        def set_deadline():
            scope.deadline = vthreads.now() + 0.01

        with ThreadGroup(placement="spread") as g:
            future = g.spawn(member)
            while future.thread.state.value != "parked":
                # Not a checkpoint: another carrier starts it, and waits.
                pass
            scope = scopes.get()
            set_deadline() if sets_on == "a carrier" else vthreads.offload(set_deadline)
        return future.result()

    assert fleet(root)


def test_a_cancelled_thread_that_has_not_started_never_runs(fleet):
    def root():
        go_on = threading.Lock()
        go_on.acquire()
        ran = []
        others_pinned = threading.Barrier(3)
        with ThreadGroup(placement="spread") as g:
            for _ in range(2):
                g.spawn(lambda: (others_pinned.wait(), go_on.acquire(), go_on.release()))
            others_pinned.wait()
            with ThreadGroup(placement="spread", max_concurrency=1) as limited:

                def parent():
                    children = [limited.spawn(ran.append, number) for number in range(20)]
                    limited.cancel()
                    return children

                children = limited.spawn(parent)
            go_on.release()
        return ran, [child.cancelled() for child in children.result()]

    assert ([], [True] * 20) == fleet(root)


def test_an_interrupt_reaches_a_thread_on_another_carrier(fleet):
    def root():
        parked = Queue()

        def member():
            try:
                parked.put(vthreads.current_thread())
                sleep(60)
            except vthreads.errors.Interrupted:
                return "interrupted"

        with ThreadGroup(placement="spread") as g:
            futures = [g.spawn(member) for _ in range(6)]
            for _ in range(6):
                assert parked.get().interrupt()
        return {future.result() for future in futures}

    assert {"interrupted"} == fleet(root)


# --- primitives between carriers


def test_a_queue_passes_items_between_carriers(fleet):
    def root():
        requests, answers = Queue(), Queue()

        def echo():
            while (item := requests.get()) is not None:
                answers.put(item)

        with ThreadGroup(placement="spread") as g:
            for _ in range(3):
                g.spawn(echo)
            for number in range(100):
                requests.put(number)
            got = sorted(answers.get() for _ in range(100))
            for _ in range(3):
                requests.put(None)
        return got

    assert list(range(100)) == fleet(root)


def test_a_lock_excludes_threads_of_other_carriers(fleet):
    def root():
        lock, count = Lock(), [0]

        def add():
            for _ in range(50):
                with lock:
                    before = count[0]
                    sleep(0)
                    count[0] = before + 1

        with ThreadGroup(placement="spread") as g:
            for _ in range(6):
                g.spawn(add)
        return count[0]

    assert 300 == fleet(root)


# --- the end


def test_run_joins_the_background_threads_of_all_carriers(fleet):
    def root():
        home = carrier()

        def member():
            all_pinned.wait()
            # Those of the other carriers end last.
            return vthreads.spawn(lambda: (sleep(0.05 if carrier() != home else 0), "done")[1])

        all_pinned = threading.Barrier(3)
        with ThreadGroup(placement="spread") as g:
            futures = [g.spawn(member) for _ in range(3)]
        return [future.result() for future in futures]

    futures: list[Future[str]] = fleet(root)
    assert ["done"] * 3 == [future.result(0) for future in futures]


def test_run_joins_what_a_background_thread_of_another_carrier_starts_on_the_first_one(fleet):
    ended = []

    def root():
        background, started = ThreadGroup.current, []

        def starts_another():
            sleep(0.01)
            background.spawn(lambda: (sleep(0.01), ended.append(carrier())))

        def member():
            vthreads.spawn(starts_another)
            started.append(carrier())

        with ThreadGroup(placement="spread") as g:
            g.spawn(member)
            while not started:
                # Not a checkpoint: another carrier starts it.
                pass
        return carrier(), started[0]

    home, other = fleet(root)
    assert home != other
    assert [home] == ended


def test_a_background_thread_may_spread_others_while_the_run_ends(fleet):
    ended = []

    def background(depth):
        sleep(0.01)
        with ThreadGroup(placement="spread") as g:
            for _ in range(4):
                g.spawn(lambda: ended.append(depth))
        if depth:
            vthreads.spawn(background, depth - 1)

    fleet(lambda: (vthreads.spawn(background, 3), None)[1])
    assert [3, 3, 3, 3, 2, 2, 2, 2, 1, 1, 1, 1, 0, 0, 0, 0] == ended


def test_if_a_carrier_cannot_start_the_others_end(fleet, monkeypatch):
    start, started = fleets.start_own_os_thread, []

    def start_one(*args):
        if started:
            raise RuntimeError("can't start new thread")
        started.append(args)
        start(*args)

    monkeypatch.setattr(fleets, "start_own_os_thread", start_one)
    with pytest.raises(RuntimeError, match="can't start new thread"):
        fleet(lambda: pytest.fail("it ran"))


def test_the_failure_of_a_carrier_on_its_os_thread_is_raised(fleet, monkeypatch):
    def fails(*_, **__):
        raise OSError("no descriptor is left")

    monkeypatch.setattr(fleets, "Carrier", fails)
    with pytest.raises(OSError, match="no descriptor is left"):
        fleet(lambda: pytest.fail("it ran"))


def test_one_run_may_follow_another(fleet):
    assert [0, 1, 2, 3] == [fleet(lambda number: number, number) for number in range(4)]


# --- deadlocks


@pytest.mark.timeout(0)  # the signal handler of pytest-timeout counts as something that could unpark a thread
def test_a_deadlock_of_all_carriers_is_raised_in_the_root(fleet):
    def root():
        nothing = Queue()
        with ThreadGroup("doomed", placement="spread") as g:
            for _ in range(6):
                g.spawn(nothing.get)

    with pytest.raises(ExceptionGroup) as caught:
        fleet(root)
    (error,) = caught.value.exceptions
    assert isinstance(error, DeadlockError)
    assert 6 == str(error).count("Queue.get()") + str(error).count("get() of <vthreads")
    # The roots of the other carriers only wait for the end of the run.
    assert "carrier-" not in str(error)


@pytest.mark.timeout(0)  # likewise
def test_a_carrier_that_waits_for_a_busy_one_is_not_deadlocked(fleet):
    def root():
        go_on = threading.Lock()
        go_on.acquire()

        def pinned():
            all_pinned.wait()
            # No other OS thread of the program exists, so the end of this wait is a timeout.
            return go_on.acquire(timeout=0.3)

        # The carrier of the root is the one that would report a deadlock.
        all_pinned = threading.Barrier(3)
        with ThreadGroup(placement="spread") as g:
            futures = [g.spawn(pinned) for _ in range(2)]
            all_pinned.wait()
            return [future.result() for future in futures]

    assert [False, False] == fleet(root)


@pytest.mark.real
@pytest.mark.parametrize(
    "waits",
    ["vthreads.offload(time.sleep, 0.3)", "subprocess.check_output(['sleep', '0.3'])", "time.sleep(0.3)"],
)
def test_a_carrier_that_waits_for_the_outside_is_not_deadlocked(waits):
    lines, status = output_of(f"""
        import subprocess, threading, time, vthreads

        def waits():
            begun.append(True)
            {waits}
            print("over", flush=True)
            ended.release()

        def root():
            with vthreads.ThreadGroup(placement="spread") as g:
                g.spawn(waits)
                while not begun:
                    # Not a checkpoint: the other carrier starts it.
                    pass
                ended.acquire()

        begun, ended = [], vthreads.Semaphore(0)
        vthreads.run(root, carriers=2)
    """)
    assert (["over"], 0) == (lines, status)


# --- inspection


@pytest.mark.real
def test_a_dump_names_the_pinned_carrier_and_the_function_that_pins_it(fleet):
    def root():
        go_on, pinned = threading.Lock(), threading.Barrier(2)
        go_on.acquire()

        def pins():
            pinned.wait()
            with go_on:
                return carrier()

        with ThreadGroup("work", placement="spread") as g:
            g.spawn(pins)
            pinned.wait()
            parked = [g.spawn(sleep, 60) for _ in range(4)]
            while any(future.thread.state.value != "parked" for future in parked):
                sleep(0.001)
            data = vthreads.offload(vthreads.debug.snapshot, patience=2)
            go_on.release()
            g.cancel()
        return data

    carriers = fleet(root)["carriers"]
    (pinned,) = [one for one in carriers if one["pinned"]]
    assert pinned["os_thread"]["name"] in ("carrier-2", "carrier-3")
    assert "pins" in pinned["stack"][-1]["function"]
    nodes = [node for node in carriers[0]["tree"] if node["type"] == "thread" and node["spawned_at"]]
    assert [pinned["os_thread"]["name"]] == [node["carrier"] for node in nodes if node["state"] == "running"]
    # Four sleep, three roots are parked; no thread is counted twice.
    assert 7 == sum(one["threads"].get("parked", 0) for one in carriers)


@pytest.mark.real
def test_load_and_metrics_count_each_thread_on_its_carrier(fleet):
    def root():
        with ThreadGroup(placement="spread") as g:
            parked = [g.spawn(sleep, 60) for _ in range(6)]
            while any(future.thread.state.value != "parked" for future in parked):
                sleep(0.001)
            load, metrics = vthreads.offload(vthreads.debug.load, patience=20), vthreads.debug.metrics()
            g.cancel()
        return load, metrics

    load, metrics = fleet(root)
    assert 3 == len(load["carriers"]) == len(metrics.carriers)
    assert 6 + 3 == sum(one["threads"].get("parked", 0) for one in load["carriers"])
    assert 6 + 2 == sum(one.threads["parked"] for one in metrics.carriers)


def test_all_carriers_have_the_poller_of_the_run(fleet):
    def root():
        return [one["poller"] for one in vthreads.debug.snapshot(patience=20)["carriers"]]

    assert ["poll"] * 3 == fleet(root, poller="poll")


# --- signals and forks, each in a process of its own


def output_of(program):
    """What a process prints that runs `program`."""
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)], capture_output=True, text=True, timeout=60, check=False
    )
    assert "" == done.stderr
    return done.stdout.split("\n")[:-1], done.returncode


@pytest.mark.real
def test_ctrl_c_ends_members_on_all_carriers():
    lines, status = output_of("""
        import os, signal, vthreads

        def member(parked):
            try:
                parked.release()
                vthreads.sleep(60)
            finally:
                os.write(1, b"cleaned up\\n")

        def root():
            parked = vthreads.Semaphore(0)
            with vthreads.ThreadGroup(placement="spread") as g:
                for _ in range(4):
                    g.spawn(member, parked)
                for _ in range(4):
                    parked.acquire()
                os.kill(os.getpid(), signal.SIGINT)
                vthreads.sleep(60)

        try:
            vthreads.run(root, carriers=3)
        except KeyboardInterrupt:
            print("KeyboardInterrupt")
    """)
    assert (["cleaned up"] * 4 + ["KeyboardInterrupt"], 0) == (lines, status)


@pytest.mark.real
@pytest.mark.parametrize("ends_by", ["Ctrl-C", "Ctrl-C in the root", "the end of the run"])
def test_background_threads_and_daemons_of_other_carriers_are_cancelled_at_the_end(ends_by):
    lines, status = output_of(f"""
        import os, signal, threading, vthreads

        def waits():
            try:
                begun.append(True)
                vthreads.sleep(60)
            finally:
                os.write(1, b"cleaned up\\n")

        def member():
            if {"Ctrl-C" in ends_by}:
                vthreads.spawn(waits)
            else:
                threading.Thread(target=waits, daemon=True).start()

        def root():
            with vthreads.ThreadGroup(placement="spread") as g:
                g.spawn(member)
                while not begun:
                    # Not a checkpoint: another carrier starts it.
                    pass
            if {"Ctrl-C" in ends_by}:
                vthreads.spawn(lambda: (vthreads.sleep(0.01), os.kill(os.getpid(), signal.SIGINT)))
            if {ends_by == "Ctrl-C in the root"}:
                vthreads.sleep(60)

        begun = []
        vthreads.patch(threads=True)
        try:
            vthreads.run(root, carriers=2)
        except KeyboardInterrupt:
            print("KeyboardInterrupt")
        print(vthreads.debug.snapshot()["carriers"])
    """)
    assert (["cleaned up", *(["KeyboardInterrupt"] if "Ctrl-C" in ends_by else []), "[]"], 0) == (lines, status)


@pytest.mark.real
def test_the_second_ctrl_c_ends_shields_on_all_carriers():
    lines, status = output_of("""
        import os, signal, vthreads

        def member(parked):
            with vthreads.shield(60):
                parked.release()
                vthreads.sleep(60)

        def presses():
            for _ in range(2):
                os.kill(os.getpid(), signal.SIGINT)
                vthreads.sleep(0.2)

        def root():
            parked = vthreads.Semaphore(0)
            with vthreads.ThreadGroup(placement="spread") as g:
                for _ in range(4):
                    g.spawn(member, parked)
                for _ in range(4):
                    parked.acquire()
                vthreads.spawn(presses)
                vthreads.sleep(60)

        try:
            vthreads.run(root, carriers=3)
        except KeyboardInterrupt:
            print("KeyboardInterrupt")
    """)
    assert (["KeyboardInterrupt"], 0) == (lines, status)


@pytest.mark.real
@pytest.mark.parametrize("forks_in", ["root()", "g.spawn(root).result()"])
def test_the_child_of_a_fork_has_a_single_carrier(forks_in):
    lines, status = output_of(f"""
        import os, signal, warnings, vthreads
        warnings.simplefilter("ignore")

        def root():
            pid = os.fork()
            if pid:
                _, status = os.waitpid(pid, 0)
                print("parent", status, flush=True)
                return
            with vthreads.ThreadGroup(placement="spread") as inner:
                futures = [inner.spawn(lambda: (vthreads.sleep(0.001), number)[1]) for number in range(4)]
            print("child", [future.result() for future in futures], flush=True)

        def main():
            with vthreads.ThreadGroup(placement="spread") as g:
                for _ in range(4):
                    g.spawn(vthreads.sleep, 0.2)
                {forks_in}

        vthreads.run(main, carriers=3)
    """)
    assert (["child [3, 3, 3, 3]", "parent 0"], 0) == (lines, status)


@pytest.mark.real
@pytest.mark.parametrize("placement", ["same", "spread"])
def test_the_child_of_a_fork_gives_no_permit_to_a_thread_of_its_parent(placement):
    lines, status = output_of(f"""
        import os, sys, vthreads

        def member():
            queued = g.spawn(print, "ran", flush=True)
            pid = os.fork()
            if pid:
                _, status = os.waitpid(pid, 0)
                print("parent", status, flush=True)
                return
            permits.release()
            print("child", permits.acquire(blocking=False), flush=True)
            vthreads.sleep(0.001)

        def main():
            global g
            with vthreads.ThreadGroup(max_concurrency=permits, placement="{placement}") as g:
                g.spawn(member)

        permits = vthreads.Semaphore(1)
        vthreads.run(main)
    """)
    assert (["child True", "parent 0", "ran"], 0) == (lines, status)


def test_signals_are_blocked_on_no_carrier(fleet):
    if not hasattr(signal, "pthread_sigmask"):
        pytest.skip("this platform has no signal masks")
    here = signal.pthread_sigmask(signal.SIG_BLOCK, ())

    def root():
        all_pinned = threading.Barrier(3)
        with ThreadGroup(placement="spread") as g:
            futures = [
                g.spawn(lambda: (all_pinned.wait(), signal.pthread_sigmask(signal.SIG_BLOCK, ()))[1]) for _ in range(3)
            ]
        return [future.result() for future in futures]

    assert [here] * 3 == fleet(root)


def test_a_shield_protects_a_member_on_another_carrier(fleet):
    def root():
        parked, ended = Queue(), []

        def member():
            with shield(60):
                parked.put(1)
                sleep(0.05)
            ended.append(1)

        with ThreadGroup(placement="spread") as g:
            for _ in range(4):
                g.spawn(member)
            for _ in range(4):
                parked.get()
            g.cancel()
        return len(ended)

    assert 4 == fleet(root)
