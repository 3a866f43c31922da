"""Two pipes between two threads of one process, by `os.read` and `os.write`: what do a message and its answer cost?

The peer *unix_socket* is vthreads with a pair of Unix sockets in place of the pipes.
"""

from ..in_process import in_process as measure

SIZE = "pairs"
SIZES = (1,)
OPERATIONS = 20_000
FIGURES = {"cpu": "µs per round trip"}
HELPERS = ("program",)

__all__ = ["FIGURES", "HELPERS", "OPERATIONS", "SIZE", "SIZES", "measure"]
