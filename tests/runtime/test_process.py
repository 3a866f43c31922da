"""Exit, fork, Ctrl-C and deadlock, each in a separate process, with what its user sees."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap

import pytest

pytestmark = pytest.mark.real


def start(script: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-W", "error", "-W", "ignore:This process:DeprecationWarning", "-c", textwrap.dedent(script)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
    )


def finish(process: subprocess.Popen[str]) -> tuple[int, str, str]:
    try:
        out, err = process.communicate(timeout=200)
    except subprocess.TimeoutExpired:
        process.kill()
        out, err = process.communicate()
        pytest.fail(f"the process did not end\n{out}\n{err}")
    return process.returncode, out, err


def outcome(script: str) -> tuple[int, str, str]:
    """Exit status, standard output and standard error of a script."""
    return finish(start(script))


def outcome_with_presses(script: str, *lines: str) -> tuple[int, str, str]:
    """The same, with Ctrl-C pressed after each of `lines` has been printed."""
    process = start(script)
    assert process.stdout is not None
    printed = ""
    for line in lines:
        while line not in printed:
            more = process.stdout.readline()
            if not more:
                status, rest, err = finish(process)
                pytest.fail(f"ended with {status} before printing {line!r}:\n{printed}{rest}\n{err}")
            printed += more
        process.send_signal(signal.SIGINT)
    status, out, err = finish(process)
    return status, printed + out, err


# --- exit


def test_the_background_is_joined_at_exit():
    status, out, err = outcome(
        """
        import vthreads
        def work():
            vthreads.sleep(0.05)
            print("worked")
        vthreads.spawn(work)
        print("main ends")
        """
    )
    assert (0, "main ends\nworked\n", "") == (status, out, err)


def test_the_background_is_joined_before_pools_end():
    status, out, err = outcome(
        """
        import vthreads
        from concurrent.futures import ThreadPoolExecutor
        pool = ThreadPoolExecutor(1)
        # From here on the pool has its OS thread: Python 3.12 starts none once the main script has ended.
        pool.submit(int).result()
        def work():
            vthreads.sleep(0.05)
            print(pool.submit(str.upper, "from the pool").result())
        vthreads.spawn(work)
        """
    )
    assert (0, "FROM THE POOL\n", "") == (status, out, err)


def test_a_background_failure_is_shown_once_with_its_spawn_site_and_the_status_stays_zero():
    status, out, err = outcome(
        """
        import vthreads
        def fail():
            raise ValueError("background")
        vthreads.spawn(fail)
        """
    )
    assert 0 == status
    assert 1 == err.count("ValueError: background")
    assert "in virtual thread 'virtual-" in err
    assert 'File "<string>", line 5, in <module>' in err


def test_a_finalizer_that_kept_a_replaced_call_works_until_the_end_of_the_interpreter():
    """The interpreter clears the modules before it frees what `sys` refers to, such as a connection."""
    status, pid, err = outcome(
        """
        import os
        import subprocess
        import sys

        import vthreads

        class Last:
            def __init__(self, *call):
                self.call = call

            def __del__(self, writes=(os.write,), failures=Exception, text=repr):
                function, *arguments = self.call
                try:
                    found = function(*arguments)
                except failures as failure:
                    found = failure
                writes[0](2, text(found).encode() + b"\\n")

        vthreads.patch()
        child = subprocess.Popen(["true"])
        child.returncode = 0
        sys.last = [Last(os.close, os.dup(0)), Last(os.waitpid, child.pid, 0)]
        print(child.pid)
        """
    )
    assert (0, {"None", f"({int(pid)}, 0)"}) == (status, set(err.splitlines()))


def test_an_os_thread_that_became_a_carrier_joins_its_background_when_it_ends():
    status, out, err = outcome(
        """
        import threading, vthreads
        def work():
            vthreads.sleep(0.05)
            print("worked")
        thread = threading.Thread(target=lambda: vthreads.spawn(work))
        thread.start()
        thread.join()
        print("joined")
        """
    )
    assert (0, "worked\njoined\n", "") == (status, out, err)


def test_a_failed_group_ends_the_script_with_its_traceback():
    status, out, err = outcome(
        """
        import vthreads
        def fail():
            vthreads.sleep(0.01)
            raise ValueError("member")
        with vthreads.ThreadGroup("download") as group:
            group.spawn(fail)
        """
    )
    assert 1 == status
    assert "1 failure in ThreadGroup 'download'" in err
    assert "ValueError: member" in err
    assert "of group 'download', spawned at" in err


def test_a_failure_is_shown_even_if_a_sibling_is_stuck_in_an_abandoned_call():
    status, out, err = outcome(
        """
        import threading, vthreads
        def fail():
            vthreads.sleep(0.05)
            raise ValueError("shown")
        with vthreads.ThreadGroup() as group:
            group.spawn(vthreads.offload, threading.Event().wait, on_cancel="abandon")
            group.spawn(fail)
        """
    )
    assert 1 == status
    assert "ValueError: shown" in err


def test_sys_exit_in_a_member_ends_the_process_with_its_status():
    status, out, err = outcome(
        """
        import sys, vthreads
        with vthreads.ThreadGroup() as group:
            group.spawn(vthreads.sleep, 3600)
            group.spawn(sys.exit, 7)
        """
    )
    assert (7, "") == (status, out)


def test_nothing_starts_at_import():
    status, out, err = outcome(
        """
        import threading, time
        before = time.sleep, threading.active_count()
        import vthreads
        assert before == (time.sleep, threading.active_count())
        """
    )
    assert (0, "", "") == (status, out, err)


# --- fork


FORKING = """
import os, sys, vthreads
from vthreads import ThreadGroup

def wait_for(pid):
    print("status", os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
"""


def test_the_root_forks_and_goes_on_in_the_child():
    status, out, err = outcome(
        FORKING
        + """
def member():
    try:
        vthreads.sleep(0.2)
    finally:
        print("cleanup in", "child" if os.getpid() != parent else "parent")

parent = os.getpid()
with ThreadGroup() as group:
    other = group.spawn(member)
    pid = os.fork()
    if pid == 0:
        print("child has", len(group), "members, the other is cancelled:", other.cancelled())
        group.spawn(print, "spawned in the child")
if pid:
    wait_for(pid)
    print("parent ends")
else:
    print("child ends")
"""
    )
    assert (0, "") == (status, err)
    of_the_child = [line for line in out.splitlines() if "child" in line]
    assert ["child has 0 members, the other is cancelled: True", "spawned in the child", "child ends"] == of_the_child
    assert 1 == out.count("cleanup in parent")
    assert "cleanup in child" not in out
    assert out.endswith("status 0\nparent ends\n")


def test_a_child_is_not_held_up_by_what_another_os_thread_was_about():
    """It may be completing a future when the process forks, and does not exist in the child to finish that."""
    status, out, err = outcome(
        FORKING
        + """
import threading
from vthreads._core.future import changing_futures

inside, go_on = threading.Event(), threading.Event()

def other():
    with changing_futures:
        inside.set()
        go_on.wait()

thread = threading.Thread(target=other)
thread.start()
inside.wait()
with ThreadGroup():
    pid = os.fork()
    if pid == 0:
        print("child has", vthreads.spawn(lambda: "a future").result(timeout=30))
    go_on.set()
thread.join()
if pid:
    wait_for(pid)
"""
    )
    assert (0, "child has a future\nstatus 0\n") == (status, out)


@pytest.mark.parametrize(
    ("ending", "expected", "shown"),
    [
        ("return", 0, ""),
        ("raise ValueError('in the child')", 1, "ValueError: in the child"),
        ("sys.exit(5)", 5, ""),
        ("sys.exit('said')", 1, "said"),
    ],
)
def test_a_virtual_thread_that_forks_ends_the_child_like_a_main_script(ending, expected, shown):
    status, out, err = outcome(
        FORKING
        + f"""
def forker():
    vthreads.sleep(0.01)
    pid = os.fork()
    if pid == 0:
        vthreads.spawn(print, "background of the child")
        {ending}
    wait_for(pid)

with ThreadGroup() as group:
    group.spawn(forker)
print("parent ends")
"""
    )
    assert 0 == status
    assert f"background of the child\nstatus {expected}\nparent ends\n" == out
    assert shown in err


@pytest.mark.parametrize("forks", ["fork()", "vthreads.spawn(fork).result()"])
@pytest.mark.parametrize("call", ["spawn", "try_spawn"])
def test_a_background_group_of_the_parent_accepts_no_threads_in_the_child(forks, call):
    status, out, err = outcome(
        FORKING
        + f"""
def fork():
    pid = os.fork()
    if pid == 0:
        try:
            kept.{call}(print, "started")
        except vthreads.GroupClosed as error:
            print(str(error).partition("threads: ")[2])
        print(ThreadGroup.current.{call}(lambda: "from the child").result(timeout=30), flush=True)
        os._exit(0)
    wait_for(pid)

kept = ThreadGroup.current
{forks}
print(kept.{call}(lambda: "from the parent").result())
"""
    )
    assert "it belongs to the parent process\nfrom the child\nstatus 0\nfrom the parent\n" == out
    assert 0 == status


@pytest.mark.parametrize("call", ["spawn", "try_spawn"])
def test_a_group_of_another_thread_of_the_parent_accepts_no_threads_in_the_child(call):
    status, out, err = outcome(
        FORKING
        + f"""
def other():
    with ThreadGroup() as group:
        kept.append(group)
        ended.wait()

kept, ended = [], vthreads.Event()
thread = vthreads.spawn(other)
pid = os.fork()
if pid == 0:
    try:
        kept[0].{call}(vthreads.sleep, 0)
    except vthreads.GroupClosed as error:
        print(str(error).partition("threads: ")[2], flush=True)
    os._exit(0)
wait_for(pid)
kept[0].{call}(print, "from the parent")
ended.set()
thread.result()
"""
    )
    assert "it belongs to the parent process\nstatus 0\nfrom the parent\n" == out
    assert 0 == status


def test_the_child_of_a_plain_os_thread_has_nothing_of_the_carriers():
    status, out, err = outcome(
        FORKING
        + """
import socket, threading

def files():
    numbers = os.listdir("/proc/self/fd")
    return [os.readlink(f"/proc/self/fd/{fd}") for fd in numbers if os.path.islink(f"/proc/self/fd/{fd}")]

def forker():
    pid = os.fork()
    if pid == 0:
        print("the child has", [file for file in files() if "eventpoll" in file], future, flush=True)
        future.result(timeout=30)
    wait_for(pid)

def never_ended_here():
    try:
        ours.recv(1)
    finally:
        print("the wait ended in the", "parent" if os.getpid() == parent else "child", flush=True)

parent = os.getpid()
ours, theirs = socket.socketpair()
with vthreads.ThreadGroup() as group:
    future = group.spawn(never_ended_here)
    os_thread = threading.Thread(target=forker)
    os_thread.start()
    os_thread.join()
    theirs.send(b"x")
"""
    )
    assert 0 == status
    the_child, *rest = out.splitlines()
    assert the_child.startswith("the child has [] <Future of")
    assert ["status 0", "the wait ended in the parent"] == rest
    assert "CancelledError" in err


def test_multiprocessing_by_fork_works_from_a_virtual_thread():
    status, out, err = outcome(
        """
        import multiprocessing, vthreads
        def work(number):
            with vthreads.ThreadGroup() as group:
                return group.spawn(lambda: number * 2).result()
        def start():
            process = multiprocessing.get_context("fork").Process(target=lambda: print("in the child", work(21)))
            process.start()
            process.join()
            print("exit code", process.exitcode)
        with vthreads.ThreadGroup() as group:
            group.spawn(start)
        """
    )
    assert (0, "in the child 42\nexit code 0\n") == (status, out), err


# --- Ctrl-C

CLEANING = """
import vthreads
from vthreads import ThreadGroup

def member():
    try:
        vthreads.sleep(3600)
    finally:
        print("cleaned up")
"""


def test_ctrl_c_is_raised_in_the_root_and_unwinds_the_groups():
    status, out, err = outcome_with_presses(
        CLEANING
        + """
def busy():
    print("ready")
    while True:
        vthreads.sleep(0.001)

with ThreadGroup() as group:
    group.spawn(member)
    group.spawn(busy)
""",
        "ready",
    )
    assert (-signal.SIGINT, 1) == (status, out.count("cleaned up"))
    assert "KeyboardInterrupt" in err


def test_ctrl_c_is_raised_at_once_where_the_root_runs_python_code():
    status, out, err = outcome_with_presses(
        """
        import vthreads
        with vthreads.ThreadGroup() as group:
            group.spawn(vthreads.sleep, 3600)
            try:
                print("ready")
                while True:
                    pass
            except KeyboardInterrupt:
                print("caught in the body")
                group.cancel()
        print("goes on")
        """,
        "ready",
    )
    assert (0, "ready\ncaught in the body\ngoes on\n", "") == (status, out, err)


def test_ctrl_c_reaches_a_root_that_is_parked():
    status, out, err = outcome_with_presses(
        """
        import threading, vthreads
        vthreads.current_thread()
        try:
            print("ready")
            vthreads.sleep(3600)
        except KeyboardInterrupt:
            print("caught")
        vthreads.sleep(0.01)
        """,
        "ready",
    )
    assert (0, "ready\ncaught\n", "") == (status, out, err)


def test_the_first_press_waits_for_a_shield_and_the_second_does_not():
    status, out, err = outcome_with_presses(
        """
        import vthreads
        def work():
            with vthreads.shield(None):
                try:
                    print("shielded")
                    vthreads.sleep(0.3)
                    print("not disturbed by the first")
                    vthreads.sleep(3600)
                finally:
                    print("ended by the second")
        with vthreads.ThreadGroup() as group:
            group.spawn(work)
        """,
        "shielded",
        "not disturbed by the first",
    )
    assert -signal.SIGINT == status
    assert "ended by the second" in out
    assert "KeyboardInterrupt" in err


def test_the_second_press_cuts_the_cleanup_short():
    status, out, err = outcome_with_presses(
        """
        import vthreads
        def work():
            try:
                print("ready")
                vthreads.sleep(3600)
            finally:
                print("cleaning")
                vthreads.sleep(3600)
        with vthreads.ThreadGroup(cleanup_grace=3600) as group:
            group.spawn(work)
        """,
        "ready",
        "cleaning",
    )
    assert -signal.SIGINT == status


@pytest.mark.parametrize("threads", [False, True])
def test_one_press_at_exit_is_for_all_that_is_joined(threads):
    status, out, err = outcome_with_presses(
        CLEANING
        + f"""
import threading, time

vthreads.patch(threads={threads})

def tell_when_it_is_joined(main):
    while main.state.value != "parked":
        vthreads.checkpoint()
    print("ready")

threading.Thread(target=time.sleep, args=(3600,)).start()
vthreads.spawn(member)
vthreads.spawn(tell_when_it_is_joined, vthreads.current_thread())
""",
        "ready",
    )
    assert (0, 1, 1) == (status, out.count("cleaned up"), err.count("KeyboardInterrupt\n"))


def test_a_press_that_was_handled_does_not_count_for_the_next():
    status, out, err = outcome_with_presses(
        """
        import vthreads
        def work():
            print("ready")
            vthreads.sleep(3600)
        for _ in range(3):
            try:
                with vthreads.ThreadGroup() as group:
                    group.spawn(work)
            except KeyboardInterrupt:
                print("caught")
        print("goes on")
        """,
        "ready\n",
        "caught\nready\n",
        "caught\nready\ncaught\nready\n",
    )
    assert (0, "ready\ncaught\n" * 3 + "goes on\n", "") == (status, out, err)


def test_ctrl_c_cancels_the_background():
    status, out, err = outcome_with_presses(
        CLEANING
        + """
vthreads.spawn(member)
print("ready")
vthreads.sleep(3600)
""",
        "ready",
    )
    assert 1 == out.count("cleaned up")
    assert "KeyboardInterrupt" in err


def test_ctrl_c_at_the_final_join_cancels_the_background():
    status, out, err = outcome_with_presses(
        CLEANING
        + """
vthreads.spawn(member)
print("main ends")
""",
        "main ends",
    )
    assert 1 == out.count("cleaned up")
    assert "KeyboardInterrupt" in err


# --- signal handlers


def test_a_handler_runs_in_a_virtual_thread_of_its_own_and_may_block():
    status, out, err = outcome(
        """
        import os, signal, time, vthreads
        done = vthreads.Event()
        def handler(signum, frame):
            time.sleep(0.01)
            print("handled by", vthreads.current_thread().name)
            done.set()
        signal.signal(signal.SIGTERM, handler)
        def main():
            assert signal.getsignal(signal.SIGTERM) is handler
            os.kill(os.getpid(), signal.SIGTERM)
            done.wait()
        vthreads.run(main)
        assert signal.getsignal(signal.SIGTERM) is handler
        """
    )
    assert (0, "handled by handler of SIGTERM\n", "") == (status, out, err)


@pytest.mark.parametrize("options", ["", "--threads"])
def test_signals_are_set_by_the_main_thread_alone(options, tmp_path):
    script = tmp_path / "script.py"
    script.write_text(
        textwrap.dedent(
            """
            import signal, threading, vthreads
            def set_both():
                said = []
                for call in (
                    lambda: signal.signal(signal.SIGTERM, handler),
                    lambda: signal.set_wakeup_fd(-1),
                ):
                    try:
                        call()
                        said.append("set")
                    except ValueError as error:
                        said.append(str(error))
                return said
            def handler(signum, frame):
                print("handler", set_both())
            print("before", set_both())
            with vthreads.ThreadGroup() as group:
                print("root", set_both())
                print("virtual", group.spawn(set_both).result())
                thread = threading.Thread(target=lambda: print("thread", set_both()))
                thread.start()
                thread.join()
                signal.raise_signal(signal.SIGTERM)
            """
        )
    )
    command = [sys.executable, "-m", "vthreads", "run", *options.split(), str(script)]
    process = subprocess.run(command, check=False, capture_output=True, text=True, timeout=200)
    refused = [f"{name} only works in main thread of the main interpreter" for name in ("signal", "set_wakeup_fd")]
    expected = {
        "before": ["set"] * 2,
        "root": ["set"] * 2,
        "virtual": refused,
        "thread": refused,
        "handler": ["set"] * 2,
    }
    assert "".join(f"{where} {said}\n" for where, said in expected.items()) == process.stdout, process.stderr


def test_a_wakeup_descriptor_is_the_users_own_and_hears_of_signals_that_are_handled():
    status, out, err = outcome(
        """
        import os, signal, socket, vthreads
        signal.signal(signal.SIGTERM, lambda *_: None)
        before, during = socket.socketpair(), socket.socketpair()
        for sock in (*before, *during):
            sock.setblocking(False)
        print(signal.set_wakeup_fd(before[1].fileno()))
        def main():
            os.kill(os.getpid(), signal.SIGTERM)
            vthreads.checkpoint()
            print(before[0].recv(10) == bytes([signal.SIGTERM]))
            # As asyncio and trio do, which make much of it if somebody else's stands there.
            print(signal.set_wakeup_fd(during[1].fileno()) == before[1].fileno())
            during[0].setblocking(True)
            vthreads.spawn(os.kill, os.getpid(), signal.SIGTERM)
            print(during[0].recv(10) == bytes([signal.SIGTERM]))
            print(signal.set_wakeup_fd(-1) == during[1].fileno())
            try:
                signal.set_wakeup_fd(10**6)
            except (OSError, ValueError):
                print("refused")
            signal.set_wakeup_fd(before[1].fileno())
        vthreads.run(main)
        print(signal.set_wakeup_fd(-1) == before[1].fileno())
        for sock in (*before, *during):
            sock.close()
        """
    )
    assert (0, "-1\nTrue\nTrue\nTrue\nTrue\nrefused\nTrue\n", "") == (status, out, err)


def test_a_signal_ends_an_idle_wait():
    status, out, err = outcome_with_presses(
        """
        import signal, vthreads
        done = vthreads.Event()
        vthreads.current_thread()
        signal.signal(signal.SIGINT, lambda *_: done.set())
        print("ready")
        done.wait()
        print("woken")
        """,
        "ready",
    )
    assert (0, "ready\nwoken\n", "") == (status, out, err)


def test_what_a_handler_raises_surfaces_in_the_root():
    status, out, err = outcome(
        """
        import os, signal, sys, vthreads
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(3))
        def member():
            try:
                vthreads.sleep(3600)
            finally:
                print("cleaned up")
        with vthreads.ThreadGroup() as group:
            group.spawn(member)
            os.kill(os.getpid(), signal.SIGTERM)
            vthreads.sleep(3600)
        """
    )
    assert (3, "cleaned up\n", "") == (status, out, err)


def test_what_a_handler_raises_while_the_root_runs_python_code_is_raised_there_at_once():
    script = """
        import signal, vthreads

        def handler(signum, frame):
            raise TimeoutError(signum)

        def root():
            signal.signal(signal.SIGALRM, handler)
            signal.setitimer(signal.ITIMER_REAL, 0.01)
            try:
                while True:
                    pass
            except TimeoutError as error:
                print("raised", error)

        vthreads.run(root)
    """
    assert (0, f"raised {signal.SIGALRM:d}\n", "") == outcome(script)


PINNING = {
    "a C function": "originals.sleep(3600)",
    "a lock": "lock = originals.allocate_lock(); lock.acquire(); lock.acquire()",
    "a computation": "[None for _ in iter(int, 1)]",
}


@pytest.mark.sampled(1)
@pytest.mark.everywhere
@pytest.mark.parametrize("clock", ["None", "vthreads.testing.VirtualClock()"])
@pytest.mark.parametrize("pinning", PINNING)
def test_what_a_handler_raises_ends_a_member_that_pins_the_carrier(pinning, clock):
    """Such as pytest-timeout, which raises in the handler of SIGALRM. The root could never receive it."""
    script = f"""
        import signal, vthreads, vthreads.testing
        from vthreads._core import originals

        def handler(signum, frame):
            raise TimeoutError("the limit")

        def root():
            with vthreads.ThreadGroup() as group:
                group.spawn(vthreads.Event().wait)
                group.spawn(member)

        def member():
            signal.setitimer(signal.ITIMER_REAL, 0.05)
            {PINNING[pinning]}

        signal.signal(signal.SIGALRM, handler)
        try:
            vthreads.run(root, clock={clock})
        except ExceptionGroup as group:
            print(*map(repr, group.exceptions))
    """
    assert (0, "TimeoutError('the limit')\n", "") == outcome(script)


def test_what_a_handler_raises_does_not_end_a_member_that_parks_later():
    script = """
        import signal, time, vthreads
        from vthreads._calls import overdue

        # Long enough for a busy machine to let the member switch first.
        overdue.PINNED_AFTER = 0.5

        def handler(signum, frame):
            raise TimeoutError("the limit")

        def member():
            signal.raise_signal(signal.SIGALRM)
            with vthreads.shield(None):
                vthreads.sleep(0)
            # The OS thread looks meanwhile, and must not send the signal again.
            while not looked:
                time.time()
            print("untouched")

        looked = []
        look_later = overdue.Overdue._look_later
        overdue.Overdue._look_later = lambda self, is_known: (look_later(self, is_known), looked.append(self._is_sent))
        signal.signal(signal.SIGALRM, handler)
        try:
            with vthreads.ThreadGroup() as group:
                group.spawn(member)
        except* TimeoutError as failures:
            print(len(failures.exceptions), looked)
    """
    assert (0, "untouched\n1 [False]\n", "") == outcome(script)


# `fail_after` converts its argument, and the conversion raises the signal: inside the package's own code.
INSIDE_THE_PACKAGE = """
import functools, signal, time, vthreads
from vthreads._calls import overdue

overdue.PINNED_AFTER = 0.01

class Raises:
    def __init__(self, number):
        type(self).__float__ = staticmethod(functools.partial(signal.raise_signal, number))

def pin_after(number):
    try:
        vthreads.fail_after(Raises(number))
    except TypeError:
        pass
    until = time.monotonic() + 60
    while not handled and time.monotonic() < until:
        sum(range(1000))
    if not handled:
        print("pinned for ever")

handled = []
"""


@pytest.mark.parametrize("how", ["pin_after(15)", "vthreads.gather(lambda: pin_after(15))"], ids=["root", "member"])
def test_a_handler_that_interrupts_the_package_runs_even_if_the_thread_then_pins(how):
    script = f"""
def root():
    signal.signal(signal.SIGTERM, lambda number, _: handled.append(number))
    {how}
    vthreads.sleep(0.05)
    # Once, though the signal came twice.
    print(*handled)

vthreads.run(root)
"""
    assert (0, "15\n", "") == outcome(INSIDE_THE_PACKAGE + script)


def test_ctrl_c_that_interrupts_the_package_ends_a_root_that_then_pins():
    script = """
try:
    vthreads.run(pin_after, 2)
except KeyboardInterrupt:
    print("ended")
"""
    assert (0, "ended\n", "") == outcome(INSIDE_THE_PACKAGE + script)


def test_a_handler_is_the_code_of_the_main_thread():
    script = """
        import signal, threading, vthreads

        main, lock, data = threading.main_thread(), threading.RLock(), threading.local()

        def handler(signum, frame):
            with lock:
                print(threading.current_thread() is main, threading.get_ident() == main.ident, data.attribute)

        def root():
            data.attribute = "the same data"
            signal.signal(signal.SIGTERM, handler)
            with lock:
                signal.raise_signal(signal.SIGTERM)

        vthreads.run(root)
    """
    assert (0, "True True the same data\n", "") == outcome(script)


def test_a_handler_runs_before_whoever_was_ready_when_the_signal_came():
    script = """
        import os, signal, threading, vthreads

        def send(lock):
            os.kill(os.getpid(), signal.SIGTERM)
            lock.release()

        def root():
            signal.signal(signal.SIGTERM, lambda *_: print("handled"))
            lock = threading.Lock()
            lock.acquire()
            threading.Thread(target=send, args=(lock,)).start()
            lock.acquire()
            print("went on")

        vthreads.run(root)
    """
    assert (0, "handled\nwent on\n", "") == outcome(script)


# --- deadlock


def test_a_deadlock_is_raised_in_the_root_and_tells_who_waits_for_what():
    status, out, err = outcome(
        """
        import threading, vthreads
        one, two = threading.Lock(), vthreads.Lock()
        def first():
            with one:
                vthreads.sleep(0.01)
                two.acquire()
        def second():
            with two:
                vthreads.sleep(0.01)
                one.acquire()
        with vthreads.ThreadGroup("philosophers") as group:
            group.spawn(first)
            group.spawn(second)
        """
    )
    assert 1 == status
    assert "DeadlockError" in err
    assert "Lock.acquire() of <Lock locked" in err
    assert "in first" in err
    assert "in second" in err


def test_a_deadlock_at_exit_is_printed_and_the_status_is_one():
    status, out, err = outcome(
        """
        import atexit, vthreads
        atexit.register(print, "atexit ran")
        vthreads.spawn(vthreads.Event().wait)
        print("main ends")
        """
    )
    assert (1, "main ends\natexit ran\n") == (status, out)
    assert "DeadlockError" in err
    assert "Event.wait() of <Event unset" in err


@pytest.mark.parametrize(
    "source",
    [
        "threading.Thread(target=lambda: (original_sleep(0.2), event.set())).start()",
        "signal.signal(signal.SIGALRM, lambda *_: event.set()); signal.setitimer(signal.ITIMER_REAL, 0.2)",
    ],
)
def test_what_could_still_unpark_somebody_is_no_deadlock(source):
    status, out, err = outcome(
        f"""
        import signal, threading, time, vthreads
        original_sleep = threading.Event().wait
        event = vthreads.Event()
        vthreads.current_thread()
        {source}
        event.wait()
        print("woken")
        """
    )
    assert (0, "woken\n", "") == (status, out, err)


def test_the_end_of_the_last_os_thread_may_leave_a_deadlock():
    status, out, err = outcome(
        """
        import threading, vthreads
        gate = threading.Event()
        vthreads.current_thread()
        threading.Thread(target=gate.wait, args=(0.2,)).start()
        vthreads.Event().wait()
        """
    )
    assert 1 == status
    assert "DeadlockError" in err


def test_fork_handlers_that_run_first_in_the_child_run_no_other_thread():
    assert (0, "0\n", "") == outcome(
        """
        import os, time

        readable, writable = os.pipe()

        def compute():
            began = time.perf_counter()
            while time.perf_counter() - began < 0.01:
                pass
            os.write(writable, b"x")
            os.read(readable, 1)

        os.register_at_fork(after_in_child=compute)

        import vthreads

        parent, done = os.getpid(), []

        def other():
            while not done:
                if os.getpid() != parent:
                    os._exit(3)
                vthreads.checkpoint()

        def root():
            with vthreads.ThreadGroup() as group:
                group.spawn(other)
                pid = os.fork()
                if pid == 0:
                    os._exit(0)
                print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
                done.append(True)

        vthreads.run(root)
        """
    )
