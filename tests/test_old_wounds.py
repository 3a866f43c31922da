"""Known faults of other libraries with cooperative threads: one test for each, as users reported it."""

import contextvars
import os
import signal
import subprocess
import sys
import textwrap
import threading

import pytest

import vthreads
from vthreads import ThreadGroup, sleep


def outcome(program, tmp_path, **modules):
    """Run `program` beside `modules` in a separate process: exit status, standard output and standard error."""
    for name, source in modules.items():
        (tmp_path / f"{name}.py").write_text(textwrap.dedent(source))
    (tmp_path / "program.py").write_text(textwrap.dedent(program))
    done = subprocess.run(
        [sys.executable, str(tmp_path / "program.py")], check=False, capture_output=True, text=True, timeout=60
    )
    return done.returncode, done.stdout, done.stderr


def test_a_module_that_took_sleep_before_the_patch_parks(tmp_path):
    status, out, err = outcome(
        """
        import naps
        import vthreads
        from vthreads.testing import VirtualClock

        def root():
            with vthreads.ThreadGroup() as group:
                for _ in range(3):
                    group.spawn(naps.nap)
                    group.spawn(naps.Napper().nap)
                    group.spawn(naps.nap_by_default)
            print(vthreads.now())

        vthreads.run(root, clock=VirtualClock())
        """,
        tmp_path,
        naps="""
        from time import sleep

        class Napper:
            _sleep = sleep

            def nap(self):
                self._sleep(60)

        def nap():
            sleep(60)

        def nap_by_default(sleep=sleep):
            sleep(60)
        """,
    )
    assert (0, "60.0\n", "") == (status, out, err)


SITE = """
    import http.server, threading

    class Site(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            together.wait(20)
            self.send_response(200)
            self.send_header("Content-Length", "2")
            self.end_headers()
            self.wfile.write(b"ok")

        def log_message(self, *arguments):
            pass

    class Server(http.server.ThreadingHTTPServer):
        request_queue_size = 64

    together = threading.Barrier(20)
    server = Server(("127.0.0.1", 0), Site)
    threading.Thread(target=server.serve_forever, args=(0.05,)).start()
    url = f"http://127.0.0.1:{server.server_port}/"
"""


@pytest.mark.parametrize(
    "imports", ["import requests, ssl\nimport vthreads", "import vthreads\nvthreads.patch()\nimport ssl, requests"]
)
def test_the_order_of_imports_with_requests_and_ssl_does_not_matter(imports, tmp_path):
    program = f"""
{imports}
import site_of_20
ssl.create_default_context()
with vthreads.ThreadGroup() as group:
    answers = [group.spawn(requests.get, site_of_20.url) for _ in range(20)]
print({{answer.result().text for answer in answers}})
site_of_20.server.shutdown()
site_of_20.server.server_close()
"""
    assert (0, "{'ok'}\n", "") == outcome(program, tmp_path, site_of_20=SITE)


def test_two_virtual_threads_each_run_asyncio(tmp_path):
    program = """
    import asyncio
    import vthreads

    async def main(number):
        await asyncio.sleep(0.01)
        return asyncio.get_running_loop()

    with vthreads.ThreadGroup() as group:
        futures = [group.spawn(asyncio.run, main(number)) for number in range(2)]
    print(len({future.result() for future in futures}))
    """
    assert (0, "2\n", "") == outcome(program, tmp_path)


def test_the_context_of_the_spawner_is_there():
    request = contextvars.ContextVar("request")

    def root():
        answers = []
        for number in range(3):
            request.set(number)
            answers.append(vthreads.spawn(lambda: (sleep(0), request.get())[1]))
        return [answer.result() for answer in answers]

    assert [0, 1, 2] == vthreads.run(root)


def test_ctrl_c_comes_out_of_the_main_program_whichever_thread_runs(tmp_path):
    program = """
    import os, signal
    import vthreads

    def innocent():
        while True:
            vthreads.checkpoint()

    def presses():
        os.kill(os.getpid(), signal.SIGINT)
        while True:
            vthreads.checkpoint()

    try:
        with vthreads.ThreadGroup() as group:
            futures = [group.spawn(innocent), group.spawn(presses)]
    except KeyboardInterrupt:
        print("in the main program", [future.cancelled() for future in futures])
    """
    assert (0, "in the main program [True, True]\n", "") == outcome(program, tmp_path)


def test_a_lock_is_shared_with_an_os_thread():
    lock, counts = threading.Lock(), {"os": 0, "virtual": 0}
    total = 0

    def count(kind):
        nonlocal total
        for _ in range(200):
            with lock:
                before = total
                sleep(0)
                total = before + 1
                counts[kind] += 1

    def root():
        os_thread = threading.Thread(target=count, args=("os",))
        os_thread.start()
        with ThreadGroup() as group:
            for _ in range(5):
                group.spawn(count, "virtual")
        os_thread.join()

    vthreads.run(root)
    assert {"os": 200, "virtual": 1_000} == counts
    assert 1_200 == total


def test_a_pool_that_nobody_shut_down_lets_the_interpreter_exit(tmp_path):
    program = """
    import time
    from concurrent.futures import ThreadPoolExecutor
    import vthreads

    pool = ThreadPoolExecutor(4)

    def task(number):
        time.sleep(0.01)
        return number

    with vthreads.ThreadGroup() as group:
        futures = [group.spawn(pool.submit(task, number).result) for number in range(20)]
    print(sum(future.result() for future in futures))
    vthreads.spawn(lambda: print(pool.submit(task, 1).result()))
    """
    assert (0, "190\n1\n", "") == outcome(program, tmp_path)


def test_a_fork_in_a_running_program_has_one_thread_and_ends(tmp_path):
    program = """
    import os, time, warnings
    import vthreads
    warnings.simplefilter("ignore")

    def other():
        try:
            time.sleep(3600)
        finally:
            print("cleaned up in", os.getpid() == parent, flush=True)

    parent = os.getpid()
    with vthreads.ThreadGroup() as group:
        group.spawn(other)
        pid = os.fork()
        if pid == 0:
            with vthreads.ThreadGroup() as in_child:
                in_child.spawn(time.sleep, 0.01)
            print("child", len(group), flush=True)
        else:
            print("status", os.waitpid(pid, 0)[1], flush=True)
            group.cancel()
    """
    assert (0, "child 0\nstatus 0\ncleaned up in True\n", "") == outcome(program, tmp_path)


def test_a_connection_that_a_timeout_hits_between_check_out_and_return_is_not_lost():
    import queue
    import random

    class Pool:
        """As they are written everywhere: a queue of connections, and a count of those that were made."""

        def __init__(self, size):
            self.connections = queue.LifoQueue(size)
            for number in range(size):
                self.connections.put(number)

        def run(self, seconds):
            connection = self.connections.get(timeout=60)
            try:
                sleep(seconds)
            finally:
                self.connections.put(connection, block=False)

    pool, dice = Pool(5), random.Random(7)

    def client():
        for _ in range(20):
            with vthreads.move_on_after(dice.random() * 0.01):
                pool.run(dice.random() * 0.01)

    def root():
        with ThreadGroup() as group:
            for _ in range(50):
                group.spawn(client)

    vthreads.run(root, clock=vthreads.testing.VirtualClock())
    assert {0, 1, 2, 3, 4} == {pool.connections.get_nowait() for _ in range(5)}


def test_the_worker_of_a_telemetry_library_and_its_lock_are_shared(tmp_path):
    """Such a library starts an OS thread at import, which exports in the background what others record."""
    program = """
    import telemetry
    import vthreads

    def handles(request):
        telemetry.record(request)
        vthreads.sleep(0.001)
        telemetry.record(request)

    with vthreads.ThreadGroup() as group:
        for request in range(200):
            group.spawn(handles, request)
    telemetry.flush()
    print(len(telemetry.exported), telemetry.worker.is_alive(), len(telemetry.exporting_threads))
    """
    library = """
    import threading, time

    condition, recorded, exported, exporting_threads = threading.Condition(threading.RLock()), [], [], set()

    def record(span):
        with condition:
            recorded.append(span)
            condition.notify()

    def export():
        while True:
            with condition:
                while not recorded:
                    condition.wait()
                batch, recorded[:] = list(recorded), []
                time.sleep(0.0001)
                exported.extend(batch)
                exporting_threads.add(threading.get_ident())
                condition.notify_all()

    def flush():
        with condition:
            while recorded:
                condition.wait()

    worker = threading.Thread(target=export, daemon=True)
    worker.start()
    """
    assert (0, "400 True 1\n", "") == outcome(program, tmp_path, telemetry=library)


def test_a_closed_descriptor_is_told_to_the_other_end_at_once_and_its_number_is_used_again():
    def root():
        numbers = set()
        for _ in range(50):
            reading, writing = os.pipe()
            numbers |= {reading, writing}
            with ThreadGroup() as group:
                reader = group.spawn(os.read, reading, 1)
                os.close(writing)
            assert b"" == reader.result()
            os.close(reading)
        return numbers

    assert 2 == len(vthreads.run(root))


def test_an_alarm_interrupts_a_virtual_thread_that_waits():
    """The handler runs, and the waiting goes on."""
    rung = []
    before = signal.signal(signal.SIGALRM, lambda *_: rung.append(True))
    try:

        def root():
            signal.setitimer(signal.ITIMER_REAL, 0.01)
            while not rung:
                sleep(0.005)

        vthreads.run(root)
    finally:
        signal.signal(signal.SIGALRM, before)
    assert [True] == rung


def test_a_fifo_that_nobody_writes_to_stalls_only_who_reads_it(tmp_path):
    os.mkfifo(tmp_path / "fifo")
    status, out, err = outcome(
        """
        import vthreads

        def read():
            with open("fifo") as fifo:
                return fifo.readline()

        def root():
            with vthreads.ThreadGroup() as group:
                opening = group.spawn(read)
                for _ in range(3):
                    vthreads.sleep(0.001)
                    print("tick")
                group.cancel()
            with vthreads.ThreadGroup() as group:
                line = group.spawn(read)
                with open("fifo", "w") as writer, vthreads.move_on_after(0.05) as reading:
                    line.thread.join()
                    raise AssertionError("nothing was written")
                assert "" == line.result()
            print(opening.cancelled(), reading.cancelled_caught)

        import os
        os.chdir(os.path.dirname(__file__))
        vthreads.run(root)
        """,
        tmp_path,
    )
    assert (0, "tick\ntick\ntick\nTrue True\n", "") == (status, out, err)
