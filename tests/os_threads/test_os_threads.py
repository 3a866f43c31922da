"""OS threads of the program, and of the runtime itself, beside virtual ones; each case in its own process."""

from __future__ import annotations

import subprocess
import sys
import textwrap

import pytest

pytestmark = pytest.mark.real


def outcome(*parts: str) -> tuple[int, str, str]:
    """Exit status, standard output and standard error of a script."""
    script = "".join(map(textwrap.dedent, parts))
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", script],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    return done.returncode, done.stdout, done.stderr


# --- the runtime's own


def test_programs_do_not_see_the_os_threads_of_the_runtime():
    script = """
        import logging, socket, threading, time, vthreads
        from vthreads._core.originals import allocate_lock

        logging.basicConfig(format="%(message)s")

        def seen():
            return threading.enumerate(), threading.active_count(), len(threading._dangling)

        def fail():
            assert threading.current_thread() in threading.enumerate()
            raise KeyError

        def root():
            before = seen()
            socket.getaddrinfo("localhost", 80)
            assert vthreads.offload(lambda: threading.current_thread().name).startswith("vthreads-offload-")
            print(before == seen())
            gate = allocate_lock()
            gate.acquire()
            with vthreads.move_on_after(0.01):
                vthreads.offload(gate.acquire, on_cancel="abandon")
            gate.release()
            try:
                vthreads.offload(fail)
            except KeyError:
                pass
            # The abandoned call ends when it can, and a log message is about it.
            patience = time.monotonic() + 100
            while before != seen() and time.monotonic() < patience:
                time.sleep(0.001)
            print(before == seen())

        vthreads.run(root)
    """
    assert (0, "True\nTrue\n", "") == outcome(script)


# --- those that `threading` did not start


RAW = """
    import _thread, ctypes, os, threading, time, vthreads
    from vthreads._core.current import carriers

    start_raw, told = _thread.start_new_thread, []

    def by_module(function):
        start_raw(function, ())

    def by_c(function):
        libc = ctypes.CDLL(None)
        number, entry = ctypes.c_ulong(), ctypes.CFUNCTYPE(ctypes.c_void_p, ctypes.c_void_p)(lambda _: function())
        assert libc.pthread_create(ctypes.byref(number), None, entry, None) == 0
        assert libc.pthread_join(number, None) == 0
"""


@pytest.mark.parametrize("start", ["by_module", "by_c"])
def test_a_carrier_ends_with_an_os_thread_that_threading_did_not_start(start):
    script = """
        def background():
            time.sleep(0.001)
            told.append("background")

        def body():
            with vthreads.ThreadGroup() as group:
                group.spawn(time.sleep, 0.001)
            vthreads.spawn(background)

        # Patching collects all objects, which keeps the end of an OS thread from being seen.
        vthreads.patch()
        descriptors = len(os.listdir("/proc/self/fd"))
        for _ in range(20):
            start(body)
        patience = time.monotonic() + 100
        # A carrier closes its descriptors when it is not a carrier any more.
        while carriers or len(told) < 20 or len(os.listdir("/proc/self/fd")) > descriptors:
            if time.monotonic() > patience:
                break
            time.sleep(0.001)
        print(len(told), len(carriers), len(os.listdir("/proc/self/fd")) - descriptors, threading.active_count())
    """
    assert (0, "20 0 0 1\n", "") == outcome(RAW, f"start = {start}\n", script)


def test_an_os_thread_whose_end_was_not_seen_is_no_carrier():
    script = """
        kept = []

        def body():
            with vthreads.ThreadGroup() as group:
                group.spawn(time.sleep, 0.001)
            vthreads.spawn(time.sleep, 0.001)
            kept.append(gc.get_objects())

        vthreads.patch()
        descriptors = len(os.listdir("/proc/self/fd"))
        by_c(body)
        print(len(carriers))
        kept.clear()
        print(len(carriers), len(os.listdir("/proc/self/fd")) - descriptors)
    """
    status, out, err = outcome("import gc", RAW, script)
    assert (0, "1\n0 0\n") == (status, out)
    assert "1 virtual threads" in err


@pytest.mark.skipif(sys.platform == "win32", reason="there is no fork")
def test_the_child_of_a_fork_may_run_when_its_parent_used_a_group():
    script = """
        import os, vthreads

        with vthreads.ThreadGroup() as group:
            group.spawn(int)
        child = os.fork()
        if child == 0:
            print(vthreads.run(lambda: "child"), flush=True)
        else:
            assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
            print(vthreads.run(lambda: "parent"))
    """
    assert (0, "child\nparent\n", "") == outcome(script)


# --- pools of the standard library that are left open, on virtual threads


POOLS = """
    import concurrent.futures, threading, time, vthreads

    vthreads.patch(threads=True)
    pools = []

    def work(number):
        time.sleep(0.001)
        return number

    def main(kind, *numbers):
        pools[:] = pools or [kind(2)]
        return [future.result() for future in [pools[0].submit(work, number) for number in numbers]]

    def leave(kind, *numbers):
        pools.append(kind(2))
        for number in numbers:
            pools[0].submit(lambda number=number: told.append(work(number)))

    def grow():
        # The pool of a job is made when the root is joining already.
        outer = concurrent.futures.ThreadPoolExecutor(1)
        pools.append(outer)
        outer.submit(lambda: (time.sleep(0.01), told.extend(main(concurrent.futures.ThreadPoolExecutor, 1))))
        pools.clear()

    told = []
"""


@pytest.mark.parametrize("kind", ["ThreadPoolExecutor", "ProcessPoolExecutor"])
def test_a_pool_that_is_left_open_serves_one_run_after_the_other(kind):
    script = f"""
        import multiprocessing
        multiprocessing.set_start_method("fork")
        for _ in range(3):
            print(vthreads.run(main, concurrent.futures.{kind}, 1, 2, 3))
        print(main(concurrent.futures.{kind}, 4))
    """
    assert (0, "[1, 2, 3]\n" * 3 + "[4]\n") == outcome(POOLS, script)[:2]


def test_the_work_of_a_pool_that_is_left_open_is_done_before_run_returns():
    script = """
        vthreads.run(leave, concurrent.futures.ThreadPoolExecutor, *range(5))
        print(sorted(told), threading.active_count())
    """
    assert (0, "[0, 1, 2, 3, 4] 1\n", "") == outcome(POOLS, script)


def test_a_pool_that_a_job_makes_at_the_end_of_run_is_no_deadlock():
    script = """
        vthreads.run(grow)
        print(told)
    """
    assert (0, "[1]\n", "") == outcome(POOLS, script)


# --- several that become carriers


def test_os_threads_may_start_the_first_runtimes_at_once():
    script = """
        import threading, vthreads

        def root():
            lock = threading.Lock()
            lock.acquire()
            # If it did not park, it would block the carrier.
            waiting = vthreads.spawn(lock.acquire)
            lock.release()
            waiting.result()
            done.append(1)

        def start():
            together.wait()
            vthreads.run(root)

        done, together = [], threading.Barrier(4)
        threads = [threading.Thread(target=start) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        print(len(done))
    """
    assert (0, "4\n", "") == outcome(script)


# --- daemons at exit


@pytest.mark.sampled(1)
@pytest.mark.everywhere
@pytest.mark.parametrize(
    ("starts", "what"),
    [
        ("vthreads.run(serve)", "vthreads.sleep(0)"),
        ("serve()", "time.sleep(0.0001)"),
        ("serve()", "time.sleep(60)"),
        ("vthreads.run(serve)", "queue.put(queue.get())"),
    ],
)
def test_the_interpreter_ends_with_carriers_on_daemon_os_threads(starts, what):
    script = f"""
        import threading, time, vthreads

        queue = vthreads.Queue()
        queue.put(1)

        def busy():
            while True:
                {what}

        def serve():
            with vthreads.ThreadGroup() as group:
                for _ in range(2):
                    group.spawn(busy)

        for _ in range(2):
            threading.Thread(target=lambda: {starts}, daemon=True).start()
        time.sleep(0.05)
    """
    assert [(0, "", "")] * 2 == [outcome(script) for _ in range(2)]


def test_a_carrier_that_starts_while_the_interpreter_ends_does_not_crash_it():
    script = """
        import atexit, sys, threading, time, vthreads

        def busy():
            while True:
                vthreads.sleep(0)

        def serve():
            started.wait()
            with vthreads.ThreadGroup() as group:
                group.spawn(busy)

        def start_late():
            # Called after the carriers have been stopped, because it was registered before the first one started.
            started.set()
            # The OS thread blocks for good, or it runs virtual threads and dies of the end of the interpreter.
            while sys._current_frames()[thread.ident].f_code.co_name not in ("_block_forever", "busy"):
                time.sleep(0.001)

        started = threading.Event()
        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        atexit.register(start_late)
        vthreads.run(int)
    """
    assert (0, "", "") == outcome(script)


# --- descriptors of the runtime


CLOSINGS = {
    "close": "for fd in range(3, 256): suppressed(os.close, fd)",
    "closerange": "os.closerange(3, 256)",
    "socket.close": "for fd in range(3, 256): suppressed(socket.close, fd)",
}


@pytest.mark.parametrize(
    ("closing", "poller", "fork"),
    [
        ("close", None, False),
        ("close", "poll", True),
        ("closerange", None, True),
        ("closerange", "select", False),
        ("socket.close", None, False),
    ],
)
def test_a_program_may_close_all_its_descriptors(closing, poller, fork):
    script = f"""
        import os, socket, time, vthreads

        def suppressed(close, fd):
            try:
                close(fd)
            except OSError:
                pass

        def daemon():
            {CLOSINGS[closing]}
            time.sleep(0.001)
            again = [os.open(os.devnull, os.O_RDONLY) for _ in range(6)]
            ours, theirs = socket.socketpair()
            with vthreads.ThreadGroup() as group:
                future = group.spawn(ours.recv, 1)
                theirs.send(b"x")
            vthreads.offload(int)
            os.write(1, future.result())
            os._exit(0)

        def root():
            if {fork} and (child := os.fork()):
                return os.waitpid(child, 0)
            daemon()

        vthreads.run(root, poller={poller!r})
    """
    assert (0, "x", "") == outcome(script)


# --- idents that are given to C


@pytest.mark.sampled(2)
@pytest.mark.everywhere
@pytest.mark.parametrize("patch", [True, False])
@pytest.mark.parametrize(
    "call",
    [
        "signal.pthread_kill(ident, 0)",
        "time.pthread_getcpuclockid(ident)",
        "libc.pthread_setname_np(ctypes.c_ulong(ident), b'name')",
        "ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(ident), None)",
    ],
)
def test_c_code_survives_the_ident_of_a_virtual_thread(call, patch):
    script = f"""
        import ctypes, signal, threading, time, vthreads

        libc = ctypes.CDLL(None)

        def use(ident):
            try:
                {call}
            except OSError as error:
                print(error.errno)

        def child():
            vthreads.sleep(0)
            # By hand, the ident is that of the virtual thread without the patch as well.
            use(vthreads.current_thread().ident)

        def root():
            with vthreads.ThreadGroup() as group:
                thread = group.spawn(child).thread
                use(thread.ident)
            use(thread.ident)

        vthreads.run(root, patch={patch})
        print("alive")
    """
    status, out, err = outcome(script)
    assert (0, "alive", "") == (status, out.splitlines()[-1], err)


def test_a_signal_to_a_virtual_thread_is_sent_to_its_carrier():
    script = """
        import signal, threading, time, vthreads

        def child():
            signal.pthread_kill(threading.get_ident(), signal.SIGUSR1)
            time.sleep(0.001)
            clock = time.pthread_getcpuclockid(threading.get_ident())
            print(clock == time.pthread_getcpuclockid(threading.main_thread().ident))

        def root():
            signal.signal(signal.SIGUSR1, lambda number, frame: print("handled"))
            with vthreads.ThreadGroup() as group:
                thread = group.spawn(child).thread
                signal.pthread_kill(thread.ident, signal.SIGUSR1)
                time.sleep(0.001)
            try:
                signal.pthread_kill(thread.ident, 0)
            except ProcessLookupError:
                print("over")

        vthreads.run(root)
    """
    assert (0, "handled\nhandled\nTrue\nover\n", "") == outcome(script)


def test_an_os_thread_that_the_system_does_not_let_run_yet_is_no_deadlock():
    script = """
        import _thread, hashlib, sys, threading, vthreads

        current_frames, looks = sys._current_frames, []

        def without_the_new_one():
            looks.append(None)
            return {threading.main_thread().ident: None} if len(looks) < 10 else current_frames()

        def compute_and_set():
            # A thread that waits for a processor looks the same to the system as one that uses it.
            while len(looks) < 10:
                hashlib.pbkdf2_hmac("sha256", b"", b"", 1_000)
            event.set()

        def root():
            _thread.start_new_thread(compute_and_set, ())
            sys._current_frames = without_the_new_one
            event.wait()
            return "set"

        # However slow the machine is.
        vthreads._core.os_thread_kinds.STARTING_FOR = 3600
        event = threading.Event()
        print(vthreads.run(root))
    """
    assert (0, "set\n", "") == outcome(script)
