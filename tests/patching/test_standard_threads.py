"""`patch(threads=True)`: what `threading` and the pools and servers built on it start are virtual threads."""

import _thread
import asyncio
import contextvars
import signal
import subprocess
import sys
import textwrap
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

import vthreads
from vthreads import ThreadGroup, fail_after, move_on_after, sleep
from vthreads._core import originals


def os_ident():
    # Not captured: a captured name would be replaced.
    return originals.get_ident()


@pytest.fixture
def threaded(virtual):
    """Call a function as root on a virtual clock, after `patch(threads=True)`.

    Afterwards only threads are as before. The rest stays patched, because a patch searches all objects of the process.
    """
    vthreads.patch(threads=True)
    yield lambda fn, *args: virtual(fn, *args, patch=True)
    vthreads._patching.unpatch_threads()


def run_python(code, *arguments, timeout=200):
    done = subprocess.run(
        [sys.executable, *(arguments or ("-c",)), textwrap.dedent(code)],
        check=False, capture_output=True, text=True, timeout=timeout,
    )  # fmt: skip
    return done.returncode, done.stdout, done.stderr


# --- what a Thread is


def test_a_thread_runs_on_the_carrier_of_who_starts_it_and_knows_itself(threaded):
    def root():
        seen = []
        thread = threading.Thread(
            target=lambda: seen.append((os_ident(), threading.get_ident(), threading.current_thread())), name="mine"
        )
        thread.start()
        thread.join()
        assert [(os_ident(), thread.ident, thread)] == seen
        assert thread.ident != threading.get_ident()
        assert "mine" == thread.name

    threaded(root)


def test_it_parks_alone_and_is_joined(threaded):
    def root():
        thread = threading.Thread(target=sleep, args=(60,))
        assert not thread.is_alive()
        thread.start()
        assert thread.is_alive()
        assert thread in threading.enumerate()
        thread.join(10)
        assert (10, True) == (vthreads.now(), thread.is_alive())
        thread.join()
        assert (60, False) == (vthreads.now(), thread.is_alive())
        assert thread not in threading.enumerate()
        thread.join()

    threaded(root)


def test_misuse_is_the_error_that_threading_makes_of_it(threaded):
    def root():
        thread = threading.Thread(target=lambda: None)
        with pytest.raises(RuntimeError, match="before it is started"):
            thread.join()
        thread.start()
        with pytest.raises(RuntimeError, match="once"):
            thread.start()
        errors = []

        def joins_itself():
            try:
                threading.current_thread().join()
            except RuntimeError as error:
                errors.append(str(error))

        threading.Thread(target=joins_itself).start()
        assert ["cannot join current thread"] == errors
        with pytest.raises(TypeError):
            _thread.start_new_thread(None, ())
        with pytest.raises(TypeError):
            _thread.start_new_thread(sleep, [1])

    threaded(root)


def test_its_failure_goes_to_the_excepthook_once(threaded, monkeypatch):
    told = []
    monkeypatch.setattr(threading, "excepthook", lambda args: told.append((args.exc_type, args.thread.name)))

    def root():
        threading.Thread(target=int, args=("x",), name="fails").start()
        threading.Thread(target=sys.exit, name="exits").start()

    threaded(root)
    # As on plain Python, it is the hook's business to ignore an exit.
    assert [(ValueError, "fails"), (SystemExit, "exits")] == told


def test_it_begins_with_an_empty_context_and_data_of_its_own(threaded):
    variable = contextvars.ContextVar("variable", default="default")
    seen = []

    def root():
        data = threading.local()
        data.here, _ = "root", variable.set("root")
        threading.Thread(target=lambda: seen.append((variable.get(), hasattr(data, "here")))).start()
        assert "root" == data.here

    threaded(root)
    # Python 3.14 has a flag that lets threads inherit the context, off in the ordinary build.
    assert [("default", False)] == seen


def test_a_thread_made_before_the_patch_is_virtual_when_it_is_started_after(virtual):
    seen = []
    thread = threading.Thread(target=lambda: seen.append(os_ident()))
    vthreads.patch(threads=True)
    try:
        virtual(lambda: (thread.start(), thread.join()), patch=True)
    finally:
        vthreads._patching.unpatch_threads()
    assert [os_ident()] == seen


def test_one_that_threading_did_not_start_is_known_to_it_until_it_ends(threaded):
    def root():
        before = threading.enumerate()
        seen = []
        for _ in range(3):
            _thread.start_new_thread(lambda: (seen.append(threading.current_thread()), sleep(1)), ())
        assert 3 == len({thread.name for thread in seen})
        assert {*before, *seen} == {*threading.enumerate()}
        seen.clear()
        sleep(2)
        assert before == threading.enumerate()

    threaded(root)


def test_a_program_ends_the_threads_of_a_library(threaded):
    ended = []

    def wait(name):
        try:
            sleep(3600)
        finally:
            ended.append(name)

    def root():
        assert [] == vthreads.standard_threads()
        threads = [
            threading.Thread(target=wait, args=[name], name=f"library-{name}", daemon=daemon)
            for name, daemon in (("a", False), ("b", True), ("c", False))
        ]
        for thread in threads:
            thread.start()
        assert ["library-a", "library-b", "library-c"] == [each.name for each in vthreads.standard_threads()]
        for thread in vthreads.standard_threads():
            if thread.name != "library-c":
                thread.cancel()
        threads[0].join()
        threads[1].join()
        assert ["library-c"] == [each.name for each in vthreads.standard_threads()]
        vthreads.standard_threads()[0].cancel()
        return vthreads.now()

    start = threaded(vthreads.now)
    assert start == threaded(root)
    assert ["a", "b", "c"] == ended


def test_without_the_argument_a_thread_stays_an_os_thread():
    seen = []

    def root():
        thread = threading.Thread(target=lambda: seen.append(os_ident()))
        thread.start()
        thread.join()

    vthreads.run(root)
    assert [os_ident()] != seen


def test_what_an_os_thread_starts_that_is_no_carrier_is_an_os_thread():
    _, out, err = run_python(
        """
        import threading, _thread
        import vthreads
        vthreads.patch()
        from vthreads._core.originals import get_ident
        idents = []

        def outer():
            inner = threading.Thread(target=lambda: idents.append(get_ident()))
            inner.start()
            inner.join()
            idents.append(get_ident())

        os_thread = threading.Thread(target=outer)
        gate = _thread.allocate_lock()
        gate.acquire()
        _thread.start_new_thread(lambda: (gate.acquire(), outer(), gate.release()), ())
        vthreads.patch(threads=True)
        gate.release()
        while len(idents) < 2:
            vthreads.sleep(0.01)
        print(len({*idents, get_ident()}))
        """
    )
    assert ("3\n", "") == (out, err)


# --- traced

TRACING = pytest.mark.parametrize(
    ("set_for_threads", "set_here", "get_here"),
    [
        (threading.settrace, sys.settrace, sys.gettrace),
        (threading.setprofile, sys.setprofile, sys.getprofile),
    ],
    ids=["settrace", "setprofile"],
)


class Tracer:
    """A trace and profile function that notes which of the functions `in_…` were called."""

    def __init__(self):
        self.called = []
        # The lines of those, from the line of their `def` on.
        self.lines = []

    def __call__(self, frame, event, _):
        code = frame.f_code
        if not code.co_name.startswith("in_"):
            return None
        if event == "call":
            self.called.append(code.co_name)
        elif event == "line":
            self.lines.append(frame.f_lineno - code.co_firstlineno)
        return self


def in_first():
    pass


def in_second():
    pass


def in_thread():
    in_first()
    sleep(60)
    in_second()


def in_others():
    pass


def start_traced(set_for_threads, tracer, target):
    set_for_threads(tracer)
    try:
        thread = threading.Thread(target=target)
        thread.start()
    finally:
        set_for_threads(None)
    return thread


@TRACING
def test_a_traced_thread_is_traced_alone_and_to_its_end(threaded, set_for_threads, set_here, get_here):
    tracer, here = Tracer(), get_here()

    def root():
        thread = start_traced(set_for_threads, tracer, in_thread)
        in_others()
        assert here is get_here()
        vthreads.spawn(in_others)
        threading.Thread(target=in_others).start()
        sleep(1)
        in_others()
        thread.join()
        in_others()
        assert here is get_here()

    threaded(root)
    assert ["in_thread", "in_first", "in_second"] == tracer.called
    assert ([1, 1, 2, 3, 1] if set_here is sys.settrace else []) == tracer.lines


@TRACING
def test_traced_threads_and_the_others_have_each_their_own_functions(threaded, set_for_threads, set_here, get_here):
    here = get_here()

    def root():
        of_root, of_threads = Tracer(), [Tracer(), Tracer()]
        set_here(of_root)
        try:
            threads = [start_traced(set_for_threads, tracer, in_thread) for tracer in of_threads]
            in_others()
            sleep(1)
            in_others()
            assert of_root is get_here()
        finally:
            # The state that a thread finds at its start must differ from the one that it leaves.
            set_here(None)
        for thread in threads:
            thread.join()
        assert get_here() is None
        assert ["in_others", "in_others"] == of_root.called
        assert [["in_thread", "in_first", "in_second"]] * 2 == [tracer.called for tracer in of_threads]

    try:
        threaded(root)
    finally:
        set_here(here)


@TRACING
def test_what_is_set_for_the_os_thread_sees_all_threads_that_have_nothing_of_their_own(
    threaded, set_for_threads, set_here, get_here
):
    tracer, here = Tracer(), get_here()

    def root():
        set_here(tracer)
        try:
            thread = threading.Thread(target=in_thread)
            thread.start()
            vthreads.spawn(in_others)
            thread.join()
        finally:
            set_here(here)

    threaded(root)
    assert ["in_thread", "in_first", "in_others", "in_second"] == tracer.called


@TRACING
def test_event_loops_come_and_go_while_a_thread_is_traced(threaded, set_for_threads, set_here, get_here):
    tracer, loops = Tracer(), []

    async def in_loop():
        loops.append(asyncio.get_running_loop())
        # asyncio has a separate clock.
        sleep(1)
        assert loops[-1] is asyncio.get_running_loop()

    def root():
        thread = start_traced(set_for_threads, tracer, in_thread)
        for _ in range(2):
            asyncio.run(in_loop())
        thread.join()
        asyncio.run(in_loop())

    threaded(root)
    assert 3 == len(loops)
    assert ["in_thread", "in_first", "in_second"] == tracer.called


# --- cancelling


def test_a_join_can_be_cancelled_and_the_thread_goes_on(threaded):
    def root():
        thread = threading.Thread(target=sleep, args=(60,))
        thread.start()
        with move_on_after(1) as scope:
            thread.join()
        assert scope.cancelled_caught
        assert thread.is_alive()
        thread.join()

    threaded(root)


def test_in_a_cancelled_scope_a_thread_is_started_all_the_same(threaded):
    ran = []

    def root():
        with ThreadGroup() as group:
            group.cancel()
            threading.Thread(target=ran.append, args=(1,)).start()

    threaded(root)
    assert [1] == ran


def test_a_thread_belongs_to_no_group(threaded):
    def root():
        with ThreadGroup() as group:
            thread = threading.Thread(target=sleep, args=(60,))
            thread.start()
            assert 0 == len(group)
        assert 0 == vthreads.now()
        thread.join()

    threaded(root)


# --- what is built on threads


def test_a_timer_follows_the_runtimes_clock(threaded):
    rung = []

    def root():
        threading.Timer(60, lambda: rung.append(vthreads.now())).start()
        called_off = threading.Timer(30, lambda: rung.append("called off"))
        called_off.start()
        sleep(1)
        called_off.cancel()

    threaded(root)
    assert [60] == rung


def test_a_pool_of_thousands_runs_them_at_once(threaded):
    def task(number):
        sleep(60)
        return number

    def root():
        with ThreadPoolExecutor(2_000) as pool:
            assert list(range(2_000)) == list(pool.map(task, range(2_000)))
        assert 60 == vthreads.now()

    threaded(root)


def test_threads_wait_for_each_other_by_locks_events_and_barriers(threaded):
    def root():
        barrier, event, results = threading.Barrier(10), threading.Event(), []

        def work(number):
            barrier.wait()
            event.wait()
            results.append(number)

        workers = [threading.Thread(target=work, args=(number,)) for number in range(10)]
        for worker in workers:
            worker.start()
        event.set()
        with fail_after(1):
            for worker in workers:
                worker.join()
        assert set(range(10)) == set(results)

    threaded(root)


# --- those that compute


def test_threads_that_wait_busily_are_preempted_if_the_patch_is_told_so():
    status, out, err = run_python(
        """
        import threading
        import vthreads

        vthreads.patch(threads=True, preempt=0.005)
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
    )
    assert (0, "done\n", "") == (status, out, err)


def test_a_daemon_that_never_waits_does_not_hold_up_the_end():
    status, out, err = run_python(
        """
        import threading
        import vthreads

        def child():
            while True:
                pass

        vthreads.patch(threads=True, preempt=0.005)
        threading.Thread(target=child, daemon=True).start()
        print("done")
        """
    )
    assert (0, "done\n", "") == (status, out, err)


# --- ends


def test_run_waits_for_threads_and_cancels_daemons(threaded, capsys):
    ends = []

    def work(name, seconds):
        try:
            sleep(seconds)
        finally:
            ends.append((name, vthreads.now()))

    def root():
        threading.Thread(target=work, args=("thread", 60)).start()
        threading.Thread(target=work, args=("daemon", 3600), daemon=True).start()

    threaded(root)
    assert [("thread", 60), ("daemon", 60)] == ends
    assert ("", "") == capsys.readouterr()


def test_a_daemon_that_does_not_end_is_let_go_of():
    _, out, err = run_python(
        """
        import threading, vthreads
        from vthreads.testing import VirtualClock

        def stubborn():
            with vthreads.shield(None):
                vthreads.sleep(3600)

        def root():
            threading.Thread(target=stubborn, daemon=True).start()

        vthreads.patch(threads=True)
        vthreads.run(root, clock=VirtualClock())
        print("over")
        """
    )
    assert ("over\n", "") == (out, err)


def test_the_interpreter_ends_after_pools_and_threads_but_not_daemons():
    status, out, err = run_python(
        """
        import sys, threading, time
        from concurrent.futures import ThreadPoolExecutor
        import vthreads
        vthreads.patch(threads=True)
        pool = ThreadPoolExecutor(20)
        results = [pool.submit(time.sleep, 0.01) for _ in range(20)]
        threading.Thread(target=time.sleep, args=(3600,), daemon=True).start()
        after = threading.Event()
        threading.Thread(target=lambda: (after.wait(), print("thread"))).start()
        vthreads.spawn(lambda: (time.sleep(0.02), print("background"), after.set()))
        import atexit
        atexit.register(lambda: print(all(result.done() for result in results)))
        print("main", len(sys._current_frames()))
        """
    )
    assert (0, "main 1\nbackground\nthread\nTrue\n", "") == (status, out, err)


def test_a_pool_with_a_worker_of_each_kind_does_not_hold_up_the_end_of_a_run():
    # The worker on the OS thread waits in C and takes items that are meant for the other one. The first pool takes long
    # to end, so that it gets the chance.
    status, out, err = run_python(
        """
        import time
        from concurrent.futures import ThreadPoolExecutor
        wide, narrow = ThreadPoolExecutor(2000), ThreadPoolExecutor(2)
        narrow.submit(int).result()
        import vthreads
        vthreads.patch(threads=True)

        def main():
            for pool, calls in (wide, 1000), (narrow, 10):
                assert [None] * calls == list(pool.map(time.sleep, [0.1] * calls))

        vthreads.run(main)
        # Workers that have ended do not count: the pools start others.
        assert [1, 1] == [pool.submit(int, "1").result() for pool in (wide, narrow)]
        print("over")
        """
    )
    assert (0, "over\n", "") == (status, out, err)


def test_a_cancelled_idle_worker_leaves_its_pool_without_a_report():
    status, out, err = run_python(
        """
        from concurrent.futures import ThreadPoolExecutor
        import vthreads
        vthreads.patch(threads=True)

        def main():
            pool = ThreadPoolExecutor(1)
            for _ in range(3):
                worker = pool.submit(vthreads.current_thread).result()
                # The worker waits for the next call.
                vthreads.sleep(0.01)
                worker.cancel()
                vthreads.sleep(0.01)
            pool.submit(int).result()
            # A worker that is cancelled in a call: the call fails, and those that wait are done.
            cancelled = pool.submit(lambda: (vthreads.current_thread().cancel(), vthreads.sleep(3600)))
            after = pool.submit(int, "1")
            assert isinstance(cancelled.exception(), vthreads.Cancelled)
            assert 1 == after.result()
            assert 2 == pool.submit(int, "2").result()
            print("over")

        vthreads.run(main)
        """
    )
    assert (0, "over\n", "") == (status, out, err)


LEFT_AT_THE_END = """
    import os, signal, sys, threading, time
    from concurrent.futures import ThreadPoolExecutor
    import vthreads
    vthreads.patch(threads=True)
    never = threading.Event()

    def wait(kind):
        try:
            never.wait()
        finally:
            print(kind, "ends")

    def interrupt():
        time.sleep(0.05)
        os.kill(os.getpid(), signal.SIGINT)
        wait("interrupter")

    def main():
        threading.Thread(target=wait, args=["thread"]).start()
        ThreadPoolExecutor(1).submit(wait, "worker")
        vthreads.spawn(wait, "background")
        if sys.argv[1] == "ctrl-c":
            vthreads.spawn(interrupt)
"""


@pytest.mark.everywhere
@pytest.mark.parametrize(
    ("end", "interrupt", "error"),
    [
        ("vthreads.run(main)", "deadlock", "DeadlockError"),
        ("vthreads.run(main)", "ctrl-c", "KeyboardInterrupt"),
        ("main()", "ctrl-c", "KeyboardInterrupt"),
    ],
)
def test_an_interrupt_of_the_last_join_ends_all_threads_that_wait_forever(tmp_path, end, interrupt, error):
    script = tmp_path / "program.py"
    script.write_text(textwrap.dedent(LEFT_AT_THE_END) + end)
    done = subprocess.run(
        [sys.executable, str(script), interrupt], check=False, capture_output=True, text=True, timeout=200
    )
    interrupter = ["interrupter ends"] if interrupt == "ctrl-c" else []
    assert ["background ends", *interrupter, "thread ends", "worker ends"] == sorted(done.stdout.splitlines())
    assert error in done.stderr


def test_run_takes_the_place_of_a_runtime_in_which_only_idle_workers_are_left():
    status, out, err = run_python(
        """
        from concurrent.futures import ThreadPoolExecutor
        import vthreads
        vthreads.patch(threads=True)
        pool = ThreadPoolExecutor(3)
        assert [0, 1, 2] == list(pool.map(abs, range(3)))
        busy = vthreads.Event()
        waiting = pool.submit(busy.wait)
        try:
            vthreads.run(int)
        except RuntimeError as error:
            assert "runs here already" in str(error)
        busy.set()
        waiting.result()
        assert [0, 1, 2] == vthreads.run(lambda: list(pool.map(abs, range(3))))
        assert 1 == pool.submit(int, "1").result()
        print("over")
        """
    )
    assert (0, "over\n", "") == (status, out, err)


WATCHES_MAIN = """
    import sys, threading, time, vthreads
    vthreads.patch(threads=True)

    def watch():
        while threading.main_thread().is_alive():
            time.sleep(0.01)
        threading.main_thread().join()
        # Both threads see the end at the same time. Print in a fixed order.
        joiner.join()
        print("watched")

    def join():
        threading.main_thread().join(60)
        print("joined", threading.main_thread().is_alive())

    joiner = threading.Thread(target=join)
    joiner.start()
    time.sleep(0.01)
    threading.Thread(target=watch).start()
    print("main", threading.main_thread().is_alive())
"""


MORE_ENDS = [("sys.exit(3)", 3), ("raise SystemError", 1)]


@pytest.mark.parametrize(
    ("end", "status"), [("", 0), *(pytest.param(*more, marks=pytest.mark.thorough) for more in MORE_ENDS)]
)
@pytest.mark.parametrize("arguments", [(), ("-m", "vthreads", "run", "--threads")])
def test_threads_that_are_left_at_exit_see_that_the_main_thread_is_over(tmp_path, arguments, end, status):
    script = tmp_path / "program.py"
    script.write_text(textwrap.dedent(WATCHES_MAIN) + end)
    done = subprocess.run(
        [sys.executable, *arguments, str(script)], check=False, capture_output=True, text=True, timeout=200
    )
    assert (status, "main True\njoined False\nwatched\n") == (done.returncode, done.stdout)
    assert ("SystemError" if status == 1 else "") == done.stderr.strip().rpartition("\n")[2]


def test_the_main_thread_of_a_fork_is_over_to_the_threads_that_are_left():
    status, out, err = run_python(
        """
        import os, threading, warnings
        import vthreads
        warnings.simplefilter("ignore")
        vthreads.patch(threads=True)

        def forks():
            pid = os.fork()
            if pid == 0:
                main = threading.current_thread()
                threading.Thread(target=lambda: (main.join(), print("joined", main.is_alive()))).start()
            else:
                print("status", os.waitpid(pid, 0)[1])

        threading.Thread(target=forks).start()
        """
    )
    assert (0, "joined False\nstatus 0\n", "") == (status, out, err)


def test_a_thread_that_waits_for_ever_is_a_deadlock_at_exit():
    status, _, err = run_python(
        """
        import threading, vthreads
        vthreads.patch(threads=True)
        threading.Thread(target=threading.Event().wait, name="waiter").start()
        """
    )
    assert 1 == status
    assert "DeadlockError" in err
    assert "'waiter' waits in" in err


def test_a_worker_of_a_pool_that_waits_for_ever_is_reported_once_and_unwound_at_exit():
    status, out, err = run_python(
        """
        import threading, vthreads
        from concurrent.futures import ThreadPoolExecutor
        vthreads.patch(threads=True)

        def work():
            try:
                started.set()
                threading.Event().wait()
            finally:
                print("unwound")

        started = threading.Event()
        ThreadPoolExecutor(2, "workers").submit(work)
        started.wait()
        """
    )
    assert (1, "unwound\n") == (status, out)
    assert 1 == err.count("DeadlockError")
    assert "'workers_0' waits in" in err


def test_an_interrupt_while_a_pool_joins_its_workers_at_exit_ends_them():
    _, out, err = run_python(
        """
        import os, signal, time, vthreads
        from concurrent.futures import ThreadPoolExecutor
        vthreads.patch(threads=True)

        def work():
            try:
                # The main thread ends at once, and then joins this worker.
                time.sleep(0.1)
                os.kill(os.getpid(), signal.SIGINT)
                time.sleep(1_000)
            finally:
                print("unwound")

        ThreadPoolExecutor(2).submit(work)
        """
    )
    assert "unwound\n" == out
    assert "KeyboardInterrupt" in err


def test_the_child_of_a_fork_in_a_thread_is_that_thread_alone():
    status, out, err = run_python(
        """
        import os, threading, time, warnings
        import vthreads
        warnings.simplefilter("ignore")
        vthreads.patch(threads=True)

        def forks():
            pid = os.fork()
            if pid == 0:
                assert threading.current_thread() is threading.main_thread()
                assert [threading.current_thread()] == threading.enumerate(), threading.enumerate()
                thread = threading.Thread(target=time.sleep, args=(0.01,))
                thread.start()
                thread.join()
                print("child", flush=True)
            else:
                print("status", os.waitpid(pid, 0)[1])

        other = threading.Thread(target=time.sleep, args=(0.2,))
        other.start()
        thread = threading.Thread(target=forks)
        thread.start()
        thread.join()
        """
    )
    assert (0, "child\nstatus 0\n", "") == (status, out, err)


SERVER = """
    import sys, threading, urllib.request
    from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
    from concurrent.futures import ThreadPoolExecutor

    together = threading.Barrier(100)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            together.wait()
            self.send_response(200)
            self.end_headers()
            self.wfile.write(threading.current_thread().name.encode())

        def log_message(self, *args):
            pass

    class Server(ThreadingHTTPServer):
        request_queue_size = 128

    server = Server(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever).start()
    url = f"http://127.0.0.1:{server.server_port}/"

    def get(_):
        with urllib.request.urlopen(url) as answer:
            return answer.read()

    with ThreadPoolExecutor(100) as pool:
        answers = list(pool.map(get, range(100)))
    server.shutdown()
    server.server_close()
    print(len(set(answers)), len(sys._current_frames()))
"""


def test_an_unmodified_server_and_its_clients_share_one_os_thread(tmp_path):
    script = tmp_path / "server.py"
    script.write_text(textwrap.dedent(SERVER))
    done = subprocess.run(
        [sys.executable, "-m", "vthreads", "run", "--threads", str(script)],
        check=False, capture_output=True, text=True, timeout=200,
    )  # fmt: skip
    # Names are looked up on an OS thread of the runtime's own.
    assert (0, "") == (done.returncode, done.stderr)
    assert "100" == done.stdout.split()[0]
    assert int(done.stdout.split()[1]) <= 2


def test_ctrl_c_ends_a_program_that_runs_with_threads(tmp_path):
    script = tmp_path / "program.py"
    script.write_text(
        "import os, signal, vthreads\nvthreads.spawn(vthreads.sleep, 3600)\nos.kill(os.getpid(), signal.SIGINT)\n"
    )
    done = subprocess.run(
        [sys.executable, "-m", "vthreads", "run", "--threads", str(script)],
        check=False, capture_output=True, text=True, timeout=200,
    )  # fmt: skip
    assert -signal.SIGINT == done.returncode
    assert "KeyboardInterrupt" in done.stderr
