"""Measure the CPU time of small operations with pyperf, on the engine that VTHREADS_ENGINE selects.

    python benchmarks/micro.py                              all operations
    python benchmarks/micro.py --only yield spawn-join      some of them
    python benchmarks/micro.py -o reference.json            for pyperf compare_to

pyperf runs each benchmark in several processes and prints mean and deviation. A figure is per operation, or per thread
if many threads take part. `parked-memory` is in bytes. `python -m benchmarks.compare patched_calls` compares replaced
calls with the originals on an OS thread.
"""

import json
import subprocess
import sys
import time
from argparse import SUPPRESS
from pathlib import Path

import vthreads
from vthreads import Channel, Future, Lock, Queue, Semaphore, ThreadGroup, checkpoint, fail_after, move_on_after, sleep

# Number of threads in benchmarks with many threads.
MANY = 1_000
PARKED = 10_000


def yields(operations: int) -> int:
    """100 threads yield to each other repeatedly."""
    done = 0

    def runs(times: int) -> None:
        nonlocal done
        for _ in range(times):
            checkpoint()
        done += times

    with ThreadGroup() as group:
        for number in range(100):
            group.spawn(runs, operations // 100 + (number < operations % 100))
    return done


def spawn_join(operations: int) -> int:
    """Spawn and join a group of threads that do nothing."""
    done = 0

    def nothing() -> None:
        nonlocal done
        done += 1

    with ThreadGroup() as group:
        for _ in range(operations):
            group.spawn(nothing)
    return done


def sleeps(operations: int) -> int:
    """Many threads sleep at the same time."""
    done = 0

    def sleeper() -> None:
        nonlocal done
        sleep(0.5)
        done += 1

    with ThreadGroup() as group:
        for _ in range(operations):
            group.spawn(sleeper)
    return done


def timeouts(operations: int) -> int:
    """Set a time limit that is not reached."""
    for _ in range(operations):
        with fail_after(60):
            pass
    return operations


def locks(operations: int) -> int:
    """Acquire and release a free lock."""
    lock = Lock()
    for _ in range(operations):
        with lock:
            pass
    return operations


def semaphores(operations: int) -> int:
    """Acquire and release a semaphore with a free permit."""
    semaphore = Semaphore(1)
    for _ in range(operations):
        with semaphore:
            pass
    return operations


def queue_round_trips(operations: int) -> int:
    """Two threads pass an item back and forth through two queues of size 1."""
    there, back = Queue(1), Queue(1)

    def returns() -> None:
        for _ in range(operations):
            back.put(there.get())

    with ThreadGroup() as group:
        group.spawn(returns)
        return sum(there.put(1) or back.get() for _ in range(operations))


def channel_messages(operations: int) -> int:
    """One thread sends to another one through a channel of capacity 0."""
    channel: Channel[int] = Channel()

    def sends() -> None:
        with channel:
            for _ in range(operations):
                channel.send(1)

    with ThreadGroup() as group:
        group.spawn(sends)
        return sum(channel)


def future_results(operations: int) -> int:
    """Get the result of an ended thread."""
    future: Future[int] = vthreads.spawn(lambda: 1)
    return sum(future.result() for _ in range(operations))


def cancelled_members(operations: int) -> int:
    """Cancel a group of parked threads."""
    done = 0

    def parks() -> None:
        nonlocal done
        with move_on_after(None):
            try:
                sleep(3600)
            finally:
                done += 1

    with ThreadGroup() as group:
        for _ in range(operations):
            group.spawn(parks)
        group.cancel()
    return done


# Function and minimum number of operations per run, by name.
BENCHMARKS = {
    "yield": (yields, 100),
    "spawn-join": (spawn_join, MANY),
    "sleep": (sleeps, MANY),
    "timeout": (timeouts, 1),
    "lock": (locks, 1),
    "semaphore": (semaphores, 1),
    "queue": (queue_round_trips, 1),
    "channel": (channel_messages, 1),
    "future": (future_results, 1),
    "cancel": (cancelled_members, MANY),
}


def cpu_seconds(loops: int, function, least: int) -> float:
    """Run `function`; return the time of one operation, times `loops`."""
    operations = max(loops, least)

    def root() -> float:
        started = time.process_time()
        done = function(operations)
        seconds = time.process_time() - started
        if done != operations:
            raise AssertionError(f"{function.__name__} did {done} of {operations}")
        return seconds

    return vthreads.run(root, patch=False) * loops / operations


def import_seconds(loops: int) -> float:
    """Return the CPU time of `import vthreads` in a new interpreter, times `loops`."""
    program = "import time; started = time.process_time(); import vthreads; print(time.process_time() - started)"
    command = [sys.executable, "-c", program]
    return sum(float(subprocess.run(command, check=True, capture_output=True).stdout) for _ in range(loops))


def parked_bytes(loops: int) -> float:
    """Return the memory of a parked thread, times `loops`."""
    # Use a new process: in a process that has freed memory before, the resident set does not grow.
    command = [sys.executable, Path(__file__).with_name("parked.py"), str(PARKED), "--json"]
    figures = json.loads(subprocess.run(command, check=True, capture_output=True).stdout)
    return figures["KiB each"] * 1024 * loops


# Benchmarks that measure by themselves: function and unit, by name.
WHOLE = {
    "import": (import_seconds, "second"),
    "parked-memory": (parked_bytes, "byte"),
}


def main() -> None:
    """Run the selected benchmarks."""
    import pyperf

    runner = pyperf.Runner(processes=5, values=3, warmups=1, add_cmdline_args=forward_only)
    names = [*BENCHMARKS, *WHOLE]
    runner.argparser.add_argument("--only", nargs="+", choices=names, default=names, help=SUPPRESS)
    options = runner.parse_args()
    for name in options.only:
        if name in WHOLE:
            function, unit = WHOLE[name]
            runner.bench_time_func(name, function, metadata={"unit": unit})
        else:
            runner.bench_time_func(name, cpu_seconds, *BENCHMARKS[name])


def forward_only(command: list[str], options) -> None:
    """Pass the selection on to the worker processes of pyperf."""
    command += ["--only", *options.only]


if __name__ == "__main__":
    sys.exit(main())
