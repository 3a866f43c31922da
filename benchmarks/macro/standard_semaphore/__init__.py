"""Two threads take turns by two `threading.Semaphore`: what does a turn cost?"""

from ..prepared import measured_with, run_threads

SIZE = "pairs"
SIZES = (1,)
OPERATIONS = 20_000
FIGURES = {"cpu": "µs per turn"}
PEERS = "standard_queue"

__all__ = ["FIGURES", "OPERATIONS", "PEERS", "SIZE", "SIZES", "measure"]


def program(size, operations, watch):
    """Take `operations` turns with `size` pairs of threads."""
    import threading

    counts = []

    def pair():
        first, second = threading.Semaphore(1), threading.Semaphore(0)

        def turns(ours, theirs, times):
            for _ in range(times):
                ours.acquire()
                theirs.release()
            counts.append(times)

        each = operations // size
        return (lambda: turns(first, second, each - each // 2)), (lambda: turns(second, first, each // 2))

    functions = [function for _ in range(size) for function in pair()]
    with watch():
        run_threads(functions)
    return sum(counts)


measure = measured_with(program)
