"""OS threads, virtual threads, a process pool and an asyncio loop share queues, locks and futures, and are cancelled.

    python -m tests.soak [--seconds 60] [--seed 0] [--carriers 1]

Tokens wander between two queues. Whoever takes one works a while (in the process pool, on the loop, under a lock, with
one of a few permits) and puts it into the other queue, also when it is cancelled in between, which happens all the
time. With several carriers, the virtual threads are spread over them. At the end every token must be there once, every
permit free, every count right, and nothing left in the process. Exit status 1: something is not.
"""

import argparse
import asyncio
import multiprocessing
import os
import queue
import random
import sys
import threading
import time
from collections import Counter
from concurrent.futures import Future, ProcessPoolExecutor
from math import inf

import vthreads
from vthreads import ThreadGroup, move_on_after, offload

TOKENS, PERMITS = 400, 7
VIRTUAL_THREADS, OS_THREADS, TASKS, PROCESSES = 200, 6, 30, 2
# Seconds: how long a piece of work takes, how long a mover waits for a token, the time between two cancellations.
WORK, PATIENCE, BETWEEN_CANCELLATIONS = 0.005, 0.05, 0.002


KINDS = "virtual thread", "OS thread", "task"
# Additional seconds on a slow machine, until each kind has done some work.
LONGEST = 60


class Mover:
    """The shared state of all movers, and their counters."""

    def __init__(self, seed, placement):
        self.placement = placement
        self.random = random.Random(seed)
        self.queues = queue.Queue(), queue.Queue()
        for token in range(TOKENS):
            self.queues[token % 2].put(token)
        self.lock, self.counted = threading.Lock(), 0
        self.rlock, self.recounted = threading.RLock(), 0
        self.permits = threading.BoundedSemaphore(PERMITS)
        self.stop = threading.Event()
        # Of each kind of mover; added to by one carrier or OS thread at a time, under the lock.
        self.moved = Counter()
        self.increments = Counter()
        self.cancelled = Counter()

    def move(self, kind, work):
        """Move one token, and work while holding it; whatever comes, it goes into one of the queues."""
        source, target = self.random.sample(self.queues, 2)
        try:
            token = source.get(timeout=PATIENCE)
        except queue.Empty:
            return
        try:
            work(token)
        finally:
            target.put(token)
        self.count(kind)

    def has_idle(self):
        """Whether some kind has moved nothing yet."""
        return any(not self.moved[kind] for kind in KINDS)

    def count(self, kind):
        """Count a move in two ways, each under a separate lock."""
        with self.lock:
            before = self.counted
            if self.random.random() < 0.1:
                # Parks, or blocks, while the lock is held.
                time.sleep(0.0001)
            self.counted = before + 1
            self.increments[kind] += 1
        with self.rlock, self.rlock:
            self.recounted += 1
            self.moved[kind] += 1

    def work_with_permit(self, token):
        with self.permits:
            time.sleep(self.random.random() * WORK)


def virtual_thread(mover, pool, loop):
    """The life of one virtual thread: under separate deadlines, and cancelled by others."""

    def in_pool(token):
        answer = pool.submit(pow, token, 2).result()
        if answer != token * token:
            raise AssertionError(f"the pool's answer to {token} is {answer}")

    def on_loop(token):
        if asyncio.run_coroutine_threadsafe(double(token), loop).result() != 2 * token:
            raise AssertionError("the loop's answer is wrong")

    def offloaded(token):
        # Waiting for it instead would be reported on stderr where a busy machine lets the call take long.
        offload(time.sleep, mover.random.random() * WORK, on_cancel="abandon")

    def in_group(token):
        with ThreadGroup() as group:
            for _ in range(3):
                group.spawn(mover.work_with_permit, token)

    works = in_pool, on_loop, offloaded, in_group, mover.work_with_permit
    while not mover.stop.is_set():
        # Some have no deadline: where the machine is slow, no move may end within the deadlines of the others.
        seconds = mover.random.random() * 10 * WORK if mover.random.random() < 0.9 else inf
        with move_on_after(seconds) as scope:
            mover.move("virtual thread", mover.random.choice(works))
        if scope.cancelled_caught:
            with mover.lock:
                mover.cancelled["deadline"] += 1


async def double(number):
    """The calls of the loop for others."""
    await asyncio.sleep(WORK / 2)
    return 2 * number


async def task(mover):
    """The life of one task of the loop; it is cancelled by the loop's own means."""
    while not mover.stop.is_set():
        source, target = mover.random.sample(mover.queues, 2)
        try:
            token = source.get_nowait()
        except queue.Empty:
            await asyncio.sleep(WORK)
            continue
        try:
            # Not `wait_for`, which on Python 3.11 may swallow a cancellation that comes with the end of its wait.
            async with asyncio.timeout(WORK / 2):
                await asyncio.sleep(mover.random.random() * WORK)
        except TimeoutError:
            pass
        finally:
            target.put(token)
        mover.count("task")


async def tasks(mover, started):
    """Keep the tasks going while some of them are cancelled."""
    started.set_result(asyncio.get_running_loop())
    running = {asyncio.create_task(task(mover)) for _ in range(TASKS)}
    while not mover.stop.is_set():
        await asyncio.sleep(10 * BETWEEN_CANCELLATIONS)
        victim = running.pop()
        victim.cancel()
        await asyncio.wait({victim})
        mover.cancelled["task"] += victim.cancelled()
        running.add(asyncio.create_task(task(mover)))
    await asyncio.wait(running)


def os_thread(mover, pool):
    """The life of one OS thread."""
    while not mover.stop.is_set():
        mover.move(
            "OS thread",
            mover.random.choice([mover.work_with_permit, lambda token: pool.submit(pow, token, 2).result()]),
        )


def cancel_at_random(mover, spawn, until):
    """Cancel a virtual thread every now and then, and spawn another in its place."""
    futures = [spawn() for _ in range(VIRTUAL_THREADS)]
    while vthreads.now() < until or (mover.has_idle() and vthreads.now() < until + LONGEST):
        vthreads.sleep(BETWEEN_CANCELLATIONS)
        place = mover.random.randrange(len(futures))
        if mover.random.random() < 0.5:
            futures[place].cancel()
        else:
            futures[place].thread.cancel("at random")
        mover.cancelled["virtual thread"] += 1
        futures[place] = spawn()


def soak(mover, seconds):
    """Run all of it for `seconds`."""
    context = multiprocessing.get_context("forkserver")
    started = Future()
    asyncio_thread = threading.Thread(target=asyncio.run, args=(tasks(mover, started),))
    asyncio_thread.start()
    loop = started.result()
    with ProcessPoolExecutor(PROCESSES, mp_context=context) as pool:
        os_threads = [threading.Thread(target=os_thread, args=(mover, pool)) for _ in range(OS_THREADS)]
        for thread in os_threads:
            thread.start()
        try:
            with ThreadGroup("movers", placement=mover.placement) as group:
                cancel_at_random(
                    mover, lambda: group.spawn(virtual_thread, mover, pool, loop), vthreads.now() + seconds
                )
                group.cancel("the time is over")
        finally:
            mover.stop.set()
            for thread in os_threads:
                thread.join()
            asyncio_thread.join()


def check(mover):
    """The violated invariants, one per line."""
    tokens = Counter()
    for of_one in mover.queues:
        while not of_one.empty():
            tokens[of_one.get_nowait()] += 1
    if tokens != Counter(range(TOKENS)):
        lost, doubled = (
            sorted(set(range(TOKENS)) - set(tokens)),
            [token for token, times in tokens.items() if times > 1],
        )
        yield f"tokens lost: {lost}, doubled: {doubled}"
    free = 0
    while mover.permits.acquire(blocking=False):
        free += 1
    if free != PERMITS:
        yield f"permits free: {free} of {PERMITS}"
    if mover.lock.locked() or not mover.rlock.acquire(blocking=False):
        yield "a lock is held"
    if mover.counted != mover.increments.total():
        yield f"counted {mover.counted}, increments {mover.increments.total()}"
    if mover.recounted != mover.moved.total():
        yield f"counted again {mover.recounted}, moves {mover.moved.total()}"
    if mover.has_idle():
        yield "a kind of mover has moved nothing"


def main():
    parser = argparse.ArgumentParser(prog="python -m tests.soak", description=__doc__.partition("\n")[0])
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--carriers", type=int, default=1)
    options = parser.parse_args()

    mover = Mover(options.seed, "same" if options.carriers == 1 else "spread")
    descriptors = len(os.listdir("/proc/self/fd"))
    vthreads.run(soak, mover, options.seconds, carriers=options.carriers)
    for counter in ("moved", "cancelled"):
        print(counter, dict(getattr(mover, counter)))
    # The resource tracker and the server that forks keep a descriptor each until the interpreter ends.
    print("descriptors", len(os.listdir("/proc/self/fd")), "before", descriptors)
    failures = list(check(mover))
    for failure in failures:
        print("FAILED", failure)
    return bool(failures)


if __name__ == "__main__":
    sys.exit(main())
