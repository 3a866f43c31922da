"""Call a function after the import of certain modules, by a finder in `sys.meta_path` that wraps their loaders.

Each import of such a module is reported once, at its end, under its import lock: also an import that another OS thread
had begun before, and a repeated import or a reload. Modules that were imported before are listed instead.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Collection, Sequence
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

__all__ = ["Watch", "call_at_end", "watch_imports"]

Seen = Callable[[ModuleType], object]

# Key in the dict of a spec whose import is under way: the watches that its end is reported to, each with the module, or
# with None if the loader reports it.
REPORTED = "_vthreads_reported"


def watch_imports(names: Collection[str], seen: Seen) -> Watch:
    """Call `seen(module)` after the import of each module in `names`, in any thread."""
    watch = Watch(names, seen)
    sys.meta_path.insert(0, watch)
    # Read `sys.modules` only now: an import that begins from here on finds the watch, and the module of one that has
    # begun before is there.
    watch.present = [
        module
        for name in names
        if isinstance(module := sys.modules.get(name), ModuleType) and not _report_end(module, watch)
    ]
    return watch


class Watch:
    """A finder. Not a subclass of `MetaPathFinder`, nor its loader of `Loader`: `importlib.abc` imports much."""

    # The modules that were imported when the watch began.
    present: list[ModuleType]

    def __init__(self, names: Collection[str], seen: Seen) -> None:
        self._names = names
        self.seen = seen

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname not in self._names:
            return None
        # Ask the finders behind this one, and wrap the loader of the one that succeeds.
        for finder in sys.meta_path[sys.meta_path.index(self) + 1 :] if self in sys.meta_path else ():
            find_spec = getattr(finder, "find_spec", None)
            spec: ModuleSpec | None = None if find_spec is None else find_spec(fullname, path, target)
            if spec is not None:
                if spec.loader is not None:
                    spec.loader = _Announcing(spec.loader, self)  # type: ignore[assignment]  # not a subclass
                return spec
        return None

    def end(self) -> None:
        """End the watch; nothing is reported from now on."""
        if self in sys.meta_path:
            sys.meta_path.remove(self)
        self.seen = _ignore


class _Announcing:
    """Replaces the loader of a module until the module's code starts to run."""

    def __init__(self, loader: Any, watch: Watch) -> None:
        self._loader = loader
        self.watch = watch

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        module: ModuleType | None = self._loader.create_module(spec)
        return module

    def exec_module(self, module: ModuleType) -> None:
        # Restore the original loader, so that the module's code and others find it.
        if module.__spec__ is not None:
            vars(module.__spec__).setdefault(REPORTED, {})[self.watch] = None
            module.__spec__.loader = self._loader
        module.__loader__ = self._loader
        self._loader.exec_module(module)
        if module.__spec__ is not None:
            vars(module.__spec__)[REPORTED].pop(self.watch, None)
        self.watch.seen(module)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._loader, name)


def _ignore(module: ModuleType) -> None:
    """Ignore the module: the watch has ended."""


def call_at_end(module: ModuleType, call: Callable[[], object]) -> bool:
    """If `module` is being imported, call `call()` at the end of that import, and return True."""
    return _report_end(module, Watch((), lambda _: call()))


def _report_end(module: ModuleType, watch: Watch) -> bool:
    """Return whether `module` is being imported, by this or another OS thread; then `watch` sees it at the end."""
    spec: Any = module.__spec__
    if not isinstance(spec, ModuleSpec) or not vars(spec).get("_initializing"):
        return False
    loader: Any = spec.loader
    while type(loader) is _Announcing:
        if loader.watch is watch:
            return True
        loader = loader._loader
    reported: dict[Watch, ModuleType | None] = vars(spec).setdefault(REPORTED, {})
    if watch in reported:
        return True
    # The loader is executing the module and cannot be wrapped any more. Waiting for its end could deadlock: the import
    # lock belongs to a thread that may wait for this one. But `import` marks the end in the spec.
    reported[watch] = module
    spec.__class__ = _UnderWay
    # If it has ended meanwhile, the one that removes the watch handles the module.
    return bool(vars(spec)["_initializing"]) or reported.pop(watch, None) is None


class _UnderWay(ModuleSpec):
    """The class of the spec of a module that is being imported, until its end."""

    @property
    def _initializing(self) -> bool:
        return bool(vars(self)["_initializing"])

    @_initializing.setter
    def _initializing(self, begins: bool) -> None:
        if not begins:
            # Report first: from the end on, other OS threads do not check the import lock of the module.
            _report(self)
        vars(self)["_initializing"] = begins
        if not begins:
            self.__class__ = ModuleSpec  # type: ignore[assignment]  # has the same fields
            # Another OS thread may have added a watch meanwhile.
            _report(self)


def _report(spec: ModuleSpec) -> None:
    reported: dict[Watch, ModuleType | None] = vars(spec).get(REPORTED, {})
    for watch, module in list(reported.items()):
        # `import` removes a module that has failed before it marks the end.
        if reported.pop(watch, None) is not None and module is not None and sys.modules.get(spec.name) is module:
            watch.seen(module)
