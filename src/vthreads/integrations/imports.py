"""Tell when one of certain modules has been imported: a finder in `sys.meta_path` that finds nothing by itself."""

from __future__ import annotations

import sys
from collections.abc import Callable, Collection, Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

__all__ = ["watch_imports"]

Seen = Callable[[ModuleType], None]


def watch_imports(names: Collection[str], seen: Seen) -> Callable[[], None]:
    """Call `seen(module)` after the import of each module in `names`, in whichever thread; what ends the watch."""
    watch = _Watch(names, seen)
    sys.meta_path.insert(0, watch)
    return watch.end


class _Watch(MetaPathFinder):
    def __init__(self, names: Collection[str], seen: Seen) -> None:
        self._names = names
        self.seen = seen

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname not in self._names:
            return None
        # What the finders behind this one say, whoever they are.
        for finder in sys.meta_path[sys.meta_path.index(self) + 1 :] if self in sys.meta_path else ():
            find_spec = getattr(finder, "find_spec", None)
            spec: ModuleSpec | None = None if find_spec is None else find_spec(fullname, path, target)
            if spec is not None:
                if spec.loader is not None:
                    spec.loader = _Announcing(spec.loader, self)
                return spec
        return None

    def end(self) -> None:
        if self in sys.meta_path:
            sys.meta_path.remove(self)
        self.seen = _nobody


class _Announcing(Loader):
    """Stands in for the loader of one module until the module's own code begins to run."""

    def __init__(self, loader: Any, watch: _Watch) -> None:
        self._loader = loader
        self._watch = watch

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        module: ModuleType | None = self._loader.create_module(spec)
        return module

    def exec_module(self, module: ModuleType) -> None:
        # Its code, and whoever looks at it later, find the loader that they expect.
        if module.__spec__ is not None:
            module.__spec__.loader = self._loader
        module.__loader__ = self._loader
        self._loader.exec_module(module)
        self._watch.seen(module)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._loader, name)


def _nobody(module: ModuleType) -> None:
    """Nobody listens any more."""
