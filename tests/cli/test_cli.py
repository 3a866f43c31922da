"""The subcommands, each in a separate process unless it ends while its arguments are parsed."""

from __future__ import annotations

import contextlib
import importlib.metadata
import os
import platform
import re
import signal
import subprocess
import sys
from importlib import import_module

import pytest

from vthreads._cli import COMMANDS, inspect, main
from vthreads._cli.server import ServerProcess
from vthreads._core.engine import engine_name
from vthreads.debug import _client

pytestmark = pytest.mark.real


def vthreads(*arguments, cwd=None):
    command = [sys.executable, "-m", "vthreads", *map(str, arguments)]
    return subprocess.run(command, check=False, capture_output=True, text=True, timeout=200, cwd=cwd)


def parsed(capsys, *arguments):
    """The status, the output and the errors of a command that ends while its arguments are parsed."""
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    return ended.value.code, *capsys.readouterr()


@pytest.fixture
def run(tmp_path):
    """Write a program to `program.py` and run it."""

    def run(program, *arguments):
        (tmp_path / "program.py").write_text(program)
        return vthreads("run", "program.py", *arguments, cwd=tmp_path)

    return run


# --- the table


def test_help_lists_every_command():
    ended = vthreads("--help")

    assert 0 == ended.returncode
    for name, command in COMMANDS.items():
        assert re.search(f"^  {name} +{re.escape(command.summary)}$", ended.stdout, re.M)


def test_every_command_has_help_of_its_own(capsys):
    for name in COMMANDS.keys() - {"demo"}:
        status, out, err = parsed(capsys, name, "--help")

        assert (0, "") == (status, err)
        assert out.startswith(f"usage: python -m vthreads {name} ")


@pytest.mark.thorough
def test_the_demo_has_help_of_its_own():
    # It runs as a main program, so it gets a process.
    ended = vthreads("demo", "--help")

    assert 0 == ended.returncode
    assert ended.stdout.startswith("usage: python -m vthreads demo ")


@pytest.mark.sampled(1)
@pytest.mark.parametrize(("name", "extra", "argument"), [("top", "cli", "1"), ("demo", "demo", "--urls=1")])
def test_a_command_without_its_libraries_has_help_and_says_what_to_install(name, extra, argument):
    program = "import sys; sys.modules['rich'] = None; from vthreads._cli import main; sys.exit(main(sys.argv[1:]))"
    help_text, ended = (
        subprocess.run([sys.executable, "-c", program, name, last], check=False, capture_output=True, text=True)
        for last in ("--help", argument)
    )

    assert (0, "") == (help_text.returncode, help_text.stderr)
    assert help_text.stdout.startswith(f"usage: python -m vthreads {name} ")
    assert 1 == ended.returncode
    assert f"pip install 'vthreads[{extra}]'" in ended.stderr


@pytest.mark.parametrize("arguments", [["no-such-command"], ["run"]])
def test_a_command_line_that_says_too_little_is_refused(arguments, capsys):
    assert 2 == parsed(capsys, *arguments)[0]


# --- run: what the program sees


def test_a_script_is_the_main_program(run, tmp_path):
    ended = run(
        """
import sys
print(__name__, __file__, __spec__, __package__, sys.modules["__main__"].__dict__ is globals())
print(sys.argv, sys.path[0])
""",
        "--flag",
        "-m",
        "word",
    )

    assert "" == ended.stderr
    assert (
        f"__main__ {tmp_path}/program.py None None True\n['program.py', '--flag', '-m', 'word'] {tmp_path}\n"
        == ended.stdout
    )


def test_a_script_does_not_inherit_how_the_package_is_compiled(run):
    # With `from __future__ import annotations` in force it would be a string.
    assert "<class 'int'>\n" == run("def f(x: int): ...\nprint(f.__annotations__['x'])").stdout


def test_a_module_runs_by_its_name(tmp_path):
    (tmp_path / "package").mkdir()
    (tmp_path / "package" / "__init__.py").write_text("")
    (tmp_path / "package" / "part.py").write_text(
        "import sys; print(__name__, __spec__.name, __package__, sys.argv[1:])"
    )
    (tmp_path / "package" / "__main__.py").write_text("from . import part; print(__name__, __spec__.name)")

    assert (
        "__main__ package.part package ['-c', 'x']\n"
        == vthreads("run", "-m", "package.part", "-c", "x", cwd=tmp_path).stdout
    )
    assert (
        "package.part package.part package ['y']\n__main__ package.__main__\n"
        == vthreads("run", "-m", "package", "y", cwd=tmp_path).stdout
    )


def test_a_directory_runs_its_main_module(tmp_path):
    (tmp_path / "program").mkdir()
    (tmp_path / "program" / "__main__.py").write_text("import sys, part; print(__name__, sys.argv, part.name)")
    (tmp_path / "program" / "part.py").write_text("name = __name__")

    assert "__main__ ['program', 'x'] part\n" == vthreads("run", "program", "x", cwd=tmp_path).stdout


def test_code_runs_from_the_command_line():
    ended = vthreads("run", "-c", "import sys; print(__name__, sys.argv, repr(sys.path[0]))", "-m", "x")

    assert "__main__ ['-c', '-m', 'x'] ''\n" == ended.stdout


# --- run: how the program ends


@pytest.mark.sampled(1)
@pytest.mark.parametrize(
    ("program", "status", "stderr"),
    [
        ("", 0, ""),
        ("raise SystemExit", 0, ""),
        ("raise SystemExit(7)", 7, ""),
        ("raise SystemExit('so it ends')", 1, "so it ends\n"),
    ],
)
def test_the_status_is_the_programs(run, program, status, stderr):
    ended = run(program)

    assert (status, stderr) == (ended.returncode, ended.stderr)


def test_a_failure_shows_the_programs_frames_alone(run, tmp_path):
    ended = run("def f():\n    raise ValueError('no')\n\nf()\n")

    assert 1 == ended.returncode
    assert [f'  File "{tmp_path}/program.py", line {line}' for line in (4, 2)] == re.findall(
        '^  File "[^"]*", line [0-9]+', ended.stderr, re.M
    )
    assert ended.stderr.endswith("\nValueError: no\n")


def test_a_syntax_error_is_shown_as_python_shows_it(run):
    ended = run("x = = 3")

    assert 1 == ended.returncode
    assert "Traceback" not in ended.stderr
    assert ended.stderr.endswith("SyntaxError: invalid syntax\n")


@pytest.mark.parametrize(
    ("arguments", "status", "complaint"),
    [
        (["no-such-file.py"], 2, "can't open file"),
        (["-m", "no_such_module"], 1, "No module named 'no_such_module'"),
        (["-m", "xml"], 1, "No module named 'xml' that can be executed"),
    ],
)
def test_a_program_that_is_not_there(arguments, status, complaint, tmp_path):
    ended = vthreads("run", *arguments, cwd=tmp_path)

    assert status == ended.returncode
    assert complaint in ended.stderr
    assert "Traceback" not in ended.stderr


def test_an_interrupted_program_ends_as_a_shell_expects(run):
    ended = run("import os, signal, time\nos.kill(os.getpid(), signal.SIGINT)\ntime.sleep(3600)")

    assert -signal.SIGINT == ended.returncode
    assert 1 == ended.stderr.count("Traceback")


def test_an_interrupted_program_is_finished_before_it_dies(run):
    ended = run(
        "import atexit, os, signal, sys, threading, time\n"
        "atexit.register(print, 'at exit')\n"
        "threading.Thread(target=lambda: (time.sleep(0.1), sys.stdout.write('other\\n'))).start()\n"
        "os.kill(os.getpid(), signal.SIGINT)\n"
        "time.sleep(3600)"
    )
    assert (-signal.SIGINT, "other\nat exit\n") == (ended.returncode, ended.stdout)
    assert ended.stderr.endswith("KeyboardInterrupt\n")


# --- run: virtual threads


def test_blocking_calls_park(run):
    # Each reads what the other writes: if one blocked its carrier, neither would get on.
    ended = run(
        """
import socket, threading
import vthreads

def echo(sock):
    while data := sock.recv(100):
        sock.sendall(data.upper())
    done.set()

ours, theirs = socket.socketpair()
done = threading.Event()
vthreads.spawn(echo, theirs)
ours.sendall(b"one")
print(ours.recv(100).decode())
ours.close()
done.wait()
print("done")
"""
    )

    assert ("ONE\ndone\n", "", 0) == (ended.stdout, ended.stderr, ended.returncode)


WITH_BUSY_THREADS = """
import threading

go_on, gone = [], []

def child():
    while not go_on:
        pass
    gone.append(True)

threading.Thread(target=child).start()
go_on.append(True)
while not gone:
    pass
print("done")
"""


def test_threads_that_wait_busily_are_preempted(tmp_path):
    (tmp_path / "program.py").write_text(WITH_BUSY_THREADS)
    ended = vthreads("run", "--threads", "--preempt", 0.005, "program.py", cwd=tmp_path)

    assert ("done\n", "", 0) == (ended.stdout, ended.stderr, ended.returncode)


def test_a_program_without_threads_of_the_standard_library_is_preempted(tmp_path):
    program = WITH_BUSY_THREADS.replace("threading.Thread(target=child).start()", "vthreads.spawn(child)")
    (tmp_path / "program.py").write_text(program.replace("import threading", "import vthreads"))
    ended = vthreads("run", "--preempt", 0.005, "program.py", cwd=tmp_path)

    assert ("done\n", "", 0) == (ended.stdout, ended.stderr, ended.returncode)


@pytest.mark.parametrize("seconds", ["0", "-1", "inf", "nan", "soon"])
def test_a_time_to_preempt_after_is_above_0(seconds, capsys):
    status, out, err = parsed(capsys, "run", f"--preempt={seconds}", "-c", "pass")

    assert (2, "") == (status, out)
    assert "argument --preempt: " in err


WITH_A_CHILD = """
import sys, time
import vthreads

def child():
    time.sleep(0.05)
    print("the child has ended", sys.modules["__main__"].__dict__ is globals())

vthreads.spawn(child)
"""


@pytest.mark.sampled(1)
@pytest.mark.parametrize(("ending", "status"), [("", 0), ("sys.exit(5)", 5), ("raise ValueError('no')", 1)])
def test_what_was_spawned_is_joined_however_the_program_ends(run, ending, status):
    ended = run(WITH_A_CHILD + ending)

    assert ("the child has ended True\n", status) == (ended.stdout, ended.returncode)


def test_an_interrupt_cancels_what_was_spawned(run):
    ended = run(WITH_A_CHILD.replace("0.05", "3600") + "raise KeyboardInterrupt")

    assert ("", -signal.SIGINT) == (ended.stdout, ended.returncode)


@pytest.mark.parametrize("wait", ["lock.acquire()", "vthreads.spawn(lock.acquire)"])
def test_a_deadlock_is_an_error(run, wait):
    ended = run(f"import threading, vthreads\nlock = threading.Lock()\nlock.acquire()\n{wait}\n")

    assert 1 == ended.returncode
    assert "vthreads.errors.DeadlockError: every virtual thread is parked" in ended.stderr


def test_a_failed_group_says_where_its_thread_was_spawned(run, tmp_path):
    ended = run("import vthreads\nwith vthreads.ThreadGroup() as group:\n    group.spawn(int, 'x')\n")

    assert 1 == ended.returncode
    assert f'spawned at\n    |   File "{tmp_path}/program.py", line 3, in <module>' in ended.stderr


# --- demo


def demo(*options):
    # The speed is not asked for: it is the machine's as much as the program's.
    return vthreads("demo", "--urls", 40, "--latency", 50, *options)


@pytest.mark.sampled(1)
@pytest.mark.parametrize(("options", "scheme"), [([], "http"), (["--tls"], "https"), (["--concurrency", "7"], "http")])
def test_the_demo_holds(options, scheme):
    ended = demo(*options)

    assert ("", 0) == (ended.stderr, ended.returncode)
    assert f"1. Download 40 URLs of {scheme}://127.0.0.1:" in ended.stdout
    for figure in ("one after the other", "on virtual threads", "ratio", "peak virtual threads", "peak memory"):
        assert re.search(f"^  {figure} +[0-9]", ended.stdout, re.M)
    assert "  held    bodies with the right checksum: 40 of 40\n" in ended.stdout
    assert 2 == ended.stdout.count("  held    live virtual threads besides the main program: 0\n")
    assert 2 == len(re.findall("^  held    open descriptors: ([0-9]+), before: \\1$", ended.stdout, re.M))
    assert ended.stdout.endswith("\nEverything held.\n")


@pytest.mark.thorough
def test_the_demo_shows_the_failure_and_where_it_was_spawned():
    failing = demo().stdout.partition("2. The same, and one of them fails\n")[2]

    assert re.match(
        r"requests\.exceptions\.HTTPError: 500 Server Error: .* for url: http://127\.0\.0\.1:[0-9]+/broken\n"
        r"in virtual thread 'virtual-[0-9]+' of group 'downloads', spawned at\n"
        r'  File ".*demo\.py", line [0-9]+, in Downloads\.run\n'
        r"  held    failures raised: 1\n"
        r"  held    the others: [0-9]+ had completed, [0-9]+ were cancelled, [0-9]+ never began\n",
        failing,
    )


def test_the_demo_fails_if_anything_does_not_hold():
    ended = demo("--least-ratio", "1e9")

    assert 1 == ended.returncode
    assert "  FAILED  at least 1e+09 times as fast" in ended.stdout
    assert "without --least-ratio" in ended.stdout
    assert ended.stdout.endswith("\nNot everything held.\n")


@pytest.mark.parametrize(
    "option",
    ["--urls", *(pytest.param(option, marks=pytest.mark.thorough) for option in ("--concurrency", "--latency"))],
)
def test_the_demo_refuses_less_than_one(option):
    assert 2 == vthreads("demo", option, 0).returncode


def test_the_server_ends_with_its_block():
    server = ServerProcess(0)
    with pytest.raises(ZeroDivisionError):
        with server:
            assert server.url.startswith("http://127.0.0.1:")
            raise ZeroDivisionError

    assert server._process.returncode is not None


def test_the_server_ends_when_whoever_started_it_is_gone():
    with ServerProcess(0) as server:
        server._process.stdin.close()
        assert 0 == server._process.wait(100)


@pytest.mark.parametrize("arguments", [[], ["--help"]])
def test_without_arguments_the_help_is_printed(arguments, capsys):
    with contextlib.suppress(SystemExit):
        assert 0 == main(arguments)
    out = capsys.readouterr().out
    assert out.startswith("usage: python -m vthreads COMMAND")
    assert all(command.summary in out for command in COMMANDS.values())


def test_the_version_is_that_of_the_installation(capsys):
    with pytest.raises(SystemExit) as ended:
        main(["--version"])
    assert 0 == ended.value.code
    version = importlib.metadata.version("vthreads")
    expected = f"vthreads {version}, {engine_name} engine, Python {platform.python_version()}\n"
    assert expected == capsys.readouterr().out
    assert version == import_module("vthreads").__version__


def test_an_empty_list_of_processes_says_how_a_process_gets_into_it(capsys, monkeypatch):
    monkeypatch.setattr(inspect, "pids", lambda: iter(()))

    assert 0 == main(["ps"])
    out, err = capsys.readouterr()
    assert "PID  COMMAND\n" == out
    assert "start it with VTHREADS_DEBUG=1 in its environment" in err


@pytest.mark.parametrize("command", ["ps", "pstree", "dump"])
def test_a_process_that_does_not_answer_is_refused_with_what_to_do(command, capsys, monkeypatch):
    # Not by `sys.remote_exec`, which makes it answer from Python 3.14 on.
    monkeypatch.setattr(_client, "socket_of", lambda pid: None)
    monkeypatch.setattr(sys, "version_info", (3, 13))
    with pytest.raises(SystemExit) as ended:
        main([command, str(os.getpid())])
    assert "start it with VTHREADS_DEBUG=1 in its environment or with `python -m" in ended.value.code
