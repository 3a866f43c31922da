"""`python -m vthreads check`: what it finds in a program, and that it ends whatever the program does at its import."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys

import pytest

from vthreads._cli import check

pytestmark = pytest.mark.real


def checked(tmp_path, program, *modules):
    """The status and the output of the check of a program; `modules` are empty modules that it can import."""
    for name in modules:
        folder = tmp_path
        for part in name.split("."):
            folder /= part
            folder.mkdir(exist_ok=True)
            (folder / "__init__.py").touch()
    (tmp_path / "program.py").write_text(program)
    return command(tmp_path, "program.py")


def command(tmp_path, *arguments):
    """The status and the output of `check` with these arguments."""
    line = [sys.executable, "-m", "vthreads", "check", *arguments]
    ended = subprocess.run(line, check=False, capture_output=True, text=True, timeout=200, cwd=tmp_path)
    return ended.returncode, ended.stdout, ended.stderr


def test_a_program_that_parks_has_no_findings(tmp_path):
    program = "import threading, queue, urllib.request\nfrom time import sleep\nlock = threading.Lock()\n"
    status, out, err = checked(tmp_path, program)
    assert (0, "") == (status, err)
    assert out.startswith("0 findings in ")


def test_the_main_part_does_not_run(tmp_path):
    status, out, err = checked(tmp_path, "import json\nif __name__ == '__main__':\n    raise SystemExit('ran')\n")
    assert (0, "") == (status, err)


def test_a_lock_that_is_held_is_found_with_its_place(tmp_path):
    status, out, err = checked(tmp_path, "import threading\nlock = threading.Lock()\nlock.acquire()\n")
    assert (1, "") == (status, err)
    assert "captured early: <" in out
    assert "held by a thread; in program.lock; call vthreads.patch()" in out


def test_an_original_in_a_tuple_is_found(tmp_path):
    status, out, err = checked(tmp_path, "import time\nCALLS = (time.sleep,)\nclass A:\n    calls = (time.sleep,)\n")
    assert (1, "") == (status, err)
    assert "captured early: program.CALLS contains the original <built-in function sleep>" in out
    assert "captured early: program.A.calls contains" in out


def test_an_original_in_a_tuple_inside_another_container_is_found(tmp_path):
    status, out, err = checked(tmp_path, "import time\nCALLS = {'wait': [(1, time.sleep)]}\nOPEN = [time.sleep]\n")
    assert (1, "") == (status, err)
    assert "captured early: program.CALLS contains the original <built-in function sleep>" in out
    assert "OPEN" not in out


def test_each_object_that_was_captured_early_is_listed(tmp_path):
    program = (
        "import threading\nlocks = [threading.Lock() for _ in range(12)]\nfor lock in locks:\n    lock.acquire()\n"
    )
    status, out, err = checked(tmp_path, program)
    assert (1, "") == (status, err)
    assert 12 == len(re.findall("^captured early: <.* held by a thread; in program.lock", out, re.M))
    assert "12 findings in 1 imported module" == out.splitlines()[-1]


def test_the_lock_of_a_condition_is_named_once(tmp_path):
    program = "import threading\nfull = threading.Condition(threading.Lock())\nfull.acquire()\n"
    status, out, err = checked(tmp_path, program)
    assert (1, "") == (status, err)
    assert "held by a thread; in program.full._lock; call" in out


@pytest.mark.parametrize(("table", "kind"), [(check.PINNING, "pins its carrier"), (check.LOOPS, "cannot be shared")])
def test_what_the_tables_list_is_found(tmp_path, table, kind):
    names = sorted(table.keys() - sys.stdlib_module_names)
    status, out, err = checked(tmp_path, "".join(f"import {name}\n" for name in names), *names)
    assert (1, "") == (status, err)
    assert [f"{kind}: {name}: {table[name]}" for name in names] == out.splitlines()[:-1]


def test_sqlite3_is_found(tmp_path):
    status, out, err = checked(tmp_path, "import sqlite3\n")
    assert (1, "") == (status, err)
    assert "pins its carrier: sqlite3: " in out


def test_the_reactor_of_asyncio_can_be_shared(tmp_path):
    reactors = ["twisted.internet.reactor", "twisted.internet.asyncioreactor"]
    status, out, err = checked(tmp_path, "".join(f"import {name}\n" for name in reactors), *reactors)
    assert (0, "") == (status, err)


def test_a_failing_import_shows_its_traceback(tmp_path):
    status, out, err = checked(tmp_path, "import no_such_module\n")
    assert 2 == status
    assert "No module named 'no_such_module'" in err
    assert 'File "' + sys.prefix not in err
    assert out == (
        "import failed: program.py:1: ModuleNotFoundError: No module named 'no_such_module'; "
        "install it into this environment\n"
        "0 findings in 1 imported module; the check is not complete\n"
    )


def test_a_module_is_named_by_m(tmp_path):
    (tmp_path / "program.py").write_text("import sqlite3\n")
    status, out, err = command(tmp_path, "-m", "program")
    assert (1, "") == (status, err)
    assert "pins its carrier: sqlite3" in out


def test_a_package_without_a_main_part_is_imported_once(tmp_path):
    (tmp_path / "package").mkdir()
    (tmp_path / "package" / "__init__.py").write_text("print('imported')\nfrom . import part\n")
    (tmp_path / "package" / "part.py").write_text("import sqlite3\n")
    status, out, err = command(tmp_path, "-m", "package")
    assert (1, "imported\n") == (status, err)
    assert "pins its carrier: sqlite3" in out


def test_a_file_of_a_package_is_checked_by_m(tmp_path):
    (tmp_path / "package").mkdir()
    (tmp_path / "package" / "__main__.py").write_text("from . import part\n")
    (tmp_path / "package" / "part.py").touch()
    status, out, _ = command(tmp_path, "package")
    assert 2 == status
    assert "no known parent package; for a module of a package use -m" in out
    status, out, err = command(tmp_path, "-m", "package")
    assert (0, "") == (status, err)


# --- programs that another library, or they themselves, have patched

LIBRARY = """
import socket, {library}
def {call}():
    socket.socket = type("socket", (), {{}})
{question} = ["socket"].__contains__
"""


@pytest.mark.parametrize(
    ("library", "module", "call", "question"),
    [
        ("gevent", "gevent.monkey", "patch_all", "is_module_patched"),
        ("eventlet", "eventlet.patcher", "monkey_patch", "is_monkey_patched"),
    ],
)
def test_a_library_that_has_patched_is_found_with_the_call(tmp_path, library, module, call, question):
    program = f"import sqlite3, {module}\n# {call}() comes first\n{module}.{call}()\n"
    folder, _, name = module.partition(".")
    (tmp_path / folder).mkdir()
    (tmp_path / folder / "__init__.py").touch()
    (tmp_path / folder / f"{name}.py").write_text(LIBRARY.format(library=library, call=call, question=question))
    status, out, err = checked(tmp_path, program)
    assert (1, "") == (status, err)
    assert re.match(
        rf"patched by another library: {library} has patched socket: remove the call of \S+\(\) in program.py:3, ", out
    )
    assert "pins its carrier: sqlite3: " in out


@pytest.mark.parametrize("start", ["", "import vthreads; vthreads.spawn(print)"])
def test_an_unrelated_class_in_place_of_one_of_the_standard_library_is_found(tmp_path, start):
    status, out, _ = checked(tmp_path, f"import socket\nsocket.socket = type('Mine', (), {{}})\n{start}\n")
    assert (2 if start else 1) == status
    assert "cannot be patched: socket.socket is <class 'program.Mine'>, which is not derived from " in out


def test_a_call_that_the_program_replaces_is_found_with_its_place(tmp_path):
    program = "import os, ssl, time\ndef mine(n): pass\ntime.sleep = mine\nos.system = print\n"
    program += "ssl.SSLSocket = type('Mine', (ssl.SSLSocket,), {})\n"
    status, out, err = checked(tmp_path, program)
    assert (1, "") == (status, err)
    replaced = {line.split()[4] for line in out.splitlines() if line.startswith("replaced by the program: ")}
    assert {"time.sleep", "os.system", "ssl.SSLSocket"} == replaced
    assert " of program.py:2, which is lost; call vthreads.patch() before it is replaced\n" in out


def test_what_was_captured_before_the_program_started_the_runtime_is_found(tmp_path):
    program = "import threading, vthreads\nlock = threading.Lock()\nlock.acquire()\nvthreads.spawn(print)\n"
    status, out, _ = checked(tmp_path, program)
    assert 1 == status
    assert "held by a thread; in program.lock; call vthreads.patch() before it is made" in out


# --- programs that do more than define names at their import

# Each ends by itself or starts what never ends. Nothing of it is a finding.
STARTED = {
    "a virtual thread that waits": "import vthreads; vthreads.spawn(vthreads.Event().wait)",
    "a virtual thread that sleeps": "import time, vthreads; vthreads.spawn(time.sleep, 1e6)",
    "a group that is not left": "import time, vthreads; vthreads.ThreadGroup().__enter__().spawn(time.sleep, 1e6)",
    "an executor": "import concurrent.futures, time; concurrent.futures.ThreadPoolExecutor().submit(time.sleep, 1e6)",
    "an OS thread": "import threading, time; threading.Thread(target=time.sleep, args=(1e6,)).start()",
    "an OS thread that computes": """
import threading
threading.Thread(target=lambda: [None for _ in iter(int, 1)]).start()
""",
    "a timer": "import threading; threading.Timer(1e6, print).start()",
    "a server in an OS thread": """
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
threading.Thread(target=HTTPServer(("127.0.0.1", 0), BaseHTTPRequestHandler).serve_forever).start()
""",
    "a function for the exit": "import atexit, time; atexit.register(time.sleep, 1e6)",
    "a process": "import subprocess; subprocess.Popen(['sleep', '1000000'])",
    "a process of multiprocessing": """
import multiprocessing, time
multiprocessing.get_context("fork").Process(target=time.sleep, args=(1e6,)).start()
""",
    "a fork that returns": "import os; os.fork()",
    "a fork that stays": "import os, time; os.fork() or time.sleep(1e6)",
    "an event loop that ends": "import asyncio; asyncio.run(asyncio.sleep(0))",
    "a read of standard input": "import sys; assert '' == sys.stdin.read()",
    "output": "print('of the program' * 100_000)",
}


@pytest.mark.sampled(4)
@pytest.mark.parametrize("program", STARTED.values(), ids=STARTED)
def test_what_a_program_starts_at_its_import_ends_with_the_check(tmp_path, program):
    status, out, _ = checked(tmp_path, program)
    assert (0, 1) == (status, out.count("\n"))
    assert out.startswith("0 findings in ")


ENDED = "import ended: the process of the program"
FAILING = {
    "def f(): 1 / 0\nf()": "import failed: program.py:2: ZeroDivisionError: division by zero",
    "import sys\nsys.exit(3)": "import failed: program.py:2: SystemExit: 3; move it under `if __name__ ==",
    "raise SystemExit": "import failed: program.py:1: SystemExit; move it under `if __name__ ==",
    "\ninput()": "import failed: program.py:2: EOFError: EOF when reading a line; standard input is empty during the ",
    "\nx = = 1": "import failed: program.py:2: SyntaxError: invalid syntax",
    "raise KeyboardInterrupt": "import failed: program.py:1: KeyboardInterrupt",
    "class Odd(Exception):\n    __str__ = None\nraise Odd": "import failed: program.py:3: program.Odd: ",
    "def f(): f()\nf()": "import failed: program.py:2: RecursionError: ",
    "import vthreads\nvthreads.run(vthreads.Event().wait)": "import failed: program.py:2: vthreads.errors.Deadlock",
    "import os\nos._exit(7)": f"{ENDED} ended with status 7 during the import",
    "import os\nos.fork() and os._exit(0)\nos.setsid()": f"{ENDED} ended with status 0 during the import",
    "import os, signal\nos.kill(os.getpid(), signal.SIGSEGV)": f"{ENDED} was killed by SIGSEGV during the import",
    "import os\nos.closerange(0, 100)": f"{ENDED} ended with status 1 during the import",
}


@pytest.mark.sampled(4)
@pytest.mark.parametrize("program", FAILING)
def test_an_import_that_fails_is_reported_with_its_place(tmp_path, program):
    status, out, _ = checked(tmp_path, program)
    first, last = out.splitlines()[0], out.splitlines()[-1]
    assert 2 == status
    assert first.startswith(FAILING[program])
    assert last.endswith("; the check is not complete")


def test_what_was_imported_before_a_failure_is_checked(tmp_path):
    status, out, _ = checked(tmp_path, "import sqlite3\n1 / 0\n")
    assert 2 == status
    assert "pins its carrier: sqlite3: " in out
    assert "1 finding in " in out


def test_a_package_that_exits_is_not_taken_for_a_missing_one(tmp_path):
    (tmp_path / "package").mkdir()
    (tmp_path / "package" / "__init__.py").write_text("import sys\nsys.exit(4)\n")
    (tmp_path / "package" / "__main__.py").touch()
    status, out, err = command(tmp_path, "-m", "package")
    assert (2, "") == (status, err)
    assert out.startswith("import failed: package/__init__.py:2: SystemExit: 4; move it under ")


@pytest.mark.parametrize("module", ["time", "threading", "json", "traceback"])
@pytest.mark.parametrize("value", ["None", "object()"])
def test_a_module_that_the_program_replaces_is_found_and_the_search_goes_on(tmp_path, module, value):
    status, out, err = checked(tmp_path, f"import sqlite3, sys\nsys.modules[{module!r}] = {value}\n")
    assert (1, "") == (status, err)
    assert f"replaced by the program: sys.modules[{module!r}] is {value.removesuffix('()')}" in out.replace("<", "")
    assert "call vthreads.patch() before it is replaced\npins its carrier: sqlite3: " in out
    assert out.splitlines()[-1].startswith("2 findings in ")


def test_the_failure_of_a_program_that_replaces_modules_is_shown(tmp_path):
    status, out, err = checked(tmp_path, "import sys\nsys.modules.update(time=None, traceback=None)\n1 / 0\n")
    assert 2 == status
    assert "import failed: program.py:3: ZeroDivisionError: division by zero" == out.splitlines()[0]
    assert "ZeroDivisionError: division by zero" == err.splitlines()[-1]


@pytest.mark.parametrize("arguments", [["none.py"], ["-m", "no_such_module"]])
def test_a_program_that_is_not_there_is_not_a_finding(tmp_path, arguments):
    ended = command(tmp_path, *arguments)
    assert (2, "") == ended[:2]
    assert arguments[-1] in ended[2]


# Runs the check with a clock on which the limit is over as soon as the program has come to its endless statement.
CLOCK = """
import os, sys, time
from vthreads._cli import check, supervised
class Clock:
    sleep = staticmethod(time.sleep)
    monotonic = staticmethod(lambda: 1000 * os.path.exists("reached"))
supervised.time, supervised.GRACE = Clock, {grace}
sys.exit(check.main(["--timeout", "180", "program.py"]))
"""
# Shows the clock of the test that the import has come so far.
REACHED = "open('reached', 'w').close()"
ENDLESS = {
    "a loop": "[None for _ in iter(int, 1)]",
    "a loop in C": "sum(iter(int, 1))",
    "a sleep": "__import__('time').sleep(1e6)",
    "a wait for a lock": "lock = __import__('_thread').allocate_lock(); lock.acquire(); lock.acquire()",
    "an event loop": "import asyncio; asyncio.run(asyncio.sleep(1e6))",
    "a group": f"import time, vthreads; vthreads.run(lambda: ({REACHED}, time.sleep(1e6)))",
    "a server": "import http.server as h; h.HTTPServer(('127.0.0.1', 0), h.BaseHTTPRequestHandler).serve_forever()",
    "a server of vthreads": "from vthreads import serve; serve.tcp(print, '127.0.0.1', 0)",
    "output": "[print('x' * 1000) for _ in iter(int, 1)]",
    "a stopped process": "import os, signal; os.kill(os.getpid(), signal.SIGSTOP)",
    "a loop that no signal reaches": "import signal; signal.pthread_sigmask(0, range(1, 32)); sum(iter(int, 1))",
    "a loop in a virtual thread": f"import vthreads; vthreads.spawn(sum, iter(lambda: {REACHED} or 0, 1))",
    "a sleep while others run": "import time, vthreads; "
    f"vthreads.spawn(lambda: ({REACHED}, [time.sleep(0) for _ in iter(int, 1)])); time.sleep(1e6)",
    "a sleep while others poll": f"import time, vthreads as v; v.spawn(lambda: ({REACHED}, time.sleep(1e6))); "
    "v.spawn(lambda: [time.sleep(0.001) for _ in iter(int, 1)]); time.sleep(1e6)",
    "a run that waits for others": "import time, vthreads as v; "
    f"v.run(lambda: v.spawn(lambda: ({REACHED}, [time.sleep(0) for _ in iter(int, 1)])).result())",
}
WITHOUT_PLACE = {"a stopped process", "a loop that no signal reaches"}


@pytest.mark.sampled(4)
@pytest.mark.parametrize("kind", ENDLESS)
def test_an_import_that_does_not_end_is_ended_and_reported(tmp_path, kind):
    line = ENDLESS[kind] if REACHED in ENDLESS[kind] else f"{REACHED}; {ENDLESS[kind]}"
    (tmp_path / "program.py").write_text(f"\n{line}\n")
    # Seconds for the child to write its stack, which some cannot.
    clock = CLOCK.format(grace=1 if kind in WITHOUT_PLACE else 100)
    ended = subprocess.run(
        [sys.executable, "-c", clock], check=False, capture_output=True, text=True, timeout=200, cwd=tmp_path
    )
    assert 2 == ended.returncode
    first, last = ended.stdout.splitlines()
    if kind in WITHOUT_PLACE:
        assert first.startswith("import not finished after 180 s; allow more time with --timeout; if it never ends, ")
    else:
        assert first.startswith(f"import not finished after 180 s: program.py:2: `{line}`; move it under `if __name__ ")
    assert "0 findings in the program; the check is not complete" == last


@pytest.mark.parametrize("seconds", ["0", "-1", "inf", "nan", "soon"])
def test_the_limit_is_above_0(tmp_path, seconds):
    status, out, err = command(tmp_path, "--timeout", seconds, "program.py")
    assert (2, "") == (status, out)
    assert "argument --timeout: " in err


def test_an_interrupted_check_ends_the_program(tmp_path):
    program = "import os, time; print(os.getpid(), flush=True); time.sleep(1e6)"
    (tmp_path / "program.py").write_text(program)
    arguments = [sys.executable, "-m", "vthreads", "check", "program.py"]
    with subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=tmp_path) as process:
        child = int(process.stderr.readline())
        process.send_signal(signal.SIGINT)
        assert b"" == process.stderr.read()
    assert -signal.SIGINT == process.returncode
    with pytest.raises(ProcessLookupError):
        os.kill(child, 0)
