"""`subprocess.run` of a program that does nothing: what does it cost the process that starts it?"""

from ..prepared import measured_with, run_threads

SIZE = "threads"
SIZES = (1,)
OPERATIONS = 200
FIGURES = {"cpu": "µs per process"}
PEERS = "standard_queue"

__all__ = ["FIGURES", "OPERATIONS", "PEERS", "SIZE", "SIZES", "measure"]


def program(size, operations, watch):
    """Start and await `operations` processes, by `size` threads."""
    import subprocess

    counts = []

    def starts():
        counts.append(sum(subprocess.run(["true"], check=False).returncode == 0 for _ in range(operations // size)))

    with watch():
        run_threads([starts] * size)
    return sum(counts)


measure = measured_with(program)
