"""One thread makes a `threading.Event`, sets it, and waits for it: what do the three calls cost?"""

from ..prepared import measured_with, run_threads

SIZE = "threads"
SIZES = (1,)
OPERATIONS = 50_000
FIGURES = {"cpu": "µs per event"}
PEERS = "standard_queue"

__all__ = ["FIGURES", "OPERATIONS", "PEERS", "SIZE", "SIZES", "measure"]


def program(size, operations, watch):
    """Make, set and wait for `operations` events on `size` threads."""
    import threading

    seen = []

    def events():
        count = 0
        for _ in range(operations // size):
            event = threading.Event()
            event.set()
            count += event.wait()
        seen.append(count)

    with watch():
        run_threads([events] * size)
    return sum(seen)


measure = measured_with(program)
