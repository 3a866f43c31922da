"""A module that is imported when one of its names is needed: by code that runs, or by a reader of annotations.

An import under `TYPE_CHECKING` leaves no name behind, so `typing.get_type_hints` would raise NameError for annotations
that use it. A `ModuleOnDemand` is a name that costs no import, and annotations are written as attributes of it.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

__all__ = ["ModuleOnDemand"]


class ModuleOnDemand:
    """Stands for the module called `name`, and imports it at the first attribute."""

    __slots__ = ("_module_name",)

    def __init__(self, name: str) -> None:
        self._module_name = name

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self._module_name!r}>"

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            # Tools that search a program for marked objects ask each one for names like `__wrapped__`.
            raise AttributeError(name)
        return getattr(import_module(self._module_name), name)
