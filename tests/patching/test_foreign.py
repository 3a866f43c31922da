"""The patch of a process in which the standard library's calls were replaced or removed before."""

from __future__ import annotations

import pytest

pytestmark = pytest.mark.real

# A process is patched once, so each case has its own.
STARTED = """
import time, vthreads
kept = [None, print, time.monotonic]
with vthreads.ThreadGroup() as group:
    group.spawn(time.sleep, 0)
assert kept[0] is None
kept[1](kept[2] is time.monotonic)
"""


@pytest.mark.parametrize(
    "before",
    [
        "import select; select.epoll = None",
        "import select; del select.epoll",
        "import select; select.poll = lambda: 1 / 0",
        "import os; os.eventfd_read = None; os.splice = False; os.lockf = ()",
        "import os; os.system = print",
        "import time, os; os.wait = time.monotonic",
        "import functools, signal; signal.pause = functools.partial(print, 'paused')",
        "import builtins; builtins.input = print",
        "import queue; queue.SimpleQueue = list",
        "import threading; threading.get_ident = print; threading.local = type",
        "import socket; socket.getaddrinfo = None; socket.create_connection = print",
    ],
)
def test_an_object_that_replaces_a_call_stays_what_it_is_elsewhere(before, run_script):
    assert "True\n" == run_script(f"{before}\n{STARTED}")


def test_a_wrapper_of_a_call_stays_what_it_is_elsewhere(run_script):
    program = """
    import functools, time

    @functools.wraps(time.sleep)
    def wrapper(seconds):
        print("wrapper", seconds)

    time.sleep = wrapper
    kept = wrapper
    import vthreads
    vthreads.patch()
    kept(3)
    """
    assert "wrapper 3\n" == run_script(program)


LIBRARY = """
import sys, types, socket
module = sys.modules["{name}"] = types.ModuleType("{name}")
module.{question} = ["socket", "ssl"].__contains__
socket.socket = type("socket", (), {{}})
import vthreads
{start}
"""


@pytest.mark.parametrize("start", ["vthreads.patch()", "vthreads.run(print)", "vthreads.spawn(print)"])
@pytest.mark.parametrize(
    ("name", "question", "call"),
    [
        ("gevent.monkey", "is_module_patched", "gevent.monkey.patch_all()"),
        ("eventlet.patcher", "is_monkey_patched", "eventlet.monkey_patch()"),
    ],
)
def test_a_process_that_another_library_has_patched_is_refused(name, question, call, start, run_script):
    program = f"""
try:
    {LIBRARY.format(name=name, question=question, start=start).strip().replace(chr(10), chr(10) + "    ")}
except RuntimeError as error:
    print(error)
"""
    message = run_script(program)
    assert message.startswith(f"{name.partition('.')[0]} has patched socket, ssl, and ")
    assert f"remove the call of {call}" in message


PATCHING = {
    "gevent": {"__init__": "", "monkey": "def patch_all():\n    print('patched')\ndef patch_item():\n    print('one')"},
    "eventlet": {
        "__init__": "from .patcher import monkey_patch",
        "patcher": "def monkey_patch():\n    print('patched')",
    },
}


@pytest.mark.parametrize("first", [True, False], ids=["imported before the patch", "imported after it"])
@pytest.mark.parametrize(
    ("library", "module", "call"),
    [
        ("gevent", "gevent.monkey", "gevent.monkey.patch_all"),
        ("eventlet", "eventlet.patcher", "eventlet.monkey_patch"),
    ],
)
def test_a_library_that_would_patch_a_patched_process_is_refused(library, module, call, first, tmp_path, run_script):
    (tmp_path / library).mkdir()
    for name, text in PATCHING[library].items():
        (tmp_path / library / f"{name}.py").write_text(text)
    steps = [f"import {module}", "vthreads.run(int)"]
    program = f"""
    import sys, vthreads
    sys.path.insert(0, {str(tmp_path)!r})
    {"; ".join(steps if first else steps[::-1])}
    if {library == "gevent"}:
        gevent.monkey.patch_item()
    try:
        {call}()
    except RuntimeError as error:
        print(error)
    vthreads.unpatch()
    {call}()
    """
    *ones, message, last = run_script(program).splitlines()
    assert ["one"] * (library == "gevent") == ones
    assert message.startswith("vthreads has patched the standard library, ")
    assert f"remove the calls of {module} " in message
    assert "patched" == last


@pytest.mark.parametrize("name", ["queue.Queue", "socket.socket", "subprocess.Popen", "threading.Thread"])
def test_a_class_that_is_replaced_by_an_unrelated_one_is_refused(name, run_script):
    module = name.partition(".")[0]
    program = f"""
    import {module}
    {name} = type("Other", (), {{}})
    import vthreads
    try:
        vthreads.run(print)
    except RuntimeError as error:
        print(error)
    """
    assert run_script(program).startswith(f"{name} is <class '__main__.Other'>, which is not derived from ")


def test_a_class_that_is_replaced_by_a_derived_one_is_accepted(run_script):
    program = """
    import socket
    socket.socket = type("Mine", (socket.socket,), {})
    import vthreads
    vthreads.run(print, "ran")
    """
    assert "ran\n" == run_script(program)
