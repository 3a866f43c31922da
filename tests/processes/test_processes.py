"""Children: a wait parks, no other wait loses its child, and a cancelled start or wait leaves nothing behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from contextlib import contextmanager

import pytest

import vthreads
from vthreads import ThreadGroup
from vthreads._calls.processes import children
from vthreads._calls.processes import waiting as waiting_module
from vthreads._os_threads.calls import calls_under_way
from vthreads.testing import VirtualClock

pytestmark = pytest.mark.real


def virtual(fn, *args):
    return vthreads.run(fn, *args, clock=VirtualClock())


@contextmanager
def child(code=0, process_group=None):
    """The pid of a child that ends with `code` when it is told to, and what tells it. Reaped by the test."""
    with held(f"exit {code}", process_group=process_group) as (process, end):
        # Of no concern to the Popen any more.
        process.returncode = 0
        yield process.pid, end


@contextmanager
def held(script, before=":", **options):
    """A shell that runs `before`, waits, and runs `script` when it is told to; and what tells it."""
    read, write = os.pipe()
    process = subprocess.Popen(["sh", "-c", f"{before}; read line; {script}"], stdin=read, **options)
    os.close(read)
    try:
        yield process, lambda: os.write(write, b"\n")
    finally:
        os.close(write)


def with_pidfd(monkeypatch):
    if not hasattr(os, "pidfd_open"):
        pytest.skip("this platform has no pidfds")


def without_pidfd(monkeypatch):
    monkeypatch.setattr(children, "original_pidfd_open", None)


def with_neither_pidfd_nor_waitid(monkeypatch):
    monkeypatch.setattr(children, "original_pidfd_open", None)
    monkeypatch.setattr(children, "original_waitid", None)


@pytest.fixture(params=[with_pidfd, without_pidfd, with_neither_pidfd_nor_waitid], ids=lambda way: way.__name__)
def way(request, monkeypatch):
    """Each way to be notified of a child."""
    request.param(monkeypatch)


# --- os.wait and similar calls


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("waitpid", ("1", 0)),
        ("waitpid", (1.5, 0)),
        ("waitpid", (1, "x")),
        ("waitpid", (1, None)),
        ("waitpid", (10**30, 0)),
        ("wait3", ("x",)),
        ("wait4", (None, 0)),
        ("wait4", (1, 1.5)),
        ("waitid", (os.P_ALL, 0, "x")),
        ("waitid", (os.P_PID, "x", os.WEXITED)),
        *((name, (1,) * count) for name in ("waitpid", "wait4") for count in (0, 1, 3)),
        *(("wait3", (1,) * count) for count in (0, 2)),
        *(("waitid", (1,) * count) for count in (0, 2, 4)),
    ],
)
def test_wrong_arguments_are_refused_in_the_words_of_the_original(name, arguments):
    original = getattr(waiting_module, f"original_{name}")
    with pytest.raises((TypeError, OverflowError)) as expected:
        original(*arguments)
    with pytest.raises(expected.type) as refused:
        vthreads.run(lambda: getattr(os, name)(*arguments))
    assert str(expected.value) == str(refused.value)


def as_waitpid(info):
    return info.si_pid, info.si_status << 8


ONE = {
    "waitpid": lambda pid: os.waitpid(pid, 0)[:2],
    "wait4": lambda pid: os.wait4(pid, 0)[:2],
    "waitid": lambda pid: as_waitpid(os.waitid(os.P_PID, pid, os.WEXITED)),
}
ANY = {
    "wait": lambda pid: os.wait(),
    "waitpid of any": lambda pid: os.waitpid(-1, 0),
    "waitpid of a group": lambda pid: os.waitpid(-os.getpgid(pid), 0),
    "wait3": lambda pid: os.wait3(0)[:2],
}


@pytest.mark.parametrize("call", [*ONE, *ANY])
def test_others_run_while_one_waits_for_a_child(call, way):
    def root():
        with child(3, process_group=0) as (pid, end), ThreadGroup() as group:
            waiting = group.spawn({**ONE, **ANY}[call], pid)
            assert "parked" == waiting.thread.state.value
            end()
            assert (pid, 3 << 8) == waiting.result()

    virtual(root)


@pytest.mark.parametrize("call", [*ONE, *ANY])
def test_a_child_that_nobody_waited_for_in_the_end_can_be_waited_for_again(call, way):
    wait = {**ONE, **ANY}[call]

    def root():
        with child(3) as (pid, end):
            for _ in range(3):
                with vthreads.move_on_after(1) as scope:
                    wait(pid)
                assert scope.cancelled_caught
            end()
            assert (pid, 3 << 8) == wait(pid)

    virtual(root)


@pytest.mark.parametrize("call", ONE)
def test_of_two_that_wait_for_one_child_one_is_told_that_there_is_none(call, way):
    def outcome(pid):
        try:
            return ONE[call](pid)
        except ChildProcessError:
            return "none"

    def root():
        with child() as (pid, end), ThreadGroup() as group:
            waiting = [group.spawn(outcome, pid) for _ in range(2)]
            end()
            assert {(pid, 0), "none"} == {future.result() for future in waiting}

    virtual(root)


def test_a_child_that_was_reaped_elsewhere_is_gone(way):
    def root():
        with child() as (pid, end), ThreadGroup(on_failure="continue") as group:
            waiting = group.spawn(os.waitpid, pid, 0)
            end()
            # Blocks the carrier, so no other thread can reap it.
            waiting_module.original_waitpid(pid, 0)
            assert isinstance(waiting.exception(), ChildProcessError)

    virtual(root)


def test_the_children_of_others_are_left_to_them():
    """A wait for one child does not take another one, and a wait for any child leaves the one not asked for."""

    def root():
        with child(1) as (one, end_one), child(2) as (two, end_two), ThreadGroup() as group:
            first, second = group.spawn(os.waitpid, one, 0), group.spawn(os.waitpid, two, 0)
            end_two()
            assert (two, 2 << 8) == second.result()
            assert not first.done()
            end_one()
            assert (one, 1 << 8) == first.result()

    virtual(root)


def test_wait_takes_the_children_as_they_end():
    def root():
        with child(1) as (one, end_one), child(2) as (two, end_two):
            found, has_found = [], vthreads.Event()

            def wait_twice():
                found.append(os.wait())
                has_found.set()
                found.append(os.wait())

            with ThreadGroup() as group:
                group.spawn(wait_twice)
                end_two()
                has_found.wait()
                assert [(two, 2 << 8)] == found
                end_one()
            assert [(two, 2 << 8), (one, 1 << 8)] == found

    virtual(root)


def test_stopping_and_going_on_are_told_as_well():
    def root():
        with child() as (pid, end), ThreadGroup() as group:
            waiting = group.spawn(os.waitpid, pid, os.WUNTRACED | os.WCONTINUED)
            os.kill(pid, signal.SIGSTOP)
            assert os.WIFSTOPPED(waiting.result()[1])
            waiting = group.spawn(os.waitpid, pid, os.WUNTRACED | os.WCONTINUED)
            os.kill(pid, signal.SIGCONT)
            assert os.WIFCONTINUED(waiting.result()[1])
            end()
            os.waitpid(pid, os.WUNTRACED)

    virtual(root)


def test_waitid_can_only_look():
    def root():
        with child() as (pid, end), ThreadGroup() as group:
            looking = group.spawn(os.waitid, os.P_PID, pid, os.WEXITED | os.WNOWAIT)
            end()
            assert pid == looking.result().si_pid
            assert (pid, 0) == os.waitpid(pid, 0)

    virtual(root)


@pytest.mark.skipif(not hasattr(os, "pidfd_open"), reason="this platform has no pidfds")
def test_waitid_takes_a_pidfd():
    def root():
        with child() as (pid, end), ThreadGroup() as group:
            pidfd = os.pidfd_open(pid)
            waiting = group.spawn(os.waitid, os.P_PIDFD, pidfd, os.WEXITED)
            end()
            assert pid == waiting.result().si_pid
            os.close(pidfd)

    virtual(root)


def test_the_forms_that_do_not_wait_are_no_checkpoints():
    def root():
        with child() as (pid, end):
            with vthreads.move_on_after(0) as scope:
                assert (0, 0) == os.waitpid(pid, os.WNOHANG)
                assert (0, 0) == os.wait3(os.WNOHANG)[:2]
                assert (0, 0) == os.wait4(pid, os.WNOHANG)[:2]
                assert os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG) is None
            assert not scope.cancelled_caught
            end()
            os.waitpid(pid, 0)

    virtual(root)


def test_in_a_cancelled_scope_a_child_that_has_ended_is_not_reaped():
    def root():
        with child() as (pid, end):
            end()
            os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
            with vthreads.move_on_after(0) as scope:
                os.waitpid(pid, 0)
            assert scope.cancelled_caught
            assert (pid, 0) == os.waitpid(pid, 0)

    virtual(root)


def test_without_a_child_the_error_is_the_same():
    def root():
        for call in {**ONE, **ANY}.values():
            with pytest.raises(ChildProcessError):
                call(os.getpid())

    virtual(root)


def test_many_waits_for_any_child_that_were_given_up_cost_one_os_thread():
    def root():
        with child() as (pid, end):
            for _ in range(5):
                with vthreads.move_on_after(1):
                    os.wait()
            assert 1 == [call.kind for call in calls_under_way()].count("children")
            end()
            os.waitpid(pid, 0)

    virtual(root)


def test_a_wait_for_a_child_is_no_deadlock():
    def root():
        with child() as (pid, end):
            threading.Timer(0.05, end).start()
            with ThreadGroup() as group:
                group.spawn(os.wait)

    vthreads.run(root)


# --- subprocess


CAT = ["cat"]
LONG = ["sleep", "3600"]


def start(*args, **options):
    return subprocess.Popen(*args, **{"stdin": subprocess.PIPE, **options})


def test_wait_parks_with_and_without_a_limit(way):
    def root():
        with start(CAT) as process, ThreadGroup() as group:
            waiting = [group.spawn(process.wait), group.spawn(process.wait, 3600), group.spawn(process.wait)]
            assert ["parked"] * 3 == [future.thread.state.value for future in waiting]
            assert process.poll() is None
            process.stdin.close()
            assert [0, 0, 0] == [future.result() for future in waiting]

    virtual(root)


def test_the_time_limit_of_wait_is_on_the_clock_and_is_not_polled_for(monkeypatch):
    def root():
        with start(CAT) as process, monkeypatch.context() as patches:
            start_time, parks = vthreads.now(), []
            original = vthreads.VirtualThread._park
            patches.setattr(vthreads.VirtualThread, "_park", lambda *args: [parks.append(args), original(*args)][1])
            with pytest.raises(subprocess.TimeoutExpired) as caught:
                process.wait(timeout=1000)
            assert (1000, 1) == (vthreads.now() - start_time, len(parks))
            assert (CAT, 1000) == (caught.value.cmd, caught.value.timeout)
            process.stdin.close()

    virtual(root)


def test_a_cancelled_wait_leaves_the_child_to_be_waited_for(way):
    def root():
        with start(CAT) as process:
            with vthreads.move_on_after(1) as scope:
                process.wait()
            assert scope.cancelled_caught
            assert process.returncode is None
            process.stdin.close()
            assert 0 == process.wait()

    virtual(root)


@pytest.mark.parametrize("timeout", [None, 60])
def test_wait_calls_the_waitpid_by_which_a_program_replaced_that_of_os(monkeypatch, timeout):
    called = []

    def replaced(pid, options):
        called.append(pid)
        return ours(pid, options)

    def root():
        nonlocal ours
        ours = os.waitpid
        monkeypatch.setattr(os, "waitpid", replaced)
        child = subprocess.Popen([sys.executable, "-c", "raise SystemExit(3)"])
        return child.pid, child.wait(timeout)

    ours = None
    pid, code = vthreads.run(root)
    assert 3 == code
    assert {pid} == set(called)


def test_wait_with_no_time_is_no_checkpoint():
    def root():
        with start(CAT) as process:
            with vthreads.move_on_after(0) as scope:
                with pytest.raises(subprocess.TimeoutExpired):
                    process.wait(timeout=0)
            assert not scope.cancelled_caught
            process.stdin.close()

    virtual(root)


def test_an_os_thread_and_virtual_threads_wait_for_one_child():
    def root():
        with start(CAT) as process, ThreadGroup() as group:
            codes = []
            os_thread = threading.Thread(target=lambda: codes.append(process.wait()))
            os_thread.start()
            waiting = [group.spawn(process.wait) for _ in range(3)]
            process.stdin.close()
            os_thread.join()
            assert [0] * 4 == codes + [future.result() for future in waiting]

    virtual(root)


def test_a_child_that_somebody_else_reaped_has_ended_well_as_ever():
    def root():
        with start(CAT) as process, ThreadGroup() as group:
            waiting = group.spawn(process.wait)
            process.stdin.close()
            os.waitpid(process.pid, 0)
            assert waiting.result() in (0, process.returncode)

    virtual(root)


def test_many_run_at_once():
    def root():
        with ThreadGroup() as group:
            running = [group.spawn(subprocess.run, ["sh", "-c", f"exit {n}"]) for n in range(20)]
        assert list(range(20)) == [future.result().returncode for future in running]

    virtual(root)


def test_communicate_carries_more_than_a_pipe_holds():
    def root():
        data = b"x" * 300_000
        done = subprocess.run(CAT, input=data, capture_output=True, check=True)
        assert data == done.stdout

    virtual(root)


def test_others_run_while_one_communicates():
    def root():
        with held("echo said", stdout=subprocess.PIPE) as (process, go_on), ThreadGroup() as group:
            talking = group.spawn(process.communicate, None, 3600)
            assert "parked" == talking.thread.state.value
            go_on()
            assert (b"said\n", None) == talking.result()

    virtual(root)


def test_others_run_while_one_reads_a_pipe_to_its_end():
    """With one pipe and no time limit, `communicate` reads it like a file."""

    def root():
        with held("echo said", stdout=subprocess.PIPE) as (process, go_on), ThreadGroup() as group:
            talking = group.spawn(process.communicate)
            assert "parked" == talking.thread.state.value
            go_on()
            assert (b"said\n", None) == talking.result()

    virtual(root)


def test_lines_of_a_child_are_read_as_they_come():
    def root():
        with held("echo second", before="echo first", stdout=subprocess.PIPE, text=True) as (process, go_on):
            with process, ThreadGroup() as group:
                assert "first\n" == process.stdout.readline()
                reading = group.spawn(process.stdout.readline)
                assert "parked" == reading.thread.state.value
                go_on()
                assert "second\n" == reading.result()
                assert "" == process.stdout.readline()

    virtual(root)


def test_os_popen():
    def read(command):
        with os.popen(command) as pipe:
            return pipe.read()

    def root():
        with ThreadGroup() as group:
            reading = [group.spawn(read, "echo said; exit 3") for _ in range(3)]
        assert ["said\n"] * 3 == [future.result() for future in reading]
        with os.popen("cat > /dev/null; exit 3", "w") as pipe:
            pipe.write("heard")
            assert 3 << 8 == pipe.close()

    virtual(root)


@pytest.mark.parametrize("grace", [None, 0])
def test_cancelled_check_output_with_one_pipe_kills_its_child(grace):
    def root():
        with vthreads.move_on_after(1, cleanup_grace=grace) as scope:
            subprocess.check_output(LONG)
        assert scope.cancelled_caught

    virtual(root)


def test_communicate_can_be_repeated_after_a_cancellation():
    def root():
        with held("echo late", before="echo early", stdout=subprocess.PIPE) as (process, go_on):
            with vthreads.move_on_after(1) as scope:
                process.communicate(timeout=3600)
            assert scope.cancelled_caught
            go_on()
            assert (b"early\nlate\n", None) == process.communicate(timeout=3600)

    virtual(root)


def test_the_time_limit_of_run_kills_the_child(way):
    def root():
        with pytest.raises(subprocess.TimeoutExpired) as caught:
            subprocess.run(["sh", "-c", "echo said; exec sleep 3600"], capture_output=True, timeout=0.2, check=True)
        assert caught.value.stdout in (b"said\n", None)

    vthreads.run(root)


@pytest.mark.parametrize("grace", [None, 0])
@pytest.mark.parametrize("call", ["run", "call", "check_output"])
def test_cancelled_it_kills_its_child_and_leaves_no_zombie(call, grace):
    def root():
        with vthreads.move_on_after(1, cleanup_grace=grace) as scope:
            getattr(subprocess, call)(LONG, timeout=7200)
        assert scope.cancelled_caught
        # Nothing left to wait for: see the fixture.

    virtual(root)


@pytest.mark.parametrize("grace", [None, 0])
def test_interrupted_it_kills_its_child_and_leaves_no_zombie(grace):
    def root():
        with vthreads.move_on_after(None, cleanup_grace=grace), ThreadGroup(on_failure="continue") as group:
            running = group.spawn(subprocess.run, LONG, timeout=7200)
            running.thread.interrupt()
            assert isinstance(running.exception(), vthreads.Interrupted)

    virtual(root)


# --- starting


def test_a_start_in_a_cancelled_scope_starts_nothing():
    def root():
        with vthreads.move_on_after(0) as scope:
            subprocess.Popen(CAT, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert scope.cancelled_caught

    virtual(root)


@pytest.mark.parametrize("cause", ["cancel", "interrupt"])
def test_a_start_is_shielded_to_its_end(cause, monkeypatch):
    """Its wait for the `exec` may park; what comes meanwhile is raised at the next checkpoint."""
    original, started = os.read, []

    def read_slowly(fd, size):
        vthreads.sleep(1)
        return original(fd, size)

    def starting():
        started.append(subprocess.Popen(LONG, stdin=subprocess.PIPE))
        started[0].wait()

    def root():
        monkeypatch.setattr(os, "read", read_slowly)
        with ThreadGroup(on_failure="continue") as group:
            starter = group.spawn(starting)
            assert ("parked", []) == (starter.thread.state.value, started)
            getattr(starter.thread, cause)()
            vthreads.wait(starter)
            assert starter.cancelled() or isinstance(starter.exception(), vthreads.Interrupted)
        assert started[0].poll() is None
        started[0].kill()
        started[0].communicate()

    virtual(root)


def test_a_start_that_fails_leaves_nothing():
    def root():
        for _ in range(3):
            with pytest.raises(FileNotFoundError):
                subprocess.Popen(["/no/such/program"], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
            with pytest.raises(PermissionError):
                subprocess.Popen([os.path.dirname(__file__)])

    virtual(root)


# --- os.system, os.spawn*


def wait_for_a_shell(name, script):
    """Run `script` in a shell: by os.system, or by os.spawn* and P_WAIT. Its exit code."""
    if name == "system":
        return os.waitstatus_to_exitcode(os.system(script))
    return os.spawnl(os.P_WAIT, "/bin/sh", "sh", "-c", script)


@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
@pytest.mark.parametrize("name", ["system", "spawn"])
class TestShells:
    def test_the_outcome_is_that_of_the_original(self, name):
        def root():
            assert 3 == wait_for_a_shell(name, "exit 3")
            assert -15 == wait_for_a_shell(name, "kill $$")
            assert 127 == wait_for_a_shell(name, "/no/such/program 2> /dev/null")

        virtual(root)

    def test_others_run_meanwhile(self, name, tmp_path):
        os.mkfifo(tmp_path / "go-on")

        def root():
            with ThreadGroup() as group:
                shell = group.spawn(wait_for_a_shell, name, f"read line < {tmp_path}/go-on")
                assert not shell.done()
                # Opening it waits for the shell to open it.
                (tmp_path / "go-on").write_text("\n")
                assert 0 == shell.result()

        vthreads.run(root)

    @pytest.mark.parametrize("grace", [None, 0])
    def test_cancelled_it_kills_its_child_and_leaves_no_zombie(self, name, grace):
        def root():
            with vthreads.move_on_after(1, cleanup_grace=grace) as scope:
                wait_for_a_shell(name, "exec sleep 3600")
            assert scope.cancelled_caught

        virtual(root)

    def test_in_a_cancelled_scope_it_starts_nothing(self, name, tmp_path):
        def root():
            with vthreads.move_on_after(0) as scope:
                wait_for_a_shell(name, f"touch {tmp_path}/started")
            assert scope.cancelled_caught
            assert [] == os.listdir(tmp_path)

        virtual(root)


def test_the_environment_and_the_errors_of_system_are_those_of_the_original(monkeypatch):
    def root():
        monkeypatch.setenv("GREETING", "hällo")
        assert 0 == os.system(b'test "$GREETING" = h\xc3\xa4llo')
        with pytest.raises(ValueError, match="null"):
            os.system("a\0b")
        with pytest.raises(TypeError):
            os.system(3)

    virtual(root)


@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
def test_spawn_without_waiting_is_no_checkpoint():
    def root():
        with vthreads.move_on_after(0) as scope:
            pid = os.spawnl(os.P_NOWAIT, "/bin/sh", "sh", "-c", "exit 4")
        assert not scope.cancelled_caught
        assert (pid, 4 << 8) == os.waitpid(pid, 0)

    virtual(root)


# --- at the end of the process


def test_a_child_alive_at_exit_is_no_matter():
    script = """
import subprocess, sys, vthreads
kept = []
def root():
    kept.append(subprocess.Popen(["cat"], stdin=subprocess.PIPE))
    vthreads.spawn(kept[0].wait)
    kept[0].stdin.close()
vthreads.spawn(root)
other = subprocess.Popen(["cat"], stdin=subprocess.PIPE)
sys.modules["keeps.it.until.late"] = other
"""
    ended = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", script], capture_output=True, text=True, timeout=200, check=False
    )
    assert (0, "", "") == (ended.returncode, ended.stdout, ended.stderr)
