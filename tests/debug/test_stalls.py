"""The stall monitor: who does not switch, where, in which C function, and who waits meanwhile."""

import os
import re
import subprocess
import sys
import threading
import time

import pytest

import vthreads
from vthreads import Event, Queue, ThreadGroup, checkpoint, debug, sleep
from vthreads._core import runtime
from vthreads.debug.callee import c_function_of
from vthreads.testing import max_stall

# Pins, whatever is patched later.
pin = getattr(time.sleep, "__wrapped__", time.sleep)


class Watch:
    """A monitor whose time is told by the test, and what it reported."""

    def __init__(self, threshold=1.0):
        self.time = 0.0
        self.stalls = []
        self.monitor = debug.StallMonitor(threshold, self.stalls.append, lambda: self.time)

    def look_after(self, seconds):
        self.time += seconds
        self.monitor.look()


@pytest.fixture
def watch():
    return Watch()


def test_who_does_not_switch_is_reported(virtual, watch):
    def pins():
        vthreads.current_thread().name = "pins"
        watch.look_after(0)
        watch.look_after(1)

    def root():
        vthreads.current_thread().name = "root"
        with ThreadGroup() as group:
            group.spawn(pins)

    virtual(root)
    [stall] = watch.stalls
    assert ("root", "pins", 1) == (stall.carrier, stall.thread, stall.seconds)
    assert "watch.look_after(1)" == stall.stack[-2].line
    assert not [frame for frame in stall.stack if "/vthreads/debug/" in frame.filename]


def test_a_switch_begins_a_new_run(virtual, watch):
    def root():
        for _ in range(10):
            watch.look_after(0.9)
            vthreads.checkpoint()

    virtual(root)
    assert [] == watch.stalls


def test_a_carrier_that_waits_for_work_does_not_stall(virtual, watch):
    def root():
        scheduler = vthreads.current_thread().scheduler
        # Called between two switches, as a poll is.
        for _ in range(5):
            scheduler.post(watch.look_after, 1)
            sleep(1)

    virtual(root)
    assert [] == watch.stalls


def test_a_place_is_reported_once(virtual, watch):
    def root():
        for _ in range(3):
            for _ in range(4):
                watch.look_after(1)
            vthreads.checkpoint()

    virtual(root)
    assert 1 == len(watch.stalls)


def test_each_place_is_reported(virtual, watch):
    def here(seconds):
        watch.time += seconds
        watch.monitor.look()

    def there(seconds):
        watch.time += seconds
        watch.monitor.look()

    def root():
        here(0)
        here(1)
        vthreads.checkpoint()
        there(0)
        there(1)

    virtual(root)
    assert ["here", "there"] == [stall.stack[-1].name for stall in watch.stalls]


def test_who_waits_meanwhile_is_counted(virtual, watch):
    event, queue = Event(), Queue()

    def root():
        with ThreadGroup() as group:
            for _ in range(3):
                group.spawn(queue.get)
            for _ in range(2):
                group.spawn(event.wait)
            event.set()
            watch.look_after(0)
            watch.look_after(1)
            for _ in range(3):
                queue.put(1)

    virtual(root)
    [stall] = watch.stalls
    assert (2, 3) == (stall.ready, stall.parked)


def test_the_start_of_the_runtime_is_no_stall(virtual, watch, monkeypatch):
    def slow_hook(scheduler, patch):
        watch.look_after(0)
        watch.look_after(1)

    monkeypatch.setattr(runtime, "start_hooks", [*runtime.start_hooks, slow_hook])
    virtual(checkpoint)
    assert [] == watch.stalls


def test_a_threshold_of_nothing_is_an_error():
    with pytest.raises(ValueError, match="above 0"):
        debug.watch_stalls(0)


# --- the C function


class Holder:
    def __init__(self):
        self.gate = vthreads._core.originals.allocate_lock()
        self.gate.acquire()

    @property
    def asked(self):
        raise AssertionError("code of the user's was run")


HOLDER = Holder()
sleeps = [pin]


def by_module():
    time.sleep(0.2)


def by_name():
    pin(0.2)


def by_attribute():
    HOLDER.gate.acquire(True, 0.2)


def by_local():
    gate = HOLDER.gate
    gate.acquire(timeout=0.2)


def by_outcome():
    sleeps.copy().pop()(0.2)


def by_subscript():
    sleeps[0](0.2)


def by_method_of_an_outcome():
    vars(HOLDER)["gate"].acquire(True, 0.2)


def by_choice():
    (None or pin)(0.2)


def in_the_midst():
    return [1, time.sleep(0.2), len("x")]


@pytest.mark.real
@pytest.mark.parametrize(
    ("function", "name"),
    [
        (by_module, "time.sleep"),
        (by_name, "time.sleep"),
        (by_attribute, "_thread.lock.acquire"),
        (by_local, "_thread.lock.acquire"),
        (by_outcome, "…"),
        (by_subscript, "…"),
        (by_method_of_an_outcome, "….acquire"),
        (by_choice, "…"),
        (in_the_midst, "time.sleep"),
    ],
)
def test_a_c_function_is_named(function, name):
    vthreads.unpatch()
    thread = threading.Thread(target=function)
    thread.start()
    pin(0.05)
    frame = sys._current_frames()[thread.ident]
    found = frame.f_code.co_name == function.__name__ and c_function_of(frame)
    thread.join()
    assert name == found


def test_python_code_is_no_c_function():
    frames = []

    def look():
        frames.append(sys._getframe().f_back)

    def calls():
        look()

    calls()
    assert c_function_of(frames[0]) is None


# --- on real time


@pytest.mark.real
def test_a_blocking_call_is_reported_while_it_blocks():
    reported = threading.Event()

    def root():
        with debug.watch_stalls(0.02, lambda stall: (stalls.append(stall), reported.set())):
            # Blocks until it has been reported.
            vthreads._core.originals.select([], [], [], 0.3)

    stalls = []
    vthreads.run(root)
    assert reported.is_set()
    assert "select.select" == stalls[0].function
    assert 0.02 <= stalls[0].seconds
    assert "is in select.select(), which is C code" in str(stalls[0])


@pytest.mark.real
def test_a_computation_is_reported_as_such():
    stalls = []

    def root():
        with debug.watch_stalls(0.05, stalls.append):
            total = 0
            while not stalls:
                total += len(str(total)) ** 2

    vthreads.run(root)
    assert "root" == stalls[0].stack[-1].name
    assert "are ready" in str(stalls[0])


@pytest.mark.real
def test_a_loop_around_a_c_function_is_a_computation():
    def functions():
        for _ in range(20):
            stalls = []
            with debug.watch_stalls(0.002, stalls.append):
                # At the call in two looks out of three.
                while not stalls:
                    time.perf_counter()
            yield stalls[0].function

    # A machine that is too busy to run the loop between two looks does not show it.
    assert 15 < vthreads.run(lambda: list(functions())).count(None)


@pytest.mark.real
def test_what_has_no_name_may_be_c_code():
    def root():
        with debug.watch_stalls(0.02, lambda stall: (stalls.append(stall), reported.set())):
            vars(vthreads._core.originals)["select"]([], [], [], 0.3)

    stalls, reported = [], threading.Event()
    vthreads.run(root)
    assert "…" == stalls[0].function
    assert "is in …(), which may be C code" in str(stalls[0])


@pytest.mark.real
def test_a_stall_is_a_failure_of_the_block():
    def root():
        with max_stall(0.03):
            pin(0.2)

    with pytest.raises(AssertionError, match=r"longer than 0.03 s: carrier .* is in time.sleep\(\)"):
        vthreads.run(root, patch=False)


def test_a_stall_is_a_note_on_the_failure_of_the_block():
    def root():
        with max_stall(0.03):
            pin(0.1)
            raise LookupError

    with pytest.raises(LookupError) as caught:
        vthreads.run(root, patch=False)
    assert "longer than 0.03 s: carrier" in caught.value.__notes__[0]


def test_a_call_that_keeps_the_gil_is_noticed_when_it_returns():
    def root():
        with max_stall(0.01):
            sum(range(10_000_000))

    with pytest.raises(AssertionError, match="has not switched for"):
        vthreads.run(root, patch=False)


def test_short_runs_are_no_failure():
    def root():
        with max_stall(5):
            for _ in range(100):
                sleep(0.0001)

    vthreads.run(root, patch=False)


@pytest.mark.real
def test_a_stall_on_virtual_time_is_one_of_real_time(virtual):
    def root():
        with max_stall(0.03):
            sleep(3600)
            pin(0.2)

    with pytest.raises(AssertionError, match="has not switched"):
        virtual(root)


@pytest.mark.real
def test_the_os_thread_ends_with_the_last_carrier_and_comes_back():
    def others():
        return {ident for ident in sys._current_frames() if ident != threading.get_ident()}

    def wait_until_ended():
        deadline = time.monotonic() + 10
        while others() - before and time.monotonic() < deadline:
            pin(0.001)
        assert set() == others() - before

    before = others()
    with debug.watch_stalls(0.01, lambda stall: None):
        assert before == others()
        for _ in range(2):
            assert 1 == len(vthreads.run(others) - before)
            wait_until_ended()


def program(tmp_path, text, *arguments, **environment):
    path = tmp_path / "program.py"
    path.write_text(text)
    return subprocess.run(
        [sys.executable, *arguments, str(path)],
        check=False,
        capture_output=True,
        text=True,
        timeout=30,
        env={**os.environ, **environment},
    )


STALLS = """\
import time, vthreads
sleep = time.sleep

def main():
    with vthreads.ThreadGroup() as group:
        group.spawn(vthreads.sleep, 0.01)
        blocks = [sleep]
        blocks[0](0.4)

vthreads.run(main, patch=False)
print("ended")
"""


@pytest.mark.real
def test_the_environment_asks_for_it(tmp_path):
    done = program(tmp_path, STALLS, VTHREADS_STALLS="0.05")
    assert (0, "ended\n") == (done.returncode, done.stdout)
    assert re.match(r"vthreads: carrier 'MainThread' has not switched for 0\.\d+ s: 'MainThread' ", done.stderr)
    assert "in main\n    blocks[0](0.4)" in done.stderr
    assert 1 == done.stderr.count("vthreads:")


@pytest.mark.real
def test_watching_does_not_keep_a_deadlock_from_being_seen(tmp_path):
    # Not here, where the handler that pytest-timeout has for SIGALRM could unpark somebody.
    done = program(tmp_path, "import vthreads\nvthreads.run(vthreads.Event().wait)", VTHREADS_STALLS="0.001")
    assert "DeadlockError: every virtual thread is parked" in done.stderr


@pytest.mark.real
def test_nothing_is_reported_unless_asked_for(tmp_path):
    assert "" == program(tmp_path, STALLS).stderr


@pytest.mark.real
def test_a_value_that_is_no_time_is_an_error(tmp_path):
    done = program(tmp_path, STALLS, VTHREADS_STALLS="soon")
    assert "VTHREADS_STALLS='soon': it takes a number of seconds" in done.stderr
    assert 0 != done.returncode


@pytest.mark.real
def test_the_command_line_asks_for_it(tmp_path):
    text = STALLS.replace("vthreads.run(main, patch=False)", "main()")
    done = program(tmp_path, text, "-m", "vthreads", "run", "--debug", VTHREADS_PATCH="0")
    assert (0, "ended\n") == (done.returncode, done.stdout)
    assert "has not switched for" in done.stderr


@pytest.mark.real
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of fork beside OS threads
def test_the_child_of_a_fork_is_watched_as_well():
    def root():
        with debug.watch_stalls(0.02, lambda stall: os.write(writer, b"stall")):
            pid = os.fork()
            if pid == 0:
                pin(0.2)
                os._exit(0)
            os.waitpid(pid, 0)

    reader, writer = os.pipe()
    vthreads.run(root)
    os.close(writer)
    assert b"stall" == os.read(reader, 5)
    os.close(reader)
