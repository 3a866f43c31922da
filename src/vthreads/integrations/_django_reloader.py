"""The reloader of Django: its child process runs on virtual threads if the parent does by `vthreads run`.

Django repeats the program and its arguments without the command that has started it, so the child of `manage.py
runserver` would run on OS threads. The arguments of the interpreter are those of the whole command.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from types import ModuleType

__all__ = ["fit", "is_run_by_us"]

# Options of the interpreter whose value may be the next argument.
WITH_VALUE = ("-W", "-X", "--check-hash-based-pycs")


def fit(autoreload: ModuleType) -> list[Callable[[], None]]:
    """Replace the function that makes the arguments of the child; return what undoes it."""
    original = autoreload.get_child_arguments

    def get_child_arguments() -> list[str]:
        if is_run_by_us(sys.orig_argv):
            return [sys.executable, *sys.orig_argv[1:]]
        return original()  # type: ignore[no-any-return]  # Django has no types

    autoreload.get_child_arguments = get_child_arguments  # type: ignore[attr-defined]  # likewise
    return [lambda: setattr(autoreload, "get_child_arguments", original)]


def is_run_by_us(command: Sequence[str]) -> bool:
    """Return whether `command` is one of `python -m vthreads run …` and `vthreads run …`."""
    arguments = iter(command[1:])
    for argument in arguments:
        if argument == "-m":
            # Arguments after a module belong to it.
            return [next(arguments, ""), next(arguments, "")] == ["vthreads", "run"]
        if argument in WITH_VALUE:
            next(arguments, "")
        elif not argument.startswith("-"):
            return os.path.basename(argument) == "vthreads" and next(arguments, "") == "run"
    return False
