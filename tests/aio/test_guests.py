"""Guest mode: virtual threads beside the event loop that runs on their OS thread."""

import pytest

# Each test is a script: a loop that runs before the runtime starts needs an OS thread that is not a carrier yet, and
# the runtime that it starts ends with that OS thread.
HEAD = """
import asyncio, os, socket, sys, threading, time
import uvloop
import vthreads
from vthreads import Event, Queue, ThreadGroup

run = uvloop.run if sys.argv[1] == "uvloop" else asyncio.run

def descriptors():
    return len(os.listdir("/proc/self/fd"))
"""


@pytest.fixture(params=["uvloop", "asyncio"])
def script(request, run_script):
    import textwrap

    def run(text, **environment):
        return run_script(HEAD + textwrap.dedent(text), request.param, **environment)

    return run


def test_virtual_threads_and_coroutines_run_in_turn(script):
    text = """
    def serves(a):
        while data := a.recv(10):
            a.sendall(data)

    async def ticks(done):
        count = 0
        while not done.done():
            count += 1
            await asyncio.sleep(0)
        return count

    async def main():
        loop = asyncio.get_running_loop()
        a, b = socket.socketpair()
        done = loop.create_future()

        def asks():
            for _ in range(200):
                b.sendall(b"x")
                assert b"x" == b.recv(10)
            b.close()
            done.set_result(None)

        futures = [vthreads.spawn(serves, a), vthreads.spawn(asks)]
        assert await ticks(done) > 1
        await asyncio.wrap_future(futures[0])
        a.close()
        print("done")

    run(main())
    """
    assert "done\n" == script(text)


def test_sleeps_and_deadlines_of_virtual_threads_are_kept_while_the_loop_is_idle(script):
    text = """
    def sleeps():
        for _ in range(3):
            time.sleep(0.01)
        with vthreads.move_on_after(0.01):
            Event().wait()
        return "slept"

    async def main():
        print(await asyncio.wrap_future(vthreads.spawn(sleeps)))

    run(main())
    """
    assert "slept\n" == script(text)


def test_code_of_the_loop_unparks_virtual_threads(script):
    text = """
    async def main():
        event, queue = Event(), Queue()
        waits, gets = vthreads.spawn(event.wait), vthreads.spawn(queue.get)
        await asyncio.sleep(0)
        event.set()
        assert await asyncio.wrap_future(waits)
        queue.put_nowait("item")
        print(await asyncio.wrap_future(gets))

    run(main())
    """
    assert "item\n" == script(text)


def test_other_os_threads_unpark_virtual_threads_while_the_loop_is_idle(script):
    text = """
    async def main():
        event = Event()
        waits = vthreads.spawn(event.wait)
        other = threading.Thread(target=event.set)
        asyncio.get_running_loop().call_later(0.02, other.start)
        print(await asyncio.wrap_future(waits))
        other.join()

    run(main())
    """
    assert "True\n" == script(text)


def test_a_blocking_call_of_a_coroutine_stops_the_loop_and_not_the_virtual_threads(script):
    text = """
    steps = []

    def works(event):
        for step in range(3):
            time.sleep(0.001)
            steps.append(step)
        event.set()

    async def ticks():
        while True:
            steps.append("tick")
            await asyncio.sleep(0)

    async def main():
        task = asyncio.create_task(ticks())
        await asyncio.sleep(0)
        event = Event()
        vthreads.spawn(works, event)
        steps.clear()
        event.wait()
        print(steps)
        with ThreadGroup() as group:
            future = group.spawn(time.sleep, 0.001)
        assert future.done()
        task.cancel()

    run(main())
    """
    assert "[0, 1, 2]\n" == script(text)


def test_a_loop_that_is_never_idle_gives_turns_and_busy_threads_give_them_back(script):
    text = """
    async def main():
        loop = asyncio.get_running_loop()
        ticks = steps = 0

        def busy():
            nonlocal steps
            while ticks < 50:
                steps += 1
                vthreads.checkpoint()

        future = vthreads.spawn(busy)
        while not future.done():
            ticks += 1
            await asyncio.sleep(0)
        assert steps >= 50
        print("fair")

    run(main())
    """
    assert "fair\n" == script(text)


@pytest.mark.parametrize("kind", ["SelectSelector", "PollSelector", "EpollSelector"])
def test_a_loop_with_any_selector_that_the_root_runs_drives_the_virtual_threads(run_script, kind):
    text = f"""
    import asyncio, selectors, socket
    import vthreads

    async def main():
        first, second = socket.socketpair()
        with first, second:
            first.setblocking(False)
            future = vthreads.spawn(lambda: (vthreads.sleep(0.01), second.sendall(b"x")))
            print(await asyncio.get_running_loop().sock_recv(first, 1), future.done())

    def root():
        loop = asyncio.SelectorEventLoop(selectors.{kind}())
        for _ in range(2):
            loop.run_until_complete(main())
        loop.close()

    vthreads.run(root)
    """
    assert "b'x' True\n" * 2 == run_script(text)


def test_a_round_of_many_ready_threads_is_interrupted_for_the_loop(script):
    text = """
    async def main():
        order = []
        event = Event()

        def waits(number):
            event.wait()
            order.append(number)

        futures = [vthreads.spawn(waits, number) for number in range(1000)]
        event.set()
        asyncio.get_running_loop().call_soon(order.append, "loop")
        while len(order) < 1001:
            await asyncio.sleep(0)
        print(order.index("loop") < 500)

    run(main())
    """
    assert "True\n" == script(text)


def test_a_turn_whose_poll_takes_longer_than_the_turn_still_runs_a_thread(script):
    text = """
    from vthreads._core.engine import reference

    # No poll is that fast. The engine takes longer on a loaded machine, or with very many descriptors.
    reference.SLICE = 1e-9

    async def main():
        print(await asyncio.wrap_future(vthreads.spawn(vthreads.sleep, 0.001)))

    run(main())
    """
    # The constant cannot be changed in compiled code, which repeats this method.
    assert "None\n" == script(text, VTHREADS_ENGINE="reference")


def test_a_virtual_thread_has_no_running_loop_and_may_run_one(script):
    text = """
    async def inner():
        await asyncio.sleep(0.001)
        return asyncio.get_running_loop()

    def looks(outer):
        try:
            asyncio.get_running_loop()
        except RuntimeError:
            pass
        else:
            raise AssertionError("there is a loop")
        assert asyncio.run(inner()) is not outer
        assert asyncio._get_running_loop() is None
        return "none"

    async def main():
        loop = asyncio.get_running_loop()
        future = vthreads.spawn(looks, loop)
        while not future.done():
            await asyncio.sleep(0)
            assert loop is asyncio.get_running_loop()
            assert asyncio.current_task() is not None
        print(future.result())

    run(main())
    assert asyncio._get_running_loop() is None
    """
    assert "none\n" == script(text)


def test_loops_run_one_after_the_other_and_leave_nothing(script):
    text = """
    uvloop.new_event_loop().close()
    before = descriptors()

    async def main():
        return await asyncio.wrap_future(vthreads.spawn(time.sleep, 0.001))

    def thread():
        for _ in range(3):
            run(main())
            # The runtime without the loop.
            with ThreadGroup() as group:
                group.spawn(time.sleep, 0.001)

    os_thread = threading.Thread(target=thread)
    os_thread.start()
    os_thread.join()
    assert before == descriptors()
    print(threading.enumerate() == [threading.main_thread()])
    """
    assert "True\n" == script(text)


def test_calls_that_wait_for_a_loop_fail_when_it_stops(script):
    text = """
    from vthreads import aio

    async def waits():
        try:
            await asyncio.get_running_loop().create_future()
        finally:
            print("cleaned up")

    def asks():
        try:
            aio.run(waits())
        except RuntimeError as error:
            assert "was stopped" in str(error), error
            print("failed")

    async def main():
        future = vthreads.spawn(asks)
        await asyncio.sleep(0)
        return future

    loop = (uvloop if sys.argv[1] == "uvloop" else asyncio).new_event_loop()
    future = loop.run_until_complete(main())
    future.result()
    for task in asyncio.all_tasks(loop):
        task.cancel()
    loop.run_until_complete(asyncio.sleep(0))
    loop.close()
    """
    assert "failed\ncleaned up\n" == script(text)


def test_a_call_after_the_end_of_the_loop_uses_another_one(script):
    text = """
    from vthreads import aio

    async def main():
        await aio.to_vthread(time.sleep, 0.001)

    for _ in range(2):
        run(main())
        print(aio.run(asyncio.sleep(0, "another")))
    """
    assert "another\n" * 2 == script(text)


@pytest.mark.real
def test_a_deadlock_after_the_end_of_the_loop_is_found(script):
    text = """
    from vthreads import DeadlockError, aio

    async def main():
        await aio.to_vthread(time.sleep, 0.001)

    for _ in range(2):
        run(main())
        try:
            vthreads.spawn(Event().wait).result()
        except DeadlockError:
            print("a deadlock")
    os._exit(sys.stdout.flush() or 0)
    """
    assert "a deadlock\n" * 2 == script(text)


def test_threads_that_outlive_the_loop_go_on(script):
    text = """
    begin = Event()

    async def main():
        return vthreads.spawn(lambda: (begin.wait(), time.sleep(0.001)))

    future = run(main())
    assert not future.done()
    begin.set()
    future.result()
    print("over")
    """
    assert "over\n" == script(text)


def test_asyncio_debug_mode_accepts_turns(script):
    text = """
    from vthreads import aio

    async def main():
        # The start of the runtime is slow enough for a warning.
        asyncio.get_running_loop().slow_callback_duration = 100
        event = Event()
        future = vthreads.spawn(event.wait)
        vthreads.spawn(event.set)
        await asyncio.wrap_future(future)
        print(await asyncio.wrap_future(vthreads.spawn(int)))
        print(await aio.to_vthread(lambda: (time.sleep(0.001), aio.run(asyncio.sleep(0.001, 1)))[1]))
        print(await aio.to_vthread(lambda: (time.sleep(0.001), aio.run(asyncio.sleep(0, 2)))[1]))

    run(main(), debug=True)
    """
    assert "0\n1\n2\n" == script(text)


def test_a_loop_on_a_carrier_is_left_when_it_ends(script):
    text = """
    async def main():
        done = asyncio.get_running_loop().create_future()
        loop = asyncio.get_running_loop()
        vthreads.spawn(lambda: (time.sleep(0.001), loop.call_soon_threadsafe(done.set_result, "beside")))
        return await done

    def root():
        results = [run(main()) for _ in range(2)]
        time.sleep(0.001)
        return results

    print(vthreads.run(root))
    """
    assert "['beside', 'beside']\n" == script(text)


def test_signal_handlers_of_the_loop_work(script):
    text = """
    import signal

    async def main():
        loop = asyncio.get_running_loop()
        future = loop.create_future()
        loop.add_signal_handler(signal.SIGUSR1, future.set_result, "handled")
        vthreads.spawn(lambda: (time.sleep(0.01), os.kill(os.getpid(), signal.SIGUSR1)))
        print(await future)

    run(main())
    """
    assert "handled\n" == script(text)


def test_ctrl_c_cancels_the_main_task(script):
    text = """
    import signal

    async def main():
        vthreads.spawn(lambda: (time.sleep(0.01), os.kill(os.getpid(), signal.SIGINT)))
        try:
            await asyncio.sleep(60)
        finally:
            print("cleaned up")

    try:
        run(main())
    except KeyboardInterrupt:
        print("interrupted")
    """
    assert "cleaned up\ninterrupted\n" == script(text)


def test_a_thread_that_ends_without_a_wait_needs_no_turn_of_the_loop(script):
    text = """
    from vthreads import aio
    from vthreads._event_loops.guests import guests

    async def main():
        await aio.to_vthread(int)
        guest, = guests.values()
        while guest._soon is not None:
            await asyncio.sleep(0)
        await aio.to_vthread(int)
        assert guest._soon is None
        event = Event()
        waits = vthreads.spawn(event.wait)
        assert guest._soon is not None
        while guest._soon is not None:
            await asyncio.sleep(0)
        await aio.to_vthread(event.set)
        assert guest._soon is not None
        await asyncio.wrap_future(waits)
        print("done")

    run(main())
    """
    assert "done\n" == script(text)


def test_a_thread_that_ends_may_have_moved_a_deadline_of_others(script):
    text = """
    from vthreads import CancelScope, aio

    def waits():
        with scope:
            Event().wait()

    def moves():
        scope.deadline = vthreads.now() + 0.001

    async def main():
        waiting = vthreads.spawn(waits)
        await asyncio.sleep(0.001)
        await aio.to_vthread(moves)
        await asyncio.wrap_future(waiting)
        print("done")

    scope = CancelScope()
    run(main())
    """
    assert "done\n" == script(text)


def test_a_thread_that_is_cancelled_before_its_first_run_is_not_the_cancellation_of_the_task(script):
    text = """
    from concurrent.futures import CancelledError
    from vthreads import aio

    def cancel(*event):
        # In `to_vthread`, as soon as its thread is a member, which is before the thread runs.
        if len(group):
            sys.setprofile(None)
            group.cancel()

    async def main():
        global group
        vthreads.spawn(int)
        group = ThreadGroup.current
        sys.setprofile(cancel)
        try:
            print(await aio.to_vthread(print, "it runs"))
        except CancelledError as error:
            print(str(error).partition("> ")[2])

    run(main())
    """
    # The profiler sees no calls in compiled code.
    assert "was cancelled, but not by its task\n" == script(text, VTHREADS_ENGINE="reference")


@pytest.mark.parametrize("forks", ["a thread", "a coroutine"])
def test_the_child_of_a_fork_makes_its_own_loop_and_runtime(script, forks):
    text = f"""
    import warnings
    from vthreads import aio

    # Python 3.12 and later warn of a fork beside other OS threads.
    warnings.simplefilter("ignore", DeprecationWarning)

    async def both_ways():
        return await aio.to_vthread(lambda: (time.sleep(0.01), aio.run(asyncio.sleep(0.01, "both")))[1])

    def forks():
        pid = os.fork()
        if pid:
            return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        status = 1
        try:
            spawned = vthreads.spawn(lambda: (time.sleep(0.01), "spawned")[1])
            print(spawned.result(), aio.run(asyncio.sleep(0.01, "shared")))
            print(run(both_ways()), asyncio.run(both_ways()), flush=True)
            status = 0
        finally:
            os._exit(status)

    async def main():
        other = vthreads.spawn(time.sleep, 0.02)
        await both_ways()
        assert 0 == (await aio.to_vthread(forks) if {forks!r} == "a thread" else forks())
        await aio.wrap_future(other)
        print(await both_ways())

    run(main())
    """
    assert "spawned shared\nboth both\nboth\n" == script(text)


def test_a_loop_may_end_between_two_calls_and_go_on_or_be_followed_by_another_one(script):
    text = """
    from vthreads import aio

    async def ends():
        pass

    async def waits():
        await asyncio.sleep(0)

    async def main():
        await aio.to_vthread(lambda: [aio.await_(step()) for step in (ends, waits) * 3])
        return len(asyncio.all_tasks())

    with asyncio.Runner(loop_factory=uvloop.new_event_loop if sys.argv[1] == "uvloop" else None) as runner:
        print(runner.run(main()), runner.run(main()))
    print(run(main()))
    """
    assert "1 1\n1\n" == script(text)
