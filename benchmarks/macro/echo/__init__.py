"""TCP echo, 1 KiB per request: what does one request cost the server?"""

from functools import partial
from pathlib import Path

from ..servers import under_load

SIZE = "connections"
SIZES = (10, 100, 1_000, 10_000)
OPERATIONS = 100_000
FIGURES = {"cpu": "µs per request"}
measure = partial(under_load, Path(__file__).with_name("load.c"))
