"""Measure the cost of parking very many virtual threads, and of cancelling them all.

Each thread parks once and waits for nothing. Memory is the growth of the resident set; the futures are dropped. CPU
time is that of this process, per thread.

    python benchmarks/parked.py [threads] [--json]
"""

import argparse
import json
import resource
import time

import vthreads
from vthreads import ThreadGroup

THREADS = 100_000


def resident_bytes() -> int:
    """Return the resident memory of this process."""
    with open("/proc/self/statm") as statm:
        return int(statm.read().split()[1]) * resource.getpagesize()


def park() -> None:
    """Run in each thread: park until cancelled."""
    vthreads.current_thread()._park()


def measure(threads: int) -> dict[str, float]:
    """Park `threads` threads, cancel them, and check that all have ended."""
    memory, started, cpu = resident_bytes(), time.perf_counter(), time.process_time()
    with ThreadGroup() as group:
        for _ in range(threads):
            group.spawn(park)
        made, made_cpu = time.perf_counter(), time.process_time()
        grown = resident_bytes() - memory
        if len(group) != threads:
            raise AssertionError(f"{len(group)} of {threads} threads are parked")
        group.cancel()
    ended, ended_cpu = time.perf_counter(), time.process_time()
    if len(group):
        raise AssertionError(f"{len(group)} threads are left")
    return {
        "KiB each": grown / threads / 1024,
        "seconds to make": made - started,
        "µs of processor each, to make": (made_cpu - cpu) / threads * 1e6,
        "seconds to cancel": ended - made,
        "µs of processor each, to cancel": (ended_cpu - made_cpu) / threads * 1e6,
    }


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser()
    parser.add_argument("threads", type=int, nargs="?", default=THREADS)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    figures = vthreads.run(measure, options.threads, patch=False)
    if options.json:
        print(json.dumps(figures))
        return
    print(f"{options.threads:,} parked virtual threads")
    for what, figure in figures.items():
        print(f"  {what:32} {figure:8.2f}")


if __name__ == "__main__":
    main()
