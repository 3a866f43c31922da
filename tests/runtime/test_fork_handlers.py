"""Handlers of `os.register_at_fork` may wait and spawn: in the child, no thread of the parent runs or gets anything."""

from __future__ import annotations

import pytest

ACTIONS = {
    "sleep(0)": "time.sleep(0)",
    "sleep": "time.sleep(0.01)",
    "checkpoint": "vthreads.checkpoint()",
    "wait": "threading.Event().wait(0.01)",
    "lock": "lock.acquire(timeout=0.01)",
    "pipe": "os.write(full_pipe[1], b'x'); os.read(full_pipe[0], 1)",
    "poll": "select.select([empty_pipe[0]], [], [], 0.01)",
    "OS thread": "os_thread = threading.Thread(target=int); os_thread.start(); os_thread.join()",
}

SCRIPT = """
import os, select, sys, threading, time

where, order, action = sys.argv[1:]
parent, full_pipe, empty_pipe = os.getpid(), os.pipe(), os.pipe()
done = False

def register():
    # Two handlers: the second one meets what the first one has left.
    for _ in range(2):
        os.register_at_fork(**{where: lambda: exec(action, globals())})

if order == "early":
    register()

import vthreads

def goes_on():
    while not done:
        if os.getpid() != parent:
            os._exit(3)
        vthreads.sleep(0)

def child():
    # The runtime of the child is whole: it switches, waits and spawns.
    vthreads.sleep(0.01)
    os.write(full_pipe[1], b"x")
    with vthreads.ThreadGroup() as group:
        read = group.spawn(os.read, full_pipe[0], 1)
    return 0 if read.result() == b"x" else 4

def root():
    global lock, done
    lock = threading.Lock()
    lock.acquire()
    with vthreads.ThreadGroup() as group:
        group.spawn(goes_on)
        if order == "late":
            register()
        pid = os.fork()
        if pid == 0:
            os._exit(child())
        print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
        done = True

vthreads.run(root)
"""


@pytest.mark.thorough
@pytest.mark.parametrize("order", ["early", "late"])
@pytest.mark.parametrize("where", ["before", "after_in_child", "after_in_parent"])
@pytest.mark.parametrize("action", ACTIONS)
def test_a_handler_that_waits_runs_no_thread_of_the_parent_in_the_child(run_script, where, order, action):
    assert "0\n" == run_script(SCRIPT, where, order, ACTIONS[action])


def test_a_handler_that_waits_for_a_lock_of_the_parent_gets_a_deadlock_error(run_script):
    printed = run_script(
        """
        import os, sys, threading

        def handler():
            if os.getpid() != parent:
                try:
                    lock.acquire()
                except vthreads.DeadlockError:
                    print("deadlock", flush=True)

        parent = os.getpid()
        os.register_at_fork(after_in_child=handler)
        import vthreads

        def hold():
            with lock:
                vthreads.sleep(1)

        def root():
            global lock
            lock = threading.Lock()
            with vthreads.ThreadGroup() as group:
                group.spawn(hold)
                pid = os.fork()
                if pid == 0:
                    os._exit(0)
                print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
                group.cancel()

        vthreads.run(root)
        """
    )
    assert "deadlock\n0\n" == printed


# Calls of a handler in the child. None of them switches before it changes a structure of the runtime.
FIRST_CALLS = {
    "spawn": "vthreads.spawn(lambda: (vthreads.sleep(0.01), ran.append(1)))",
    "group": "with vthreads.ThreadGroup() as group: group.spawn(ran.append, 1)",
    "limited group": "with vthreads.ThreadGroup(max_concurrency=1) as group: group.spawn(ran.append, 1)",
    "group of the parent": "vthreads.ThreadGroup.current.spawn(ran.append, 1)",
    "thread": "threading.Thread(target=ran.append, args=(1,)).start()",
    "release": "lock.release(); lock.acquire(); ran.append(1); lock.release()",
    "put": "items.put(1); ran.append(items.get(timeout=10))",
}


@pytest.mark.sampled(1)
@pytest.mark.everywhere
@pytest.mark.parametrize("call", FIRST_CALLS)
def test_a_handler_of_before_the_runtime_spawns_and_unparks_in_the_runtime_of_the_child(run_script, call):
    printed = run_script(
        """
        import os, queue, sys, threading

        def handler():
            exec(sys.argv[1], globals())

        os.register_at_fork(after_in_child=handler)
        import vthreads

        ran = []

        def child():
            vthreads.sleep(0.05)
            return 7 if ran == [1] else 8

        def root():
            global lock, items
            lock, items = threading.Lock(), queue.Queue()
            lock.acquire()
            with vthreads.ThreadGroup() as group:
                # They are parked in the parent. The child must not give them the lock or the item.
                group.spawn(lock.acquire)
                getter = group.spawn(items.get)
                pid = os.fork()
                if pid == 0:
                    os._exit(child())
                print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
                lock.release()
                items.put(5)
            print(ran, getter.result())

        vthreads.patch(threads=True)
        vthreads.run(root)
        """,
        FIRST_CALLS[call],
    )
    assert "7\n[] 5\n" == printed


@pytest.mark.parametrize("call", ["vthreads.spawn(ran.append, 1)", "vthreads.run(ran.append, 1)"])
def test_a_handler_starts_the_runtime_of_a_child_that_was_forked_by_an_os_thread(run_script, call):
    printed = run_script(
        """
        import os, sys, threading

        def handler():
            exec(sys.argv[1], globals())

        os.register_at_fork(after_in_child=handler)
        import vthreads

        vthreads.patch()
        ran, runs, may_end = [], threading.Event(), threading.Event()

        def carrier():
            vthreads.run(lambda: (runs.set(), may_end.wait()))

        thread = threading.Thread(target=carrier)
        thread.start()
        runs.wait()
        pid = os.fork()
        if pid == 0:
            vthreads.spawn(lambda: (vthreads.sleep(0.01), ran.append(2))).result()
            os._exit(7 if ran == [1, 2] else 8)
        print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), ran)
        may_end.set()
        thread.join()
        """,
        call,
    )
    assert "7 []\n" == printed


POSTPONED = """
import os, signal, types, vthreads

seen = []
signal.signal(signal.SIGUSR1, lambda *_: seen.append(os.getpid()))

def raise_and_fork():
    signal.raise_signal(signal.SIGUSR1)
    assert not seen
    return os.fork()

# A signal that interrupts code of the runtime is postponed to the next switch.
names = {**globals(), "__name__": "vthreads.some_module"}
raise_and_fork = types.FunctionType(raise_and_fork.__code__, names)

def root():
    child = raise_and_fork()
    vthreads.sleep(0)
    if child == 0:
        inherited = list(seen)
        signal.raise_signal(signal.SIGUSR1)
        vthreads.sleep(0)
        os._exit(7 if (inherited, seen) == ([], [os.getpid()]) else 1)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), seen == [os.getpid()])

vthreads.run(root)
"""


def test_the_handler_of_a_signal_that_is_postponed_at_a_fork_runs_in_the_parent_alone(run_script):
    assert "7 True\n" == run_script(POSTPONED)


def test_a_handler_in_the_child_of_a_virtual_thread_may_set_signals(run_script):
    """The thread that forked is the main thread of the child. `asyncio` of Python 3.12 and later does so."""
    printed = run_script(
        """
        import os, signal

        def handler():
            before = signal.signal(signal.SIGUSR1, lambda *_: print("signal", flush=True))
            print(signal.set_wakeup_fd(-1), before.name, flush=True)

        os.register_at_fork(after_in_child=handler)
        import vthreads

        def forks():
            pid = os.fork()
            if pid == 0:
                os.kill(os.getpid(), signal.SIGUSR1)
                vthreads.sleep(0.01)
                os._exit(0)
            return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])

        def root():
            print(vthreads.spawn(forks).result())

        vthreads.run(root)
        """
    )
    assert "-1 SIG_DFL\nsignal\n0\n" == printed
