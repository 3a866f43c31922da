"""Open and read a file of 4 KiB that is in the cache of the kernel: what does it cost?"""

from ..prepared import measured_with, run_threads

SIZE = "threads"
SIZES = (1,)
OPERATIONS = 20_000
FIGURES = {"cpu": "µs per file"}
PEERS = "standard_queue"

__all__ = ["FIGURES", "OPERATIONS", "PEERS", "SIZE", "SIZES", "measure"]


def program(size, operations, watch):
    """Read one file `operations` times, by `size` threads."""
    from pathlib import Path
    from tempfile import TemporaryDirectory

    counts = []
    with TemporaryDirectory() as folder:
        path = Path(folder, "file")
        path.write_bytes(bytes(4_096))

        def reads():
            done = 0
            for _ in range(operations // size):
                with open(path, "rb") as file:
                    done += len(file.read()) == 4_096
            counts.append(done)

        with watch():
            run_threads([reads] * size)
    return sum(counts)


measure = measured_with(program)
