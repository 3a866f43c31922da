"""The stall monitor beside event loops: it names the coroutine that blocks its loop."""

import pytest

import vthreads
from vthreads import Event, ThreadGroup, aio, checkpoint, debug, sleep


class Watch:
    """A monitor whose clock the test sets, and its reports."""

    def __init__(self):
        self.time = 0.0
        self.stalls = []
        self.monitor = debug.StallMonitor(1.0, self.stalls.append, lambda: self.time)

    def look_after(self, seconds):
        self.time += seconds
        self.monitor.look()


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
