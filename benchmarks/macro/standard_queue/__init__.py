"""Pairs of threads pass an item back and forth through two `queue.Queue(1)`: what does a round trip cost?

The program is the same for all peers, and uses only the standard library. They run it after `prepare()`.
"""

from ..prepared import measured_with, run_threads

SIZE = "pairs"
SIZES = (1,)
OPERATIONS = 20_000
FIGURES = {"cpu": "µs per round trip"}

__all__ = ["FIGURES", "OPERATIONS", "SIZE", "SIZES", "measure"]


def program(size, operations, watch):
    """Make `operations` round trips with `size` pairs of threads."""
    import queue

    times = operations // size
    trips = []

    def pair():
        there, back = queue.Queue(1), queue.Queue(1)

        def returns():
            for _ in range(times):
                back.put(there.get())

        def asks():
            for _ in range(times):
                there.put(1)
                trips.append(back.get())

        return returns, asks

    functions = [function for _ in range(size) for function in pair()]
    with watch():
        run_threads(functions)
    return len(trips)


measure = measured_with(program)
