"""The stall monitor beside event loops: it names the coroutine that blocks its loop."""

import pytest

import vthreads
from tests.stall_watch import Watch
from vthreads import Event, ThreadGroup, aio, checkpoint, sleep


@pytest.fixture
def watch():
    return Watch()


def test_a_coroutine_that_blocks_its_loop_is_named(watch, kind):
    async def waits_for_a_virtual_thread():
        begun.set()
        go_on.wait()

    def root():
        def looks():
            begun.wait()
            while not watch.stalls and watch.time < 9:
                watch.look_after(0.5)
                checkpoint()
            go_on.set()

        with ThreadGroup() as group:
            group.spawn(aio.run, waits_for_a_virtual_thread())
            group.spawn(looks)

    begun, go_on = Event(), Event()
    vthreads.run(root, poller=kind)
    [stall] = watch.stalls
    assert (True, "waits_for_a_virtual_thread", 1) == (stall.loop, stall.stack[-1].name, stall.seconds)
    assert "a coroutine or callback waits in waits_for_a_virtual_thread" in str(stall)


def test_a_coroutine_that_pins_the_carrier_is_named(watch, kind):
    async def pins_the_carrier():
        watch.look_after(0)
        watch.look_after(1)

    vthreads.run(aio.run, pins_the_carrier(), poller=kind)
    [stall] = watch.stalls
    assert "pins_the_carrier" in [place.name for place in stall.stack]
    assert not stall.loop


def test_a_loop_that_waits_or_gives_turns_is_no_stall(watch, kind):
    async def awaits():
        await aio.to_vthread(go_on.wait)

    def root():
        with ThreadGroup() as group:
            group.spawn(aio.run, awaits())
            for _ in range(9):
                watch.look_after(0.5)
                sleep(0.001)
            go_on.set()

    go_on = Event()
    vthreads.run(root, poller=kind)
    assert [] == watch.stalls


# Each deadlock is a coroutine that blocks its loop until a virtual thread ends, which waits for that loop.
BLOCKED = """
import asyncio, sys
import uvloop
import vthreads
from vthreads import DeadlockError, Queue, ThreadGroup, aio

kind, wait, where = sys.argv[1:]

async def coroutine():
    await asyncio.sleep(0)
    return "done"

def asks():
    if where == "later":
        vthreads.sleep(0)
    return aio.run(coroutine())

def leaves_a_group():
    sys.stderr = sys.stdout
    with ThreadGroup(cleanup_grace=0) as group:
        group.spawn(asks)

def gets():
    queue = Queue()
    vthreads.spawn(lambda: queue.put(asks()))
    queue.get()

def iterates():
    async def items():
        yield 1

    vthreads.spawn(lambda: list(aio.iterate(items()))).result()

waits = {
    "result": lambda: vthreads.spawn(asks).result(),
    "join": lambda: vthreads.spawn(asks).thread.join(),
    "group": leaves_a_group,
    "get": gets,
    "iterate": iterates,
}

async def blocks():
    try:
        waits[wait]()
    except* DeadlockError as raised:
        [note] = raised.exceptions[0].__notes__
        assert " runs <" in note and f" in {waits[wait].__name__}" in note, note
        print("a deadlock")
    # The loop goes on, and so do those that wait for it.
    return await asyncio.wrap_future(vthreads.spawn(asks))

def root():
    return aio.run(blocks())

if where == "poller":
    print(vthreads.run(root, poller=kind))
else:
    print((uvloop.run if kind == "uvloop" else asyncio.run)(blocks()))
"""


@pytest.mark.sampled(2)
@pytest.mark.everywhere
@pytest.mark.real
@pytest.mark.parametrize(
    ("wait", "where"),
    [
        ("result", "poller"),
        ("result", "guest"),
        ("result", "later"),
        ("join", "guest"),
        ("group", "guest"),
        ("get", "poller"),
        ("get", "guest"),
        ("iterate", "guest"),
    ],
)
def test_a_coroutine_that_waits_for_a_thread_that_waits_for_its_loop_gets_an_error(run_script, kind, wait, where):
    *reports, outcome = run_script(BLOCKED, kind, wait, where).split("a deadlock\n")
    assert "done\n" == outcome
    # The cancelled member of the group waits for its coroutine, and gives that up.
    assert (wait == "group") == ("still waits for the coroutine coroutine" in "".join(reports))


# The report of a deadlock shows the loop, whose `repr` ends the wait meanwhile.
ENDED_MEANWHILE = """
import asyncio, sys
import vthreads
from vthreads import CancelScope, DeadlockError, aio

moment, how = sys.argv[1:]

class Loop(asyncio.SelectorEventLoop):
    def __repr__(self):
        reports.append(self)
        if moment == "in the report" and blocked:
            end()
        return "a loop"

def end():
    thread, scope = blocked.pop()
    scope.cancel() if how == "cancel" else thread.interrupt()

async def coroutine():
    await asyncio.sleep(0)
    return "done"

def asks():
    return aio.run(coroutine())

async def blocks():
    with CancelScope() as scope:
        blocked.append((vthreads.current_thread(), scope))
        try:
            if moment == "before the report":
                vthreads.spawn(end)
            vthreads.spawn(asks).result()
        except (vthreads.Interrupted, DeadlockError) as error:
            print(type(error).__name__)
        if moment == "after the report":
            end()
        try:
            vthreads.checkpoint()
        except vthreads.Interrupted as error:
            print(type(error).__name__)
    # The loop goes on, and nothing of the deadlock reaches another wait.
    print(scope.cancelled_caught, len(reports), await asyncio.wrap_future(vthreads.spawn(asks)))

reports, blocked, loop = [], [], Loop()
loop.run_until_complete(blocks())
loop.close()
"""


@pytest.mark.everywhere
@pytest.mark.real
@pytest.mark.parametrize(
    ("moment", "how", "expected"),
    [
        ("before the report", "cancel", "True 0 done"),
        ("before the report", "interrupt", "Interrupted False 0 done"),
        ("in the report", "cancel", "True 1 done"),
        ("in the report", "interrupt", "Interrupted False 1 done"),
        ("after the report", "cancel", "DeadlockError True 1 done"),
        ("after the report", "interrupt", "DeadlockError Interrupted False 1 done"),
    ],
)
def test_a_blocked_loop_that_is_ended_beside_the_report_of_its_deadlock_goes_on(run_script, moment, how, expected):
    assert expected.split() == run_script(ENDED_MEANWHILE, moment, how).split()
