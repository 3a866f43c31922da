"""Find the installed modules that belong to the same project as a function: they are part of its program.

A test is in the source tree of its project, but the project may be imported from an installed package, as with tox.
"""

from __future__ import annotations

import sys
import tomllib
from collections.abc import Callable
from functools import partial
from importlib.metadata import Distribution, PackageNotFoundError
from pathlib import Path
from typing import Any

__all__ = ["own_modules"]


def own_modules(fn: Callable[..., Any], is_installed: Callable[[str], bool]) -> tuple[str, ...]:
    """Return the names of the top-level modules of the distribution of `fn`; an empty tuple if there is none.

    Args:
        fn: a function of an installed module, or of a file below the `pyproject.toml` of its project.
        is_installed: returns whether a path belongs to installed packages.
    """
    while isinstance(fn, partial):
        fn = fn.func
    names = getattr(fn, "__globals__", None) or vars(sys.modules.get(type(fn).__module__, sys))
    file, module = names.get("__file__"), str(names.get("__name__"))
    if not file:
        return ()
    if is_installed(file):
        return (module.partition(".")[0],)
    project = _project_of(Path(file))
    try:
        return () if project is None else _top_modules(Distribution.from_name(project))
    except PackageNotFoundError:
        return ()


def _project_of(file: Path) -> str | None:
    for folder in file.absolute().parents:
        try:
            settings = tomllib.loads((folder / "pyproject.toml").read_text("utf-8"))
        except OSError:
            continue
        except ValueError:
            return None
        name = settings.get("project", {}).get("name")
        return name if isinstance(name, str) and name else None
    return None


def _top_modules(distribution: Distribution) -> tuple[str, ...]:
    listed = distribution.read_text("top_level.txt")
    if listed is not None:
        return tuple(listed.split())
    tops = {file.parts[0] for file in distribution.files or () if file.suffix == ".py"}
    return tuple(sorted(top.removesuffix(".py") for top in tops if top != ".."))
