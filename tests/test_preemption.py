"""`run(preempt=…)`: threads that compute take turns, and nothing of the runtime is entered half done."""

import ast
import asyncio
import importlib
import os
import random
import signal
import subprocess
import sys
import threading
import time
import weakref
from pathlib import Path

import pytest

import vthreads
from vthreads import (
    Channel,
    Event,
    Lock,
    Mutex,
    Queue,
    Semaphore,
    ThreadGroup,
    aio,
    checkpoint,
    gather,
    move_on_after,
    sleep,
)
from vthreads import _patching as patching
from vthreads import _preemption as preemption
from vthreads._core.spawn_site import ENTRIES

pytestmark = [pytest.mark.real, pytest.mark.unpatched]

# CPython gives the OS thread that watches its turn after 5 ms: less would not be noticed.
SECONDS = 0.004


def run(fn, /, *args, **options):
    return vthreads.run(fn, *args, **{"preempt": SECONDS, **options})


@pytest.fixture(autouse=True)
def the_signal_is_given_back():
    before = signal.getsignal(signal.SIGURG)
    yield
    assert before is signal.getsignal(signal.SIGURG)


def computes(until):
    """No checkpoint in it."""
    steps = 0
    while not until():
        steps += 1
    return steps


def ticks(count=5):
    """A condition that is true after the watching OS thread has looked `count` times."""
    looks = []
    original = preemption.state.ticker._tick

    def look():
        looks.append(None)
        original()

    preemption.state.ticker._tick = look
    return lambda: len(looks) >= count


# --- turns


def test_threads_that_compute_take_turns():
    turns = []

    def takes_turns(name):
        for _ in range(5):
            turns.append(name)
            computes(lambda: turns[-1] != name)

    def root():
        with ThreadGroup() as group:
            group.spawn(takes_turns, "a")
            group.spawn(takes_turns, "b")
            # The last to take a turn waits for somebody else's.
            group.spawn(lambda: computes(lambda: len(turns) == 10 and (turns.append("c") or True)))

    run(root)
    assert {"a": 5, "b": 5, "c": 1} == {name: turns.count(name) for name in "abc"}


def test_the_root_is_preempted_as_well():
    done = []

    def root():
        with ThreadGroup() as group:
            group.spawn(lambda: (sleep(0), done.append(1)))
            computes(lambda: done)

    run(root)


def test_a_spawner_goes_on_while_its_child_computes():
    def root():
        go_on = []
        with ThreadGroup() as group:
            group.spawn(computes, lambda: go_on)
            go_on.append(1)

    run(root)


def test_timers_and_descriptors_get_through():
    reader, writer = os.pipe()

    def root():
        heard = []
        with ThreadGroup() as group:
            group.spawn(lambda: heard.append(os.read(reader, 1)))
            group.spawn(lambda: (sleep(0.01), os.write(writer, b"x")))
            computes(lambda: heard)
        return heard

    assert [b"x"] == run(root)
    os.close(reader)
    os.close(writer)


def test_thunks_and_standard_threads_are_preempted():
    seen = []
    first, second = (lambda: seen.append(1) or computes(lambda: len(seen) > 1)), (lambda: seen.append(2))
    run(gather, first, second)

    def root():
        flags = []
        vthreads.patch(threads=True)
        thread = threading.Thread(target=computes, args=(lambda: flags,))
        thread.start()
        flags.append(1)
        thread.join()

    try:
        run(root)
    finally:
        vthreads.unpatch()
        patching.state.refused = False


def test_who_calls_c_code_all_the_time_is_preempted_right_after_a_call():
    def once():
        go_on, late = [], ticks(50)

        def asks():
            while not go_on:
                # It releases the GIL, so that the watch comes at this call most of the time.
                os.stat(".")

        with ThreadGroup() as group:
            group.spawn(asks)
            go_on.append(1)
        return late()

    assert [False] * 5 == run(lambda: [once() for _ in range(5)])


def test_who_runs_handlers_of_signals_all_the_time_is_preempted():
    def root():
        go_on = []
        signal.signal(signal.SIGUSR1, lambda *_: None)
        with ThreadGroup() as group:
            group.spawn(computes, lambda: signal.raise_signal(signal.SIGUSR1) or go_on)
            go_on.append(1)

    before = signal.getsignal(signal.SIGUSR1)
    try:
        run(root)
    finally:
        signal.signal(signal.SIGUSR1, before)


def test_nobody_is_preempted_unless_asked_for():
    before = signal.getsignal(signal.SIGURG)

    def root():
        with ThreadGroup() as group:
            order = []
            end = time.monotonic() + 0.05
            group.spawn(lambda: computes(lambda: time.monotonic() > end) and order.append("child"))
            order.append("spawner")
        return order, signal.getsignal(signal.SIGURG)

    assert (["child", "spawner"], before) == vthreads.run(root)


# --- what is left alone


def turns_of_others(inside, looks=5):
    """Call `inside(fn)`, which is to call `fn`, a function that computes: how often others had a turn meanwhile.

    It computes until the first turn, or until the OS thread that watches the time has looked so many times.
    """
    others = []

    def root():
        seen = []

        def computes_here():
            before = len(others)
            end = ticks(looks)
            computes(lambda: len(others) > before or end())
            seen.append(len(others) - before)

        with ThreadGroup() as group:
            over = []
            group.spawn(lambda: [others.append(checkpoint()) for _ in iter(lambda: not over, False)])
            inside(computes_here)
            over.append(1)
        return seen

    return run(root)


def test_a_callback_inside_the_runtime_is_not_preempted():
    def inside(fn):
        with ThreadGroup() as group:
            # It is called in the thread that ends.
            group.spawn(sleep, 0).add_done_callback(lambda _: fn())

    assert [0] == turns_of_others(inside)


def test_a_finalizer_is_not_preempted():
    class Dropped:
        def __init__(self, fn):
            self.fn = fn

        def __del__(self):
            self.fn()

    def inside(fn):
        Dropped(fn)

    assert [0] == turns_of_others(inside)


def test_what_a_weak_reference_calls_is_not_preempted():
    class Dropped:
        pass

    def inside(fn):
        weakref.finalize(Dropped(), fn)

    assert [0] == turns_of_others(inside)


def test_an_import_is_not_preempted(tmp_path, monkeypatch):
    (tmp_path / "computes_at_import.py").write_text("import builtins\nbuiltins.called_at_import()\n")
    monkeypatch.syspath_prepend(tmp_path)

    def inside(fn):
        monkeypatch.setattr("builtins.called_at_import", fn, raising=False)
        import computes_at_import  # noqa: F401

    assert [0] == turns_of_others(inside)


def test_what_gives_something_back_is_not_preempted():
    def inside(fn):
        with vthreads._core.delivery.deferred_delivery():
            fn()

    assert [0] == turns_of_others(inside)


def test_c_code_that_looks_for_signals_is_not_preempted(tmp_path):
    with open(tmp_path / "file", "wb") as file:

        def writes(until):
            while not until():
                file.write(b"x")
                # It looks while it holds the lock of `file`, which refuses another call on the same OS thread.
                file.flush()

        def root():
            end = ticks(30)
            with ThreadGroup() as group:
                for _ in range(3):
                    group.spawn(writes, end)

        run(root)


async def on_a_virtual_thread(fn):
    await aio.to_vthread(fn)


CALLERS = {
    "the root": lambda fn: fn(),
    "spawn": lambda fn: vthreads.spawn(fn).result(),
    "gather": gather,
    "gather, with exceptions": lambda fn: gather(fn, return_exceptions=True),
    "race": vthreads.race,
    "first_completed": vthreads.first_completed,
    "map": lambda fn: list(vthreads.map(lambda _: fn(), "1")),
    "map, with exceptions": lambda fn: list(vthreads.map(lambda _: fn(), "1", return_exceptions=True)),
    "the items of map": lambda fn: list(vthreads.map(int, (fn() or item for item in "1"))),
    "to_vthread": lambda fn: asyncio.run(on_a_virtual_thread(fn)),
}


@pytest.mark.parametrize("caller", CALLERS)
def test_code_of_the_program_is_preempted_wherever_it_may_park(caller):
    [turns] = turns_of_others(CALLERS[caller], looks=2000)
    assert turns > 0


def test_the_functions_that_call_code_of_the_program_exist():
    for module, name in ENTRIES:
        defined = ast.walk(ast.parse(Path(importlib.import_module(module).__file__).read_text("utf-8")))
        assert name in {node.name for node in defined if isinstance(node, ast.FunctionDef)}, (module, name)


# --- adversaries


def busy(steps):
    """Some bytecodes between which somebody may be preempted."""
    total = 0
    for number in range(steps):
        total += number
    return total


def test_a_lock_holds_between_preempted_threads():
    lock, counts = Lock(), {"sum": 0}

    def adds():
        for _ in range(30):
            with lock:
                before = counts["sum"]
                busy(2_000)
                counts["sum"] = before + 1

    def root():
        with ThreadGroup() as group:
            for _ in range(8):
                group.spawn(adds)

    run(root)
    assert 240 == counts["sum"]


def test_standard_locks_and_queues_hold_between_preempted_threads():
    import queue

    def root():
        waiting, taken = queue.Queue(maxsize=3), []

        def puts(start):
            for number in range(start, start + 100):
                busy(500)
                waiting.put(number)

        def takes():
            for _ in range(100):
                taken.append(waiting.get())
                busy(500)

        with ThreadGroup() as group:
            for number in range(4):
                group.spawn(puts, 100 * number)
                group.spawn(takes)
        return sorted(taken)

    assert list(range(400)) == run(root)


def test_every_item_arrives_once():
    queue, channel, taken = Queue(maxsize=2), Channel(), []

    def puts(start):
        for number in range(start, start + 100):
            busy(300)
            queue.put(number)

    def moves():
        for _ in range(100):
            channel.send(queue.get())

    def takes():
        for _ in range(100):
            taken.append(channel.receive())
            busy(300)

    def root():
        with ThreadGroup() as group:
            for number in range(3):
                for work in (lambda number=number: puts(100 * number), moves, takes):
                    group.spawn(work)

    run(root)
    assert list(range(300)) == sorted(taken)


@pytest.mark.parametrize("seed", range(3))
def test_nothing_is_lost_under_random_cancellation(seed):
    chance = random.Random(seed)
    permits, guarded, lock = Semaphore(3), Mutex([0]), Lock()
    inside = []

    def works():
        for _ in range(20):
            with move_on_after(chance.uniform(0, 0.02)):
                with permits, lock, guarded.lock() as value:
                    inside.append(1)
                    assert 1 == len(inside)
                    value[0] += 1
                    busy(chance.randrange(5_000))
                    inside.pop()
                busy(chance.randrange(5_000))
                sleep(0.001)

    def root():
        with ThreadGroup() as group:
            for _ in range(10):
                group.spawn(works)
        assert 3 == permits.statistics().value
        assert lock.acquire(timeout=0)
        lock.release()
        with guarded.lock() as value:
            return value[0]

    assert 0 < run(root) <= 200


def test_threads_may_be_spawned_while_others_are_preempted():
    def root():
        def grows(depth):
            busy(1_000)
            if depth:
                with ThreadGroup() as group:
                    futures = [group.spawn(grows, depth - 1) for _ in range(3)]
                return sum(future.result() for future in futures)
            return 1

        return grows(5)

    assert 243 == run(root)


def test_a_cancelled_thread_ends_at_its_next_checkpoint_and_not_before():
    def root():
        steps = []

        def cancelled():
            steps.append("computes")
            computes(lambda: group.cancelled)
            steps.append("goes on")
            sleep(1)
            steps.append("never")

        class Group(ThreadGroup):
            cancelled = False

        with Group() as group:
            group.spawn(cancelled)
            group.cancel()
            group.cancelled = True
        return steps

    assert ["computes", "goes on"] == run(root)


def test_a_users_signal_handler_runs_while_threads_are_preempted():
    def root():
        came = []
        signal.signal(signal.SIGUSR1, lambda *_: came.append(1))
        with ThreadGroup() as group:
            group.spawn(computes, lambda: came)
            os.kill(os.getpid(), signal.SIGUSR1)
            computes(lambda: came)

    before = signal.getsignal(signal.SIGUSR1)
    try:
        run(root)
    finally:
        signal.signal(signal.SIGUSR1, before)


def test_an_exception_in_flight_stays_with_its_thread():
    def fails(number, other):
        try:
            raise LookupError(number)
        except LookupError as error:
            seen[number] = True
            computes(lambda: other in seen)
            busy(20_000)
            mine.append(error is sys.exc_info()[1])

    seen, mine = {}, []
    run(gather, lambda: fails(1, 2), lambda: fails(2, 1))
    assert [True, True] == mine


# --- limits and the end


def test_a_time_that_is_none_is_an_error():
    with pytest.raises(ValueError, match="must be > 0 seconds, got 0"):
        run(checkpoint, preempt=0)


def test_the_time_may_be_changed():
    def root():
        vthreads.patch(preempt=SECONDS)
        flags = []
        with ThreadGroup() as group:
            group.spawn(computes, lambda: flags)
            flags.append(1)

    run(root, preempt=3600)
    vthreads.run(root)


def test_another_os_thread_cannot_be_preempted():
    errors = []

    def elsewhere():
        try:
            run(checkpoint)
        except RuntimeError as error:
            errors.append(str(error))

    thread = threading.Thread(target=elsewhere)
    thread.start()
    thread.join()
    assert "only the main OS thread" in errors[0]


def test_a_handler_of_the_users_is_not_taken_away():
    def handler(*_):
        pass

    before = signal.signal(signal.SIGURG, handler)
    try:
        with pytest.raises(RuntimeError, match="SIGURG is needed for it, but has the handler"):
            run(checkpoint)
        assert handler is signal.getsignal(signal.SIGURG)
    finally:
        signal.signal(signal.SIGURG, before)


def test_a_handler_that_comes_later_ends_the_preemption():
    def root():
        came = []
        signal.signal(signal.SIGURG, lambda *_: came.append(1))
        end = ticks(4)
        with ThreadGroup() as group:
            order = []
            group.spawn(lambda: (computes(end), order.append("child")))
            order.append("spawner")
        signal.signal(signal.SIGURG, signal.SIG_DFL)
        return order, came

    assert (["child", "spawner"], []) == run(root)


def test_it_goes_on_in_the_child_of_a_fork():
    def root():
        pid = os.fork()
        if pid == 0:
            flags = []
            with ThreadGroup() as group:
                group.spawn(computes, lambda: flags)
                flags.append(1)
            os._exit(7)
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])

    assert 7 == run(root)


def test_a_deadlock_is_still_seen():
    # Not here, where the handler that pytest-timeout has for SIGALRM could unpark somebody.
    program = f"import vthreads; vthreads.run(vthreads.Event().wait, preempt={SECONDS})"
    done = subprocess.run([sys.executable, "-c", program], check=False, capture_output=True, text=True, timeout=200)
    assert "DeadlockError: every virtual thread is parked" in done.stderr


def test_waiting_takes_no_time_of_the_processor():
    def root():
        before = time.process_time()
        Event().wait(0.2)
        return time.process_time() - before

    # A hundred looks of some microseconds each.
    assert run(root) < 0.1
