"""The stall monitor: who does not switch, where, in which C function, and who waits meanwhile."""

import math
import os
import re
import subprocess
import sys
import threading
import time

import pytest

import vthreads
from tests.stall_watch import Watch
from vthreads import Event, Queue, ThreadGroup, checkpoint, debug, sleep
from vthreads._core import carrier
from vthreads._core.participants import Participant, participants
from vthreads.debug import _stalls
from vthreads.debug._c_function import c_function_of
from vthreads.testing import VirtualClock, max_stall

pytestmark = pytest.mark.unpatched


def pin(seconds):
    """Block the carrier, whatever is patched: a patch also exchanges the references of this module."""
    vthreads._core.originals.sleep(seconds)


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
        scheduler = vthreads.current_thread()._scheduler
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
    def slow_start(scheduler, patch):
        watch.look_after(0)
        watch.look_after(1)

    after_all = Participant(started=slow_start)
    monkeypatch.setattr(carrier, "participants", lambda: iter([*participants(), after_all]))
    virtual(checkpoint)
    assert [] == watch.stalls


def test_a_threshold_of_nothing_is_an_error():
    with pytest.raises(ValueError, match="must be > 0 seconds, got 0"):
        debug.watch_stalls(0)


# --- the C function


class Holder:
    """A lock that is held and a pipe that is empty."""

    def close(self):
        """End the calls that wait for one of them."""
        self.gate.release()
        os.close(self.writable)

    @property
    def asked(self):
        raise AssertionError("code of the user's was run")


HOLDER = Holder()
read = os.read
functions = [read]


def by_module():
    os.read(HOLDER.readable, 1)


def by_name():
    read(HOLDER.readable, 1)


def by_attribute():
    HOLDER.gate.acquire()


def by_local():
    gate = HOLDER.gate
    gate.acquire(timeout=1000)


def by_outcome():
    functions.copy().pop()(HOLDER.readable, 1)


def by_subscript():
    functions[0](HOLDER.readable, 1)


def by_method_of_an_outcome():
    vars(HOLDER)["gate"].acquire(True, 1000)


def by_choice():
    (None or read)(HOLDER.readable, 1)


def by_name_in_hot_code():
    """Python replaces the instructions of a call that is often made; on 3.11 another one than CALL makes it then."""
    os.write(HOLDER.writable, bytes(100))
    for _ in range(101):
        read(HOLDER.readable, 1)


def by_module_in_hot_code():
    os.write(HOLDER.writable, bytes(100))
    for _ in range(101):
        os.read(HOLDER.readable, 1)


def in_the_midst():
    return [1, os.read(HOLDER.readable, 1), len("x")]


@pytest.mark.real
@pytest.mark.parametrize(
    ("function", "name"),
    [
        (by_module, "posix.read"),
        (by_name, "posix.read"),
        (by_attribute, "_thread.lock.acquire"),
        (by_local, "_thread.lock.acquire"),
        (by_outcome, "…"),
        (by_subscript, "…"),
        (by_method_of_an_outcome, "….acquire"),
        (by_choice, "…"),
        (in_the_midst, "posix.read"),
        (by_name_in_hot_code, "posix.read"),
        (by_module_in_hot_code, "posix.read"),
    ],
)
def test_a_c_function_is_named(function, name):
    def found():
        frame = sys._current_frames()[thread.ident]
        return c_function_of(frame) if frame.f_code is function.__code__ else None

    vthreads.unpatch()
    HOLDER.gate = vthreads._core.originals.allocate_lock()
    HOLDER.gate.acquire()
    HOLDER.readable, HOLDER.writable = os.pipe()
    thread = threading.Thread(target=function)
    thread.start()
    # It reaches the C function at some time, and stays there.
    give_up = time.monotonic() + 100
    while found() != name and time.monotonic() < give_up:
        pin(0.001)
    named = found()
    HOLDER.close()
    thread.join()
    os.close(HOLDER.readable)
    # Some functions leave it acquired. A later patch in this process would warn of it.
    del HOLDER.gate
    assert name == named


def test_python_code_is_no_c_function():
    frames = []

    def look():
        frames.append(sys._getframe().f_back)

    def calls():
        look()

    calls()
    assert c_function_of(frames[0]) is None


# --- on real time


class Reports:
    """The stalls that were reported, and a descriptor that is readable when there is one."""

    def __init__(self):
        self.stalls = []
        self.readable, self.writable = os.pipe()

    def __call__(self, stall):
        self.stalls.append(stall)
        os.write(self.writable, b"x")


@pytest.fixture
def reports():
    reports = Reports()
    yield reports
    os.close(reports.readable)
    os.close(reports.writable)


@pytest.mark.real
def test_a_blocking_call_is_reported_while_it_blocks(reports):
    def root():
        with debug.watch_stalls(0.1, reports):
            vthreads._core.originals.select([reports.readable], [], [])

    vthreads.run(root)
    # Where it was at the first look depends on the load of the machine.
    assert 0.1 <= reports.stalls[0].seconds


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


class Loop:
    """A carrier that waits in a C function at one of two places, and goes on to the other one when the test says so."""

    def __init__(self):
        self.ident = threading.get_ident()
        self.gates = [vthreads._core.originals.allocate_lock() for _ in range(2)]
        for gate in self.gates:
            gate.acquire()
        self.rounds = 0

    def run(self, is_over):
        while not is_over():
            self.gates[0].acquire()
            self.rounds += 1
            self.gates[1].acquire()
            self.rounds += 1

    def wait_for_round(self, number):
        """Wait until the carrier has left its place so many times, and is in the C function again."""
        while self.rounds < number or self.function() is None:
            pin(0.001)

    def function(self):
        frame = sys._current_frames()[self.ident]
        return c_function_of(frame) if frame.f_code is Loop.run.__code__ else None

    def go_on(self, seconds=0):
        number = self.rounds
        self.gates[number % 2].release()
        self.wait_for_round(number + 1)


def test_a_loop_around_a_c_function_is_a_computation(watch, monkeypatch):
    loop = Loop()

    def look_on():
        loop.wait_for_round(0)
        watch.look_after(0)
        # The monitor looks again and again at a carrier that is in a C function, after a moment each.
        monkeypatch.setattr(_stalls, "sleep", loop.go_on)
        watch.look_after(1)
        for gate in loop.gates:
            gate.release()

    os_thread = threading.Thread(target=look_on)
    os_thread.start()
    vthreads.run(lambda: loop.run(lambda: watch.stalls), patch=False)
    os_thread.join()
    assert [None] == [stall.function for stall in watch.stalls]


def select_by_name(readable):
    vthreads._core.originals.select([readable], [], [])


def select_by_subscript(readable):
    vars(vthreads._core.originals)["select"]([readable], [], [])


@pytest.mark.real
@pytest.mark.parametrize(
    ("call", "function", "text"),
    [
        (select_by_name, "select.select", "is in select.select(), which is C code"),
        (select_by_subscript, "…", "is in …(), which may be C code"),
    ],
    ids=["named", "nameless"],
)
def test_the_report_names_the_c_function(watch, call, function, text):
    carrier_ident = threading.get_ident()
    readable, writable = os.pipe()

    def is_in_the_function():
        frame = sys._current_frames()[carrier_ident]
        return frame.f_code is call.__code__ and c_function_of(frame) is not None

    def look_on():
        while not is_in_the_function():
            pin(0.001)
        watch.look_after(0)
        watch.look_after(1)
        os.write(writable, b"x")

    os_thread = threading.Thread(target=look_on)
    os_thread.start()
    vthreads.run(lambda: call(readable), patch=False)
    os_thread.join()
    os.close(readable)
    os.close(writable)
    [stall] = watch.stalls
    assert function == stall.function
    assert text in str(stall)


@pytest.mark.real
def test_a_stall_is_a_failure_of_the_block():
    def root():
        with max_stall(0.03):
            pin(0.2)

    # Where it was at the first look depends on the load of the machine.
    with pytest.raises(AssertionError, match=r"longer than 0.03 s: carrier .* has not switched for"):
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


def after_spawns(group):
    for _ in range(5):
        group.spawn(sleep, 0)
    sum(range(10_000_000))


def after_an_interrupt(group):
    # As Ctrl-C does, so that the next checkpoint delivers it.
    vthreads.current_thread()._scheduler.slice_end = -math.inf
    sum(range(10_000_000))


@pytest.mark.parametrize("clock", [None, "virtual"])
@pytest.mark.parametrize("stall", [after_spawns, after_an_interrupt])
def test_a_call_that_keeps_the_gil_is_noticed_whatever_ran_before(stall, clock):
    def root():
        with max_stall(0.01), ThreadGroup() as group:
            # The monitor has seen the run of this thread before the stall begins.
            pin(0.02)
            stall(group)

    with pytest.raises(AssertionError, match="has not switched for"):
        vthreads.run(root, patch=False, clock=clock and VirtualClock())


def sum_in_thread(numbers):
    with ThreadGroup() as group:
        group.spawn(sum, numbers)


def sum_in_map(numbers):
    list(vthreads.map(sum, [numbers]))


@pytest.mark.real
@pytest.mark.parametrize("call", [sum_in_thread, sum_in_map])
def test_a_c_function_of_a_thread_is_named_with_the_place_of_the_spawn(call):
    named = []

    def report(stall):
        # On a busy machine, the monitor finds other code as well.
        if "is in sum(), which is C code" in str(stall):
            named.append(stall)

    def root():
        monitor = debug.StallMonitor(0.05, report, once_a_place=False)
        monitor.start()
        with monitor:
            while not named:
                call(range(10_000_000))

    vthreads.run(root, patch=False)
    assert call.__name__ == named[0].stack[-1].name


def test_a_thread_without_a_frame_is_reported_with_the_place_of_the_spawn(virtual):
    stalls = []
    monitor = debug.StallMonitor(1, stalls.append, iter([0, 0, 1]).__next__)

    def root():
        with ThreadGroup() as group:
            group.spawn(list, map(debug.StallMonitor.look, [monitor, monitor]))

    virtual(root)
    [stall] = stalls
    assert "group.spawn(list, map(debug.StallMonitor.look, [monitor, monitor]))" == stall.stack[-1].line


def test_short_runs_are_no_failure():
    def root():
        with max_stall(60):
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
        while others() - before:
            pin(0.001)

    def wait_until_begun():
        # It has no frame before it runs.
        while not others() - before:
            pin(0.001)
        return others() - before

    before = others()
    with debug.watch_stalls(0.01, lambda stall: None):
        assert before == others()
        for _ in range(2):
            assert 1 == len(vthreads.run(wait_until_begun))
            wait_until_ended()


def program(tmp_path, text, *arguments, **environment):
    path = tmp_path / "program.py"
    path.write_text(text)
    return subprocess.run(
        [sys.executable, *arguments, str(path)],
        check=False,
        capture_output=True,
        input="",
        text=True,
        timeout=200,
        env={**os.environ, **environment},
    )


def stalled_program(tmp_path, text, *arguments, **environment):
    """Run the program; end the input, for which its carrier blocks, when the place of the block has been reported."""
    path = tmp_path / "program.py"
    path.write_text(text)
    with subprocess.Popen(
        [sys.executable, *arguments, str(path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, **environment},
    ) as process:
        report = []
        for line in process.stderr:
            report.append(line)
            if "blocks[0](0, 1)" in line:
                break
        out, err = process.communicate(timeout=200)
    return process.returncode, out, "".join(report) + err


STALLS = """\
import os, vthreads
read = os.read

def main():
    with vthreads.ThreadGroup() as group:
        group.spawn(vthreads.sleep, 0.01)
        blocks = [read]
        blocks[0](0, 1)

vthreads.run(main, patch=False)
print("ended")
"""


@pytest.mark.real
def test_the_environment_asks_for_it(tmp_path):
    status, out, err = stalled_program(tmp_path, STALLS, VTHREADS_STALLS="0.05")
    assert (0, "ended\n") == (status, out)
    assert re.match(r"vthreads: carrier 'MainThread' has not switched for \d+\.\d+ s: 'MainThread' ", err)
    assert "in main\n    blocks[0](0, 1)" in err
    assert 1 == err.count("vthreads:")


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
    assert "VTHREADS_STALLS='soon': set it to a number of seconds" in done.stderr
    assert 0 != done.returncode


@pytest.mark.real
def test_the_command_line_asks_for_it(tmp_path):
    text = STALLS.replace("vthreads.run(main, patch=False)", "main()")
    status, out, err = stalled_program(tmp_path, text, "-m", "vthreads", "run", "--debug", VTHREADS_PATCH="0")
    assert (0, "ended\n") == (status, out)
    assert "has not switched for" in err


@pytest.mark.real
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of fork beside OS threads
def test_the_child_of_a_fork_is_watched_as_well():
    def root():
        # On a busy machine, the fork itself may be a stall, in either process.
        with debug.watch_stalls(0.02, lambda stall: reporters.add(os.getpid())):
            pid = os.fork()
            if pid == 0:
                while os.getpid() not in reporters:
                    pin(0.01)
                os._exit(7)
            return os.waitpid(pid, 0)[1]

    reporters = set()
    assert 7 == os.waitstatus_to_exitcode(vthreads.run(root))
