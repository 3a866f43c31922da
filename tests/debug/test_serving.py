"""A process that another one inspects: permissions, fork, exit, a pinned carrier, and the commands."""

from __future__ import annotations

import json
import os
import pty
import re
import select
import signal
import socket
import stat
import subprocess
import sys
import termios

import pytest

import vthreads.debug
from vthreads.debug import _server as serving
from vthreads.debug import _socket_path as meeting
from vthreads.debug._client import NotServing, ask_process
from vthreads.debug._server import is_serving, stop_serving

pytestmark = [pytest.mark.real, pytest.mark.unpatched]

WAITS = """
import sys
from vthreads import Queue, ThreadGroup, run, sleep
def work():
    sleep(600)
def root():
    with ThreadGroup("workers") as workers:
        for number in range(3):
            workers.spawn(work).thread.name = f"worker-{number}"
        workers.spawn(Queue().get).thread.name = "[getter]"
        print("ready")
        sys.stdin.readline()
        workers.cancel()
run(root)
"""

PINNED = """
import sys, time
from vthreads import ThreadGroup, run, sleep
def pin():
    print("ready")
    while not select.select([0], [], [], 0.01)[0]:
        pass
def root():
    with ThreadGroup() as group:
        group.spawn(sleep, 600).thread.name = "sleeper"
        sleep(0.01)
        pin()
        group.cancel()
import select
run(root, patch=False)
"""


@pytest.fixture
def served(tmp_path, monkeypatch):
    """This process answers, in a private directory."""
    tmp_path.chmod(0o700)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    yield vthreads.debug.serve()
    stop_serving()


# --- the socket


def test_the_socket_is_for_its_user_only(served):
    assert stat.S_ISSOCK(served.stat().st_mode)
    assert 0o600 == stat.S_IMODE(served.stat().st_mode)
    assert 0o700 == stat.S_IMODE(served.parent.stat().st_mode)
    assert os.geteuid() == served.stat().st_uid


def test_serving_again_does_nothing_and_stopping_leaves_nothing(served):
    assert served == vthreads.debug.serve()
    stop_serving()
    stop_serving()
    assert not is_serving()
    assert not served.parent.exists()


def opened_to_others(place):
    place.mkdir()
    place.chmod(0o755)


def linked_elsewhere(place):
    target = place.with_name("elsewhere")
    target.mkdir(mode=0o700)
    place.symlink_to(target)


def owned_by_another_user(place):
    place.mkdir(mode=0o700)
    os.chown(place, 65534, 65534)


# Issue 10: any local user can take the directory, which stopped the program.
TAKEN = [
    pytest.param(opened_to_others, "no other user may enter", id="open"),
    pytest.param(linked_elsewhere, "no other user may enter", id="link"),
    pytest.param(lambda place: place.write_text(""), "File exists", id="file"),
    pytest.param(lambda place: place.symlink_to("nowhere"), "File exists", id="dangling link"),
    pytest.param(
        owned_by_another_user,
        "no other user may enter",
        id="foreign",
        marks=pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a directory away"),
    ),
]


@pytest.mark.parametrize(("take", "reason"), TAKEN)
def test_a_directory_that_is_taken_is_not_used_and_is_a_warning(tmp_path, monkeypatch, take, reason):
    tmp_path.chmod(0o700)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    take(tmp_path / "vthreads")
    with pytest.warns(RuntimeWarning, match=f"cannot be inspected.*{reason}"):
        assert vthreads.debug.serve() is None
    assert not is_serving()


def test_a_socket_that_the_system_refuses_is_a_warning(tmp_path, monkeypatch):
    # The name of a socket has at most some 100 bytes.
    deep = tmp_path / ("d" * 120)
    deep.mkdir(mode=0o700)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(deep))
    with pytest.warns(RuntimeWarning, match="cannot be inspected.*path too long"):
        assert vthreads.debug.serve() is None
    assert not is_serving()


@pytest.mark.parametrize(("begin", "asked"), [("-c", "1"), ("-m vthreads run --debug -c", "0")])
def test_a_program_runs_although_the_directory_is_taken(tmp_path, begin, asked):
    tmp_path.chmod(0o700)
    opened_to_others(tmp_path / "vthreads")
    program = "from vthreads import ThreadGroup\nwith ThreadGroup() as group: group.spawn(print, 'ran')"
    done = subprocess.run(
        [sys.executable, *begin.split(), program],
        check=False,
        capture_output=True,
        text=True,
        timeout=200,
        env={**os.environ, "XDG_RUNTIME_DIR": str(tmp_path), "VTHREADS_DEBUG": asked},
    )
    assert (0, "ran\n") == (done.returncode, done.stdout)
    assert 1 == done.stderr.count("RuntimeWarning: process ")


def test_the_child_of_a_fork_runs_although_the_directory_was_taken_meanwhile(start, tmp_path):
    program = start(
        """
        import os, sys, warnings
        import vthreads, vthreads.debug
        place = vthreads.debug.serve().parent
        place.chmod(0o755)
        warnings.simplefilter("ignore", DeprecationWarning)  # from 3.12 on: this process has two OS threads
        warnings.simplefilter("always", RuntimeWarning)
        def root():
            child = os.fork()
            if not child:
                with vthreads.ThreadGroup() as group:
                    group.spawn(print, "ran")
                os._exit(7)
            return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        print(vthreads.run(root))
        """
    )
    status, out, err = program.finish()
    assert (0, "ran\n7\n") == (status, out)
    assert 1 == err.count("RuntimeWarning: process ")


def test_without_a_runtime_directory_it_is_below_that_for_temporary_files(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path / "none"))
    monkeypatch.setattr(meeting.tempfile, "gettempdir", lambda: str(tmp_path))
    monkeypatch.setattr(meeting, "USER_DIRECTORIES", str(tmp_path / "none"))
    path = vthreads.debug.serve()
    try:
        assert tmp_path / f"vthreads-{os.geteuid()}" / f"{os.getpid()}.sock" == path
        assert os.getpid() in meeting.pids()
    finally:
        stop_serving()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
def test_another_user_gets_no_answer_even_with_the_permission_to_connect(served):
    # As if somebody had opened the doors: the kernel still says who knocks. It stands before the last of them, since
    # those before it belong to whoever runs this test.
    served.parent.chmod(0o755)
    served.chmod(0o666)
    knock = f"""
import os, socket
os.setgid(65534)
os.setuid(65534)
with socket.socket(socket.AF_UNIX) as knocking:
    knocking.connect({served.name!r})
    try:
        knocking.sendall(b'{{"ask": "dump"}}\\n')
        print(knocking.recv(1))
    except (BrokenPipeError, ConnectionResetError):
        print(b"")
"""
    done = subprocess.run(
        [sys.executable, "-c", knock], cwd=served.parent, check=False, capture_output=True, text=True, timeout=200
    )
    assert ("b''\n", "") == (done.stdout, done.stderr)


@pytest.mark.parametrize("question", [b"", b"hello\n", b"[]\n", b"x" * 20_000])
def test_who_speaks_of_something_else_is_left_and_the_next_one_is_answered(served, question):
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(served))
        client.sendall(question)
        client.shutdown(socket.SHUT_WR)
        try:
            answer = client.recv(100)
        except ConnectionResetError:
            # Not even read to its end.
            answer = b""
    assert answer == b"" or answer.startswith(b'{"error"')
    assert os.getpid() == ask_process(os.getpid(), "dump")["pid"]


def test_what_cannot_be_answered_is_said(served):
    with pytest.raises(RuntimeError, match="could not answer 'weather': KeyError"):
        ask_process(os.getpid(), "weather")


def test_a_process_that_does_not_serve_is_told_how_to(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    monkeypatch.setattr(sys, "version_info", (3, 13))
    with pytest.raises(NotServing, match="VTHREADS_DEBUG=1"):
        ask_process(os.getppid(), "dump")


@pytest.mark.skipif(not os.path.exists("/proc/self/stat"), reason="the parent of a process is read from /proc")
def test_a_process_whose_children_serve_names_them(served, monkeypatch):
    monkeypatch.setattr(sys, "version_info", (3, 13))
    with pytest.raises(NotServing, match=f"but its child processes do: {os.getpid()}$"):
        ask_process(os.getppid(), "dump")


@pytest.mark.skipif(sys.version_info < (3, 14), reason="sys.remote_exec is new in Python 3.14")
def test_a_process_that_was_not_told_to_serve_is_made_to(start, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    # It is inspected at its next instruction: it wakes up now and then, as services do.
    program = start(WAITS.replace("    sleep(600)", "    while True:\n        sleep(0.05)"))
    assert "ready" == program.line()
    tree = ask_process(program.pid, "dump")
    assert {"worker-0", "worker-1", "worker-2", "[getter]"} <= set(re.findall(r'"name": "([^"]+)"', json.dumps(tree)))
    assert program.pid == ask_process(program.pid, "dump")["pid"]
    assert (0, "", "") == program.finish()


@pytest.mark.skipif(sys.version_info < (3, 14), reason="sys.remote_exec is new in Python 3.14")
def test_a_process_that_refuses_to_be_debugged_is_told(start, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    program = start(WAITS, PYTHON_DISABLE_REMOTE_DEBUG="1")
    assert "ready" == program.line()
    with pytest.raises(NotServing, match=f"process {program.pid} could not be made to serve requests: "):
        ask_process(program.pid, "dump")
    program.finish()


# --- the life of the process


def test_a_process_ends_with_its_main_thread_and_leaves_no_file(start, tmp_path):
    program = start(WAITS, VTHREADS_DEBUG="1")
    assert "ready" == program.line()
    assert (tmp_path / "vthreads" / f"{program.pid}.sock").is_socket()
    assert (0, "", "") == program.finish()
    assert not (tmp_path / "vthreads").exists()


def test_serving_does_not_hide_a_deadlock(start):
    program = start(
        """
        from vthreads import Event, run
        run(lambda: Event().wait())
        """,
        VTHREADS_DEBUG="1",
    )
    status, _, err = program.finish()
    assert 1 == status
    assert "DeadlockError" in err


def test_the_socket_of_a_killed_process_is_cleared_away(start, tmp_path, served):
    program = start(WAITS, VTHREADS_DEBUG="1")
    program.line()
    place = tmp_path / "vthreads" / f"{program.pid}.sock"
    program.process.send_signal(signal.SIGKILL)
    program.process.wait()
    assert place.exists()
    with pytest.raises(NotServing, match="does not exist"):
        ask_process(program.pid, "dump")
    assert not place.exists()


def test_whoever_finds_the_socket_can_connect_to_it(start):
    program = start(
        """
        import os, socket, sys
        from vthreads.debug import serve
        from vthreads.debug import _socket_path as meeting
        def look(event, arguments):
            if event == "os.rename":
                print("found before:", meeting.socket_of(os.getpid()))
                with socket.socket(socket.AF_UNIX) as connection:
                    connection.connect(str(arguments[0]))
        sys.addaudithook(look)
        serve()
        print("found after:", meeting.socket_of(os.getpid()) is not None)
        """
    )
    assert (0, "found before: None\nfound after: True\n", "") == program.finish()


@pytest.mark.thorough
@pytest.mark.everywhere
def test_the_child_of_a_fork_answers_for_itself_and_the_parent_goes_on(start, tmp_path):
    program = start(
        """
        import os, sys, warnings
        import vthreads, vthreads.debug
        vthreads.debug.serve()
        warnings.simplefilter("ignore", DeprecationWarning)  # from 3.12 on: this process has two OS threads
        def root():
            vthreads.current_thread().name = "parent"
            child = os.fork()
            if not child:
                vthreads.current_thread().name = "child"
                sys.stdin.readline()
                os._exit(0) if "--hard" in sys.argv else sys.exit(0)
            print(child)
            os.waitpid(child, 0)
            print("alone")
            sys.stdin.readline()
        vthreads.run(root)
        """
    )
    child = int(program.line())
    names = [
        [node["name"] for node in ask(program, pid)["carriers"][0]["tree"] if node["type"] == "thread"]
        for pid in (program.pid, child)
    ]
    program.process.stdin.write("\n")
    program.process.stdin.flush()
    assert "alone" == program.line()
    assert [f"{program.pid}.sock"] == os.listdir(tmp_path / "vthreads")
    assert [["parent"], ["child"]] == names
    assert program.pid == ask(program, program.pid)["pid"]
    assert (0, "", "") == program.finish()


def ask(program, pid):
    return json.loads(program.try_to_look("dump", "--json", pid=pid).stdout)


# --- the commands


def test_dump_is_what_the_process_itself_would_print(start, dump_schema):
    program = start(WAITS, VTHREADS_DEBUG="1")
    program.line()
    text, data = program.look("dump"), json.loads(program.look("dump", "--json"))
    dump_schema.validate(data)
    assert program.pid == data["pid"]
    assert "group 'workers' open, 4 members" in text
    assert "sleep(600)" in text
    assert "and 2 more like it, 'worker-1' to 'worker-2'" in text


@pytest.mark.thorough
def test_a_limit_holds_for_each_command(start, dump_schema):
    program = start(WAITS, VTHREADS_DEBUG="1")
    program.line()
    assert "and 4 threads beyond the limit" in program.look("dump", "--limit", "2")
    assert "and 4 threads beyond the limit" in program.look("pstree", "--limit", "2")
    assert program.look("ps", "--limit", "2").splitlines()[-1].split()[1:] == ["4", "more", "beyond", "the", "limit"]
    data = json.loads(program.look("dump", "--json", "--limit", "3"))
    dump_schema.validate(data)
    assert (3, 3) == (len(data["carriers"][0]["tree"]), data["carriers"][0]["left_out"])
    assert "0 is not a number >= 1" in program.try_to_look("ps", "--limit", "0").stderr


def test_an_answer_of_many_parts_is_one_line_of_json(served, monkeypatch):
    monkeypatch.setattr(serving, "LARGEST_PART", 1)
    answer = {"a": [{}, [], {"tree": [{"id": 0, "deep": [{"deeper": [1, [2]]}]}, "\u00e4\n"]}], "b": None, "c": 1.5}
    monkeypatch.setitem(serving.QUESTIONS, "echo", lambda: answer)
    assert answer == ask_process(os.getpid(), "echo")


def test_pstree_shows_the_tree_without_stacks(start):
    program = start(WAITS, VTHREADS_DEBUG="1")
    program.line()
    text = program.look("pstree")
    assert "group 'workers' open, 4 members" in text
    assert "sleep(600)" not in text


def test_ps_lists_each_thread_and_without_a_process_those_that_answer(start):
    program = start(WAITS, VTHREADS_DEBUG="1")
    program.line()
    lines = program.look("ps").splitlines()
    processes = subprocess.run(
        [sys.executable, "-m", "vthreads", "ps"],
        check=True,
        capture_output=True,
        text=True,
        timeout=200,
        env=program.environment,
    ).stdout
    assert ["CARRIER", "IDENT", "STATE", "FOR", "NAME", "FUNCTION", "WHAT"] == lines[0].split()
    assert ["MainThread", "[getter]", "worker-0", "worker-1", "worker-2"] == sorted(
        line[lines[0].index("NAME") : lines[0].index("FUNCTION")].strip() for line in lines[1:]
    )
    assert str(program.pid) in [line.split()[0] for line in processes.splitlines()]


def test_top_shows_states_switches_delay_and_the_longest_waits(start):
    program = start(WAITS, VTHREADS_DEBUG="1")
    program.line()
    text = program.look("top", "--once", "--interval", "0.1")
    head, carrier = text.splitlines()[2:4]
    assert [
        "carrier",
        "running",
        "ready",
        "parked",
        "switches/s",
        "queue",
        "delay",
        "timers",
        "fd",
        "waits",
    ] == head.split()
    assert ["MainThread", "0", "0", "5"] == carrier.split()[:4]
    assert "waits in Queue.get() of <Queue size=0" in text
    assert "[getter]" in text
    assert 2 == len(program.look("top", "--once", "--interval", "0.1", "--slowest", "2").splitlines()) - 6


def test_a_pinned_carrier_is_shown_with_the_stack_that_pins_it(start):
    program = start(PINNED, VTHREADS_DEBUG="1")
    program.line()
    top, dump = program.look("top", "--once", "--interval", "0.1"), program.look("dump")
    assert "PINNED" in top
    assert "carrier 'MainThread' is pinned" in top
    assert "PINNED: it did not answer" in dump
    for text in (top, dump):
        assert "while not select.select([0], [], [], 0.01)[0]:" in text
        assert "sleeper" in text
    assert (0, "", "") == program.finish()


@pytest.mark.thorough
def test_top_goes_on_until_the_process_ends(start):
    program = start(WAITS, VTHREADS_DEBUG="1")
    program.line()
    watching = subprocess.Popen(
        [sys.executable, "-m", "vthreads", "top", str(program.pid), "--interval", "0.05"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=program.environment,
    )
    assert "process" in watching.stdout.readline()
    program.finish()
    out, err = watching.communicate(timeout=200)
    assert (0, "") == (watching.returncode, err)
    assert f"process {program.pid} has ended, or does not answer any more" == out.splitlines()[-1]


@pytest.mark.sampled(1)
@pytest.mark.parametrize("key", [b"q", b"Q"])
def test_q_ends_top_and_leaves_the_terminal_as_it_was(start, key):
    program = start(WAITS, VTHREADS_DEBUG="1")
    program.line()
    ours, theirs = pty.openpty()
    before = termios.tcgetattr(theirs)
    watching = subprocess.Popen(
        [sys.executable, "-m", "vthreads", "top", str(program.pid), "--interval", "0.05"],
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        env=program.environment,
    )
    shown = b""
    while b"longest waits" not in shown:
        shown += os.read(ours, 1000)
    # Another key does nothing.
    os.write(ours, b"x" + key)
    # Its output must be read, or it would wait for that.
    while watching.poll() is None:
        if select.select([ours], [], [], 0.05)[0]:
            os.read(ours, 1000)
    assert 0 == watching.returncode
    assert before == termios.tcgetattr(theirs)
    os.close(ours)
    os.close(theirs)


@pytest.mark.thorough
def test_a_reader_that_ends_first_is_no_traceback(start):
    program = start(WAITS, VTHREADS_DEBUG="1")
    program.line()
    reader, writer = os.pipe()
    os.close(reader)
    for command, *arguments in (["ps"], ["dump"], ["pstree"], ["top", "--once", "--interval", "0.1"]):
        done = subprocess.run(
            [sys.executable, "-m", "vthreads", command, str(program.pid), *arguments],
            check=False,
            stdout=writer,
            stderr=subprocess.PIPE,
            timeout=200,
            env=program.environment,
        )
        assert (command, 1, b"") == (command, done.returncode, done.stderr)
    os.close(writer)


@pytest.mark.thorough
def test_a_process_that_has_ended_is_told_so(start):
    program = start(WAITS, VTHREADS_DEBUG="1")
    program.line()
    program.process.send_signal(signal.SIGKILL)
    os.waitid(os.P_PID, program.pid, os.WEXITED | os.WNOWAIT)
    refused = program.try_to_look("dump")
    assert (1, "") == (refused.returncode, refused.stdout)
    assert f"process {program.pid} has ended; its parent has not waited for it yet" in refused.stderr
    program.process.wait()
    assert f"process {program.pid} does not exist; check the pid" in program.try_to_look("dump").stderr


@pytest.mark.thorough
def test_a_command_says_why_there_is_no_answer(start):
    program = start(WAITS)
    program.line()
    for command in ("ps", "pstree", "dump", "top"):
        refused = program.try_to_look(command)
        assert (command, 1, "") == (command, refused.returncode, refused.stdout)
        assert f"process {program.pid}" in refused.stderr


def test_run_with_debug_serves_the_program(tmp_path):
    tmp_path.chmod(0o700)
    program = "import os, vthreads.debug._server as s; print(s.is_serving(), os.listdir(os.environ['XDG_RUNTIME_DIR']))"
    done = subprocess.run(
        [sys.executable, "-m", "vthreads", "run", "--debug", "-c", program],
        check=True,
        capture_output=True,
        text=True,
        timeout=200,
        env={**os.environ, "XDG_RUNTIME_DIR": str(tmp_path)},
    )
    assert "True ['vthreads']\n" == done.stdout
    assert [] == os.listdir(tmp_path)
