"""`run(poller="uvloop")` and `run(poller="asyncio")`: the runtime makes the loop and lives in it."""

import asyncio
import socket
import subprocess
import sys

import pytest

import vthreads
from vthreads import Event, Queue, ThreadGroup, aio
from vthreads.testing import SeededOrder, VirtualClock


@pytest.fixture(params=["uvloop", "asyncio"])
def poller(request):
    return request.param


async def running_loop():
    return asyncio.get_running_loop()


def test_await_runs_on_the_loop_of_the_runtime(poller):
    def root():
        loop = aio.run(running_loop())
        assert loop is aio.run(running_loop())
        assert type(loop).__module__.startswith(poller)
        return loop

    assert vthreads.run(root, poller=poller).is_closed()


def test_the_function_and_its_threads_have_no_running_loop(poller):
    def looks():
        aio.run(asyncio.sleep(0))
        with pytest.raises(RuntimeError):
            asyncio.get_running_loop()
        return asyncio.run(running_loop())

    def root():
        loop = aio.run(running_loop())
        assert loop is not looks()
        with ThreadGroup() as group:
            futures = [group.spawn(looks) for _ in range(3)]
        assert loop not in [future.result() for future in futures]

    vthreads.run(root, poller=poller)


def test_a_coroutine_of_a_loop_inside_is_told_to_use_await(poller):
    async def calls():
        coroutine = running_loop()
        try:
            with pytest.raises(RuntimeError, match="use await there"):
                aio.run(coroutine)
        finally:
            coroutine.close()

    vthreads.run(lambda: asyncio.run(calls()), poller=poller)


def test_a_virtual_thread_calls_coroutines_without_the_patch(poller, run_script):
    script = """
    import asyncio, sys
    import vthreads
    from vthreads import aio

    async def items():
        yield "item"

    def root():
        print(aio.run(asyncio.sleep(0, "run")), *aio.iterate(items()))

    vthreads.run(root, poller=sys.argv[1], patch=False)
    """
    assert "run item\n" == run_script(script, poller)


def test_sockets_timers_and_queues_work(poller):
    def serves(sock):
        while data := sock.recv(10):
            sock.sendall(data)

    def root():
        a, b = socket.socketpair()
        queue = Queue()
        with a, b, ThreadGroup() as group:
            group.spawn(serves, a)
            group.spawn(lambda: (vthreads.sleep(0.01), queue.put("late")))
            for _ in range(200):
                b.sendall(b"x")
                assert b"x" == b.recv(10)
            with pytest.raises(TimeoutError), vthreads.fail_after(0.001):
                b.recv(10)
            assert "late" == queue.get()
            b.shutdown(socket.SHUT_WR)

    vthreads.run(root, poller=poller)


def test_the_result_and_the_exception_of_the_function_come_back(poller):
    def fails():
        raise LookupError

    assert 3 == vthreads.run(int, "3", poller=poller)
    with pytest.raises(LookupError):
        vthreads.run(fails, poller=poller)


def test_tasks_that_are_left_are_cancelled_and_awaited(poller):
    # asyncio refers weakly to its tasks: without this list a collection could end the task before.
    tasks, ended = [], []

    async def waits():
        try:
            await asyncio.get_running_loop().create_future()
        finally:
            await asyncio.sleep(0)
            ended.append(True)

    async def leaves():
        tasks.append(asyncio.create_task(waits()))
        await asyncio.sleep(0)

    vthreads.run(aio.run, leaves(), poller=poller)
    assert [True] == ended


def test_a_coroutine_that_stops_the_loop_ends_the_calls_that_wait(poller):
    ended = []

    async def stops():
        asyncio.get_running_loop().stop()
        try:
            await asyncio.get_running_loop().create_future()
        finally:
            ended.append(True)

    def root():
        with pytest.raises(RuntimeError, match="stopped"):
            aio.run(stops())
        assert 3 == aio.run(asyncio.sleep(0, 3))
        assert [True] == ended

    vthreads.run(root, poller=poller)


def test_exits_out_of_coroutines_reach_the_caller(poller):
    async def leaves():
        raise SystemExit(3)

    def root():
        with pytest.raises(SystemExit):
            aio.run(leaves())
        assert 0 == aio.run(asyncio.sleep(0, 0))

    vthreads.run(root, poller=poller)


@pytest.mark.parametrize("with_poller", [False, True])
def test_an_exit_out_of_a_task_that_was_left_does_not_end_the_loop(poller, with_poller):
    tasks = []

    async def leaves():
        raise SystemExit(3)

    async def leaves_a_task():
        tasks.append(asyncio.create_task(leaves()))
        return asyncio.get_running_loop()

    def root():
        loop = aio.run(leaves_a_task())
        while not tasks[0].done():
            aio.run(asyncio.sleep(0))
        assert 3 == tasks[0].exception().code
        assert loop is aio.run(running_loop())

    vthreads.run(root, poller=poller if with_poller else None)


@pytest.mark.parametrize("options", [{"clock": VirtualClock()}, {"order": SeededOrder(0)}])
def test_a_clock_or_an_order_is_refused(poller, options):
    with pytest.raises(ValueError, match="its own time and order"):
        vthreads.run(int, poller=poller, **options)


def test_a_missing_uvloop_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "uvloop", None)
    with pytest.raises(ValueError, match="needs the package uvloop"):
        vthreads.run(int, poller="uvloop")
    assert 0 == vthreads.run(int)


@pytest.mark.real
def test_a_deadlock_is_found_and_signal_handlers_work(poller, run_script):
    script = """
    import asyncio, os, signal, sys, time
    import vthreads
    from vthreads import DeadlockError, Event, aio

    async def signalled():
        loop = asyncio.get_running_loop()
        future = loop.create_future()
        loop.add_signal_handler(signal.SIGUSR1, future.set_result, "handled")
        loop.call_later(0.01, os.kill, os.getpid(), signal.SIGUSR1)
        try:
            return await future
        finally:
            loop.remove_signal_handler(signal.SIGUSR1)

    def root():
        aio.run(asyncio.sleep(0.01))
        try:
            Event().wait()
        except DeadlockError:
            print("a deadlock")
        print(aio.run(signalled()))

    vthreads.run(root, poller=sys.argv[1])
    """
    assert "a deadlock\nhandled\n" == run_script(script, poller)


@pytest.mark.real
def test_ctrl_c_interrupts_the_function(poller, run_script):
    script = """
    import asyncio, os, signal, sys
    import vthreads
    from vthreads import aio

    async def waits():
        asyncio.get_running_loop().call_later(0.01, os.kill, os.getpid(), signal.SIGINT)
        try:
            await asyncio.get_running_loop().create_future()
        finally:
            print("cleaned up")

    try:
        vthreads.run(aio.run, waits(), poller=sys.argv[1])
    except KeyboardInterrupt:
        print("interrupted")
    """
    assert "cleaned up\ninterrupted\n" == run_script(script, poller)


# Also with the shared loop, which has an OS thread.
beside_the_shared_loop = pytest.mark.parametrize("poller", ["", "uvloop", "asyncio"])


@pytest.mark.real
@beside_the_shared_loop
def test_a_deadlock_is_found_when_a_task_that_was_left_has_ended(poller, run_script):
    script = """
    import asyncio, sys
    import vthreads
    from vthreads import DeadlockError, Event, aio

    left = []

    async def leaves():
        left.append(asyncio.create_task(asyncio.sleep(0.01)))
        left.append(asyncio.create_task(asyncio.sleep(0.02)))

    def root():
        aio.run(leaves())
        try:
            Event().wait()
        except DeadlockError:
            print("a deadlock")

    vthreads.run(root, poller=sys.argv[1] or None)
    """
    assert "a deadlock\n" == run_script(script, poller)


@pytest.mark.real
@beside_the_shared_loop
def test_a_wait_for_a_task_that_was_left_is_no_deadlock(poller, run_script):
    script = """
    import asyncio, sys
    import vthreads
    from vthreads import Event, aio

    left = []

    async def sets():
        await asyncio.sleep(0.05)
        event.set()

    async def leaves():
        left.append(asyncio.create_task(sets()))

    def root():
        aio.run(leaves())
        print(event.wait())

    event = Event()
    vthreads.run(root, poller=sys.argv[1] or None)
    """
    assert "True\n" == run_script(script, poller)


@pytest.mark.real
@beside_the_shared_loop
def test_ctrl_c_gives_up_the_tasks_that_are_left_at_the_end(poller, run_script):
    script = """
    import asyncio, os, signal, sys
    import vthreads
    from vthreads import aio

    left = []

    async def ignores_cancellation():
        try:
            await asyncio.get_running_loop().create_future()
        except asyncio.CancelledError:
            os.kill(os.getpid(), signal.SIGINT)
            await asyncio.get_running_loop().create_future()

    async def leaves():
        left.append(asyncio.create_task(ignores_cancellation()))
        await asyncio.sleep(0)

    try:
        vthreads.run(aio.run, leaves(), poller=sys.argv[1] or None)
    except KeyboardInterrupt:
        print("interrupted")
    left[0]._log_destroy_pending = False
    print(vthreads.run(int))
    os._exit(sys.stdout.flush() or 0)
    """
    assert "interrupted\n0\n" == run_script(script, poller)


def test_import_of_the_package_does_not_import_asyncio():
    done = subprocess.run(
        [sys.executable, "-c", "import vthreads, sys; print('asyncio' in sys.modules)"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert "False\n" == done.stdout


def test_an_event_of_another_carrier_is_seen(poller):
    def root():
        event = Event()
        with ThreadGroup() as group:
            group.spawn(event.wait)
            vthreads.offload(event.set)

    vthreads.run(root, poller=poller)
