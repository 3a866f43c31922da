"""C programs, compiled on first use."""

import os
import shlex
import shutil
import subprocess
from pathlib import Path

from .left_out import LeftOut

# Folder for the compiled programs of one run, which removes it.
BUILT = Path(os.environ.get("VTHREADS_BENCH_BUILD", "build"))


def built(source):
    """Compile a C file, once per run; return the path of the program."""
    program = BUILT / f"{source.parent.name}-{source.stem}"
    if not program.exists():
        # CC may name a wrapper and the compiler, or a compiler with options: "ccache gcc".
        command = shlex.split(os.environ.get("CC", "")) or ["cc"]
        if shutil.which(command[0]) is None:
            raise LeftOut("there is no C compiler (cc, or what CC names)")
        BUILT.mkdir(parents=True, exist_ok=True)
        unfinished = program.with_suffix(f".{os.getpid()}")
        subprocess.run([*command, "-O2", "-Wall", "-o", unfinished, source, "-lm"], check=True)
        unfinished.replace(program)
    return program
