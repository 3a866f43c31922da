"""C programs, built when they are needed."""

import os
import shutil
import subprocess
from pathlib import Path

from .left_out import LeftOut

# Where the built programs of one run are kept; the run removes it.
BUILT = Path(os.environ.get("VTHREADS_BENCH_BUILD", "build"))


def built(source):
    """Compile a C file, unless that was done in this run; the program's path."""
    program = BUILT / f"{source.parent.name}-{source.stem}"
    if not program.exists():
        compiler = shutil.which(os.environ.get("CC", "cc"))
        if compiler is None:
            raise LeftOut("there is no C compiler (cc, or what CC names)")
        BUILT.mkdir(parents=True, exist_ok=True)
        unfinished = program.with_suffix(f".{os.getpid()}")
        subprocess.run([compiler, "-O2", "-Wall", "-o", unfinished, source], check=True)
        unfinished.replace(program)
    return program
