"""Two threads take turns by a `threading.Condition`: what does a turn cost?"""

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
        condition = threading.Condition()
        turn, times = 0, [-(-operations // size // 2), operations // size // 2]

        def turns(mine):
            nonlocal turn
            with condition:
                for _ in range(times[mine]):
                    while turn != mine:
                        condition.wait()
                    turn = 1 - mine
                    condition.notify()
            counts.append(times[mine])

        return (lambda: turns(0)), (lambda: turns(1))

    functions = [function for _ in range(size) for function in pair()]
    with watch():
        run_threads(functions)
    return sum(counts)


measure = measured_with(program)
