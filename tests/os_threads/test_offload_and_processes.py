"""`offload` at the end of the interpreter, in the child of a fork, and with Ctrl-C."""

from __future__ import annotations

import subprocess
import sys
import textwrap

import pytest


def run_script(script):
    return subprocess.run(
        [sys.executable, "-W", "ignore:This process:DeprecationWarning", "-c", textwrap.dedent(script)],
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )


@pytest.mark.real
@pytest.mark.parametrize("how", ["", "raise SystemExit", "import sys; sys.exit(0)"])
def test_a_process_ends_with_an_abandoned_call_stuck(how):
    done = run_script(f"""
        import threading, vthreads
        from vthreads._os_threads.offload import offload

        with vthreads.move_on_after(0.05):
            offload(threading.Event().wait, on_cancel="abandon")
        print("end")
        {how}
    """)
    assert ("end\n", "", 0) == (done.stdout, done.stderr, done.returncode)


@pytest.mark.real
def test_a_failure_is_shown_with_an_abandoned_call_stuck():
    done = run_script("""
        import threading, vthreads
        from vthreads._os_threads.offload import offload

        with vthreads.ThreadGroup() as group:
            group.spawn(offload, threading.Event().wait, on_cancel="abandon")
            raise KeyError("shown")
    """)
    assert 1 == done.returncode
    assert "KeyError: 'shown'" in done.stderr


@pytest.mark.real
def test_while_the_process_ends_calls_are_still_made():
    done = run_script("""
        import atexit, threading, vthreads
        from vthreads._os_threads.offload import offload

        def background():
            vthreads.sleep(0.05)
            print("joined", offload(threading.current_thread).name)

        @atexit.register
        def last():
            print("last", offload(threading.current_thread).name)

        offload(int)
        vthreads.spawn(background)
    """)
    assert ("joined vthreads-offload-1\nlast MainThread\n", "", 0) == (done.stdout, done.stderr, done.returncode)


@pytest.mark.real
def test_the_child_of_a_fork_has_a_pool_of_its_own():
    done = run_script("""
        import os, threading, vthreads
        from vthreads._os_threads.offload import offload, offload_abandonable
        from vthreads._os_threads.calls import Limiter, calls_under_way

        limiter = Limiter("test", 1)
        gate = threading.Event()

        def stuck():
            offload_abandonable(limiter, gate.wait, None)

        with vthreads.ThreadGroup() as group:
            group.spawn(stuck)
            offload(int)
            child = os.fork()
            if child == 0:
                assert calls_under_way() == []
                assert offload(threading.current_thread).name == "vthreads-offload-1"
                assert offload_abandonable(limiter, int, None) == 0
            else:
                assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
                gate.set()
        print("ended", flush=True)
    """)
    assert ("ended\nended\n", "", 0) == (done.stdout, done.stderr, done.returncode)


@pytest.mark.real
def test_a_call_may_fork():
    done = run_script("""
        import os, vthreads
        from vthreads._os_threads.offload import offload

        def fork():
            child = os.fork()
            return child

        child = offload(fork)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        print("ended", offload(int))
    """)
    assert ("ended 0\n", "", 0) == (done.stdout, done.stderr, done.returncode)


@pytest.mark.real
def test_a_plain_os_thread_becomes_a_carrier_and_ends():
    done = run_script("""
        import threading, vthreads
        from vthreads._os_threads.offload import offload

        def body():
            print(offload(threading.current_thread).name, len(vthreads._core.current.carriers))

        thread = threading.Thread(target=body)
        thread.start()
        thread.join()
        print(len(vthreads._core.current.carriers))
    """)
    assert ("vthreads-offload-1 1\n0\n", "", 0) == (done.stdout, done.stderr, done.returncode)


@pytest.mark.real
def test_what_a_call_spawns_in_the_background_ends_with_it():
    done = run_script("""
        import threading, vthreads
        from vthreads._os_threads.offload import offload

        def background():
            vthreads.sleep(0.05)
            print("background")

        print(offload(lambda: vthreads.spawn(background)).done())
        print(offload(lambda: threading.current_thread().name))
    """)
    assert ("background\nTrue\nvthreads-offload-1\n", "", 0) == (done.stdout, done.stderr, done.returncode)


@pytest.mark.real
@pytest.mark.parametrize("grace", [0.05, 60], ids=["overdue", "in its grace"])
def test_the_second_ctrl_c_leaves_the_call_of_any_thread_behind(grace):
    done = run_script(f"""
        import os, signal, sys, threading, time, vthreads
        from vthreads._os_threads.offload import offload

        begun, told = threading.Event(), threading.Event()

        class Telling:
            def write(self, text, stderr=sys.stderr):
                stderr.write(text)
                told.set()

            flush = sys.stderr.flush

        sys.stderr = Telling()

        def stuck():
            begun.set()
            threading.Event().wait()

        def child():
            try:
                offload(stuck)
            except BaseException as error:
                print(type(error).__name__)
                raise

        def press():
            begun.wait()
            os.kill(os.getpid(), signal.SIGINT)
            while not all(thread._pending for thread in group):
                time.sleep(0.01)
            if {grace} < 1:
                told.wait()
            os.kill(os.getpid(), signal.SIGINT)

        threading.Thread(target=press, daemon=True).start()
        try:
            with vthreads.ThreadGroup(cleanup_grace={grace}) as group:
                group.spawn(child)
        except KeyboardInterrupt:
            print("interrupted")
    """)
    assert ("Cancelled\ninterrupted\n", 0) == (done.stdout, done.returncode)
    assert (grace < 1) == ("still waits" in done.stderr)
