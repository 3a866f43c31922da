"""Modules that are imported again, or after the patch, and modules that are not imported at all."""

from __future__ import annotations

import pytest

pytestmark = pytest.mark.unpatched


AGAIN = {
    "time": "module.sleep(0.05)",
    "select": "module.select([], [], [], 0.05)",
    "_thread": "lock = module.allocate_lock(); lock.acquire(); lock.acquire(True, 0.05)",
    "threading": "thread = module.Thread(target=time.sleep, args=(0.05,)); thread.start(); thread.join()",
    "queue": "module.Queue(1).join(); queue = module.Queue(1); queue.put(1); wait(queue.put, 1, timeout=0.05)",
    "socket": "a, b = module.socketpair(); a.settimeout(0.05); wait(a.recv, 1); a.close(); os.close(b.detach())",
    "subprocess": "module.run(['sleep', '0.05'])",
    "ssl": """
a, b = module._socket.socketpair()
a.settimeout(0.05)
wait(module.create_default_context().wrap_socket, a, server_hostname='localhost')
b.close()
""",
}


@pytest.mark.sampled(1)
@pytest.mark.everywhere
@pytest.mark.parametrize(
    "patched", ["import queue, socket, ssl, subprocess; {}", "{}; import queue, socket, ssl, subprocess"]
)
@pytest.mark.parametrize("how", ["afresh", "reloaded"])
def test_a_module_that_is_imported_again_parks_and_is_put_back(how, patched, run_script):
    script = f"""
import importlib, os, sys, time, types, vthreads
{patched.format("vthreads.patch()")}
def wait(call, *args, **keywords):
    try: call(*args, **keywords)
    except Exception: pass
def again(name):
    old = sys.modules[name]
    if {how!r} == "reloaded":
        return importlib.reload(old)
    del sys.modules[name]
    try: return importlib.import_module(name)
    finally: sys.modules[name] = old
def use(code, module):
    exec(code, dict(module=module, time=time, wait=wait, os=os))
modules = {{}}
with vthreads.ThreadGroup() as group:
    for name, code in {AGAIN!r}.items():
        modules[name] = again(name)
        vthreads.checkpoint()
        used = group.spawn(use, code, modules[name])
        print(name, used.done())
vthreads.unpatch()
print(type(modules["time"].sleep) is types.BuiltinFunctionType, modules["time"].sleep.__class__.__name__)
"""
    expected = "".join(f"{name} False\n" for name in AGAIN)
    assert expected + "True builtin_function_or_method\n" == run_script(script)


@pytest.mark.parametrize("patched", ["first", "last"])
def test_the_queue_in_python_of_a_copy_parks_and_raises_its_own_error(patched, run_script):
    script = f"""
import importlib, queue, sys, vthreads
def in_python():
    sys.modules["_queue"] = None
    del sys.modules["queue"]
    try: return importlib.import_module("queue")
    finally:
        sys.modules["queue"] = queue
        del sys.modules["_queue"]
if {patched!r} == "first":
    vthreads.patch()
copy = in_python()
vthreads.patch()
def root():
    items = copy.SimpleQueue()
    taker = vthreads.spawn(items.get)
    print(taker.done())
    items.put("item")
    print(taker.result())
    try: items.get_nowait()
    except copy.Empty: print("empty")
vthreads.run(root)
"""
    assert "False\nitem\nempty\n" == run_script(script)


LATER = """
import sys
{before}
import vthreads
vthreads.patch()
assert not {{"socket", "ssl", "subprocess"}} & sys.modules.keys()
{then}
import _socket, socket, ssl, subprocess
names = ["socket.create_connection", "socket.getaddrinfo", "socket.gethostbyname", "_socket.gethostbyname",
         "socket.socket.recv", "ssl.SSLSocket.read", "subprocess.Popen._wait", "subprocess.Popen.__init__"]
def replaced():
    return [name for name in names if "vthreads" in origin(eval(name))]
def origin(call):
    kind = type(call)
    if kind.__name__ == "cython_function_or_method":
        return "vthreads"
    return kind.__module__ if kind.__module__ != "builtins" else getattr(call, "__globals__", {{}}).get("__name__", "")
print(len(names) - len(replaced()))
def root():
    ours, theirs = socket.socketpair()
    with vthreads.ThreadGroup() as group, ours, theirs:
        reader = group.spawn(ours.recv, 1)
        theirs.send(b"x")
        return reader.result(), subprocess.run([sys.executable, "-c", "print(1)"], capture_output=True).stdout
print(vthreads.run(root))
vthreads.unpatch()
print(replaced())
vthreads.patch()
print(len(names) - len(replaced()))
vthreads.unpatch()
print(replaced())
"""
EXPECTED_LATER = "0\n(b'x', b'1\\n')\n[]\n0\n[]\n"


@pytest.mark.real
def test_a_module_that_is_first_imported_after_the_patch_is_patched_and_put_back(run_script):
    assert EXPECTED_LATER == run_script(LATER.format(before="", then=""))


@pytest.mark.sampled(1)
@pytest.mark.everywhere
@pytest.mark.real
@pytest.mark.parametrize(
    "first", ["_calls.net.ssl", "_calls.net.dns", "_calls.net.socket", "_calls.processes.popen", "_patching.ssl_table"]
)
def test_a_module_is_patched_if_its_replacements_import_it_first(first, run_script):
    then = f"import importlib; importlib.import_module('vthreads.{first}')"
    assert EXPECTED_LATER == run_script(LATER.format(before="", then=then))


@pytest.mark.real
def test_modules_are_patched_whatever_their_order(run_script):
    assert EXPECTED_LATER == run_script(LATER.format(before="", then="import ssl"))
    assert EXPECTED_LATER == run_script(LATER.format(before="", then="import subprocess, asyncio"))


@pytest.mark.real
def test_a_copy_that_is_in_no_list_of_modules_any_more_is_patched(run_script):
    script = """
import sys
import socket, subprocess, time
kept = [socket, subprocess, time]
for module in kept:
    del sys.modules[module.__name__]
import vthreads
vthreads.patch()
socket, subprocess, time = kept
calls = {"connect": lambda: vars(socket)["create_connection"], "wait": lambda: subprocess.Popen._wait}
print(*[name for name, call in calls.items() if "vthreads" not in call().__globals__["__name__"]])
done = []
def sleeper():
    time.sleep(0.01)
    done.append("slept")
with vthreads.ThreadGroup() as group:
    group.spawn(sleeper)
    done.append("spawned")
print(*done)
vthreads.unpatch()
print(*[name for name, call in calls.items() if "vthreads" in call().__globals__["__name__"]])
"""
    assert "\nspawned slept\n\n" == run_script(script)


@pytest.mark.real
def test_a_first_group_imports_none_of_the_modules_that_it_only_patches(run_script):
    # The base class of futures needs `traceback`, which imports `dataclasses` since Python 3.14. A named tuple imports
    # `ast` since Python 3.15.
    script = """
from __future__ import annotations
import sys
import traceback
import typing
class Pair(typing.NamedTuple):
    first: int
known = set(sys.modules)
import vthreads
with vthreads.ThreadGroup() as group:
    group.spawn(int)
heavy = {"ast", "asyncio", "dataclasses", "importlib.abc", "inspect", "ipaddress", "json", "multiprocessing", "pathlib",
         "random", "selectors", "shutil", "socket", "ssl", "subprocess", "tempfile"}
print(*sorted(heavy & (sys.modules.keys() - known)))
"""
    assert "\n" == run_script(script)
