"""Random programs on 4 carriers, with random placement: nothing is lost or duplicated, and no thread waits forever.

Real time and real OS threads: a failing program may pass when it is repeated. Timeouts are tiny, so that they collide
with what they end.
"""

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import vthreads
from vthreads import Channel, ChannelClosed, Empty, Full, Interrupted, Lock, Queue, RLock, Semaphore, ThreadGroup, sleep

pytestmark = pytest.mark.unpatched

ACTORS = 5
TIMEOUTS = (0, 0.0005, 0.002, 0.01)
COMMON = [("sleep", 0), ("sleep", 0.001), *((name, who) for name in ("cancel", "interrupt") for who in range(ACTORS))]


def programs(own):
    """Actors, each with its placement and its steps."""
    steps = st.lists(
        st.sampled_from([(name, timeout) for name in own for timeout in TIMEOUTS] * 2 + COMMON), max_size=6
    )
    return st.lists(st.tuples(st.sampled_from(["same", "spread"]), steps), min_size=2, max_size=ACTORS)


def run(program, do):
    """Run the actors on 4 carriers; those that are not cancelled run to their end."""
    futures = []

    def actor(number, steps):
        for name, argument in steps:
            try:
                if name == "sleep":
                    sleep(argument)
                elif name in ("cancel", "interrupt"):
                    for victim in futures[argument : argument + 1]:
                        victim.cancel() if name == "cancel" else victim.thread.interrupt()
                else:
                    do(name, argument)
            except Interrupted:
                pass

    def root():
        with vthreads.fail_after(60), ThreadGroup() as near, ThreadGroup(placement="spread") as far:
            for number, (placement, steps) in enumerate(program):
                futures.append((near if placement == "same" else far).spawn(actor, number, steps))

    vthreads.run(root, carriers=4, patch=False)


@settings(max_examples=25)
@given(maxsize=st.integers(0, 2), program=programs(["put", "get"]))
def test_queues_between_carriers_lose_and_duplicate_nothing(maxsize, program):
    queue, put_in, taken_out = Queue(maxsize), [], []

    def do(name, timeout):
        try:
            if name == "put":
                item = object()
                queue.put(item, timeout=timeout)
                put_in.append(item)
            else:
                taken_out.append(queue.get(timeout=timeout))
        except (Full, Empty):
            pass

    run(program, do)
    assert 0 == queue.statistics().waiting
    left = [queue.get_nowait() for _ in range(queue.qsize())]
    assert Counter(put_in) == Counter(taken_out + left)


@settings(max_examples=25)
@given(capacity=st.integers(0, 2), program=programs(["send", "receive"]))
def test_channels_between_carriers_lose_and_duplicate_nothing(capacity, program):
    channel, sent, received = Channel(capacity), [], []

    def do(name, timeout):
        try:
            if name == "send":
                item = object()
                channel.send(item, timeout)
                sent.append(item)
            else:
                received.append(channel.receive(timeout))
        except (TimeoutError, ChannelClosed):
            pass

    run(program, do)
    channel.close()
    assert Counter(sent) == Counter([*received, *channel])


@settings(max_examples=25)
@given(kind=st.sampled_from([Lock, RLock]), program=programs(["hold"]))
def test_locks_exclude_threads_of_all_carriers(kind, program):
    lock, inside, most = kind(), [], []

    def do(_, timeout):
        if lock.acquire(timeout=timeout):
            try:
                inside.append(1)
                most.append(len(inside))
                sleep(timeout / 10)
            finally:
                inside.pop()
                lock.release()

    run(program, do)
    assert not most or 1 == max(most)
    assert (False, 0) == (lock.statistics().locked, lock.statistics().waiting)


@settings(max_examples=25)
@given(permits=st.integers(1, 2), program=programs(["hold"]))
def test_semaphores_between_carriers_keep_their_permits(permits, program):
    semaphore, inside, most = Semaphore(permits), [], []

    def do(_, timeout):
        if semaphore.acquire(timeout=timeout):
            try:
                inside.append(1)
                most.append(len(inside))
                sleep(timeout / 10)
            finally:
                inside.pop()
                semaphore.release()

    run(program, do)
    assert not most or max(most) <= permits
    assert (permits, 0) == (semaphore.statistics().value, semaphore.statistics().waiting)


@settings(max_examples=25)
@given(
    width=st.integers(1, 4),
    children=st.lists(st.tuples(st.sampled_from(["same", "spread"]), st.sampled_from([0, 0.001, 0.01])), max_size=8),
    ends_after=st.sampled_from([0.0, 0.001, 0.005, 1.0]),
)
def test_groups_between_carriers_end_with_all_their_members(width, children, ends_after):
    begun, ended = [], []

    def member(seconds, depth):
        begun.append(1)
        try:
            if depth:
                with ThreadGroup(placement="spread") as inner:
                    inner.spawn(member, seconds, depth - 1)
            sleep(seconds)
        finally:
            ended.append(1)

    def root():
        with vthreads.move_on_after(ends_after):
            with ThreadGroup() as near, ThreadGroup(placement="spread", max_concurrency=width) as far:
                for placement, seconds in children:
                    (near if placement == "same" else far).spawn(member, seconds, 1)
        assert len(begun) == len(ended)

    vthreads.run(root, carriers=4, patch=False)
    assert len(begun) == len(ended)
