"""The columns of the table: the runtime and the interpreter of a run."""

import importlib.util
import inspect
import os
import subprocess
import sys
from pathlib import Path

__all__ = ["COLUMNS", "JUDGED", "interpreter_for", "missing", "path_for"]

ROOT = Path(__file__).resolve().parents[2]

COLUMNS = {
    "plain": "Python alone",
    "vthreads": "every test in the root virtual thread of vthreads.run()",
    "threads": "the same after vthreads.patch(threads=True), preempted after 10 ms of computation",
    "gevent": "after gevent.monkey.patch_all()",
}
# What deviates in these has to be in the table of known deviations; the others are there to compare with.
JUDGED = ("vthreads", "threads")


def missing(column):
    """Why `column` cannot be run, if so."""
    if column == "threads":
        import vthreads

        if "threads" not in inspect.signature(vthreads.patch).parameters:
            return "vthreads.patch() has no argument `threads` yet"
    return None


def path_for(column):
    """The additional entries of the path of the process."""
    if column not in ("vthreads", "threads"):
        return []
    spec = importlib.util.find_spec("vthreads")
    return [str(Path(spec.origin).parents[1])]


def interpreter_for(column):
    return _with_gevent() if column == "gevent" else sys.executable


def _with_gevent():
    """The interpreter of a separate environment, made when it is first asked for."""
    environment = ROOT / ".venv-gevent-{}.{}".format(*sys.version_info)
    python, made = environment / "bin" / "python", environment / ".made"
    if not made.exists():
        print(f"Installing gevent into {environment.name} ...", flush=True)
        subprocess.run([sys.executable, "-m", "venv", "--clear", environment], check=True)
        install = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "gevent"]
        subprocess.run(install, check=True, env={**os.environ, "PYTHONPATH": ""})
        made.touch()
    return str(python)
