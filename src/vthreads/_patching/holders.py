"""Find the objects that refer to an object: its holders. `places` has the places in each of them.

A single pass over all objects of the process finds the holders. Local variables of running frames are searched
separately, because the garbage collector does not list them. Other references are in C code or on the stack of a call.
"""

from __future__ import annotations

import builtins
import gc
import sys
from collections import defaultdict, deque
from collections.abc import Collection, Iterable, Iterator, Mapping
from collections.abc import Set as AbstractSet
from contextlib import contextmanager
from functools import partial
from itertools import chain, compress
from types import (
    BuiltinMethodType,
    CellType,
    ClassMethodDescriptorType,
    FrameType,
    FunctionType,
    GetSetDescriptorType,
    MemberDescriptorType,
    MethodDescriptorType,
    MethodType,
    ModuleType,
    WrapperDescriptorType,
)
from typing import Any

from .._core.engine import compiled
from .below import attributes_of, class_dict, is_a, module_of, mro_of
from .places import Place, Wanted, places_in, put_local

__all__ = ["Survey", "has_frozen", "is_own_class", "thawed", "without_collections"]

PACKAGE = __name__.partition(".")[0]
PATCHING = __name__.rpartition(".")[0]

# Python 3.12 starts with some hundreds of frozen objects; a program that calls `gc.freeze` has thousands.
FROZEN_BY_PYTHON = 1000
# Types whose attributes are searched elsewhere, or not at all.
WITHOUT_ATTRIBUTES: Any = dict | list | tuple | deque | set | CellType | type | FunctionType | BuiltinMethodType

# Types of objects that have no place for a lock, a thread-local, a queue or a poll object. They are most of a heap.
BARREN = frozenset(
    map(
        id,
        (
            FunctionType,
            type,
            WrapperDescriptorType,
            MethodDescriptorType,
            GetSetDescriptorType,
            MemberDescriptorType,
            ClassMethodDescriptorType,
        ),
    )
)

# The collector stops tracking containers of these types while they hold only objects that it does not track, as locks
# are up to Python 3.12; frozen sets since Python 3.15. It lists them neither as objects nor as holders.
UNTRACKABLE = frozenset(map(id, (tuple, dict, frozenset)))

# How many objects to check together; most contain no wanted reference, so large chunks are excluded at once.
CHUNKS = (256, 16, 1)


# Types of objects to which functions refer and that can refer to what is wanted.
PARTS_OF_FUNCTIONS = (dict, tuple)


class Survey:
    """All objects of the process at the time of its creation, except those of this package."""

    def __init__(self) -> None:
        # Read the frames first: reading creates a dict for each frame, which then is among the objects.
        self._frames = [(frame, frame.f_locals) for frame in _frames()]
        with thawed():
            # Not as a local variable: the frame of this call may be kept, and its variables are references.
            self._by_type = sorted_by_type(gc.get_objects())
        # Leave out modules: a C module may show the collector objects that it has freed and keeps for reuse, as
        # `_asyncio` of Python 3.12 does. `gc.get_referents` would create references to them and free them twice.
        self._modules: list[ModuleType] = self._by_type.pop(id(ModuleType), [])
        self._own: set[int] | None = None
        self._own_functions: list[FunctionType] = []
        self._classes: dict[int, type] | None = None

    def instances(self, kinds: Iterable[type]) -> list[Any]:
        """Return the objects whose exact type is one of `kinds`."""
        wanted = set(map(id, kinds))
        found = {id(thing): thing for key in wanted for thing in self._by_type.get(key, ())}
        # Many of them are not tracked by the collector: those appear only as what other objects refer to.
        holders = [thing for key, group in self._by_type.items() if key not in BARREN for thing in group]
        variables = [value for frame, names in self._frames for value in _locals(frame, names)]
        found.update((id(value), value) for value in variables if id(type(value)) in wanted)
        functions = self._of_kind(FunctionType)
        defaults = chain((each.__defaults__ for each in functions), (each.__kwdefaults__ for each in functions))
        containers: dict[int, Any] = {id(thing): thing for thing in defaults if thing}
        containers.update((id(value), value) for value in variables if id(type(value)) in UNTRACKABLE and value)
        untracked = {key: thing for key, thing in containers.items() if not gc.is_tracked(thing)}
        holders += untracked.values()
        while holders:
            inside = {}
            for thing in referents_of_kinds(holders, wanted | UNTRACKABLE):
                if id(type(thing)) in wanted:
                    found[id(thing)] = thing
                elif thing and not gc.is_tracked(thing) and id(thing) not in untracked:
                    inside[id(thing)] = thing
            untracked |= inside
            holders = list(inside.values())
        self._add_untracked(untracked, found)
        return list(found.values())

    def tracked(self, kind: type) -> list[Any]:
        """Return the objects of this exact type, which the collector tracks."""
        return self._by_type.get(id(kind), [])

    def _add_untracked(self, containers: dict[int, Any], found: Wanted) -> None:
        """Add the `containers` that hold, at some depth, one of `found`."""
        inner: AbstractSet[int] = found.keys()
        while inner:
            outer = [thing for thing in containers.values() if not inner.isdisjoint(_ids_of_referents([thing]))]
            for container in outer:
                del containers[id(container)]
                self._by_type[id(type(container))].append(container)
            inner = set(map(id, outer))

    def modules(self, names: Collection[str]) -> list[ModuleType]:
        """Return the modules with these names, also those that are not in `sys.modules` any more."""
        # A module of C code may have another name for itself: that of `_io` is "io".
        others = {id(module) for name, module in list(sys.modules.items()) if name not in names}
        found = [module for module in self._modules if id(module) not in others]
        return [module for module in found if vars(module).get("__name__") in names]

    def methods(self, owners: dict[int, Any]) -> list[Any]:
        """Return the bound methods, of C code, of `owners`."""
        return [method for method in self._of_kind(BuiltinMethodType) if id(method.__self__) in owners]

    def bound_methods(self) -> list[Any]:
        """Return all bound methods, of C and of Python code."""
        return [*self._of_kind(BuiltinMethodType), *self._of_kind(MethodType)]

    def holders(self, wanted: Wanted) -> list[Any]:
        """Return the objects that refer to one of `wanted`."""
        found = referrers(list(chain.from_iterable(self._by_type.values())), wanted.keys()) if wanted else []
        self._find_own_parts(found)
        # Not for objects of this package, which are not changed: a dict created here would move the references to their
        # values from the object to the dict.
        for holder in found:
            for attributes in () if self.is_own(holder) else _new_attributes(holder):
                self._by_type[id(dict)].append(attributes)
        return found

    def _of_kind(self, kind: type) -> list[Any]:
        """Return the objects of type `kind` or of one that derives from it."""
        groups = [group for group in self._by_type.values() if is_a(group[0], kind)]
        return [thing for group in groups for thing in group]

    def with_tuples(self, wanted: Wanted) -> list[Any]:
        """Return the functions and partials whose defaults or arguments are one of `wanted`."""
        functions = [thing for thing in self._of_kind(FunctionType) if id(thing.__defaults__) in wanted]
        return functions + [thing for thing in self._of_kind(partial) if id(arguments_of(thing)) in wanted]

    def places(self, holder: Any, wanted: Wanted) -> list[Place]:
        """Return the places in `holder` that refer to one of `wanted` and can be changed."""
        return [] if self.is_own(holder) else places_in(holder, wanted, self.class_with(holder))

    def local_places(self, wanted: Wanted) -> list[Place]:
        """Return the local variables of running functions that refer to one of `wanted`."""
        return [
            Place(id(names[name]), partial(put_local, frame, name))
            for frame, names in self._frames
            for name in frame.f_code.co_varnames
            if name not in frame.f_code.co_cellvars and id(names.get(name)) in wanted
        ]

    def forget_objects(self) -> None:
        """Stop keeping the objects alive; results that were found stay."""
        self._by_type.clear()
        self._modules.clear()
        self._own_functions.clear()

    def class_with(self, holder: Any) -> type | None:
        """Return the class whose attribute dict `holder` is, or None."""
        if not is_a(holder, dict) or not dict.__contains__(holder, "__module__"):
            return None
        if self._classes is None:
            classes = self._of_kind(type)
            # The proxies that `class_dict` returns refer to one object each.
            dicts = gc.get_referents(*map(class_dict, classes))
            self._classes = dict(zip(map(id, dicts), classes, strict=True))
        return self._classes.get(id(holder))

    def is_own(self, holder: Any) -> bool:
        """Return whether `holder`, which refers to what was wanted, belongs to this package."""
        return id(holder) in self._own_ids()

    def _find_own_parts(self, holders: list[Any]) -> None:
        """Add those of `holders` that are parts of this package's functions, for example their defaults.

        There are very many such parts, so only those are added that can be asked for.
        """
        own = self._own_ids()
        parts = {id(holder) for holder in holders if type(holder) in PARTS_OF_FUNCTIONS} - own
        # Each function also refers to the dict of builtins, which is not ours.
        parts.discard(id(vars(builtins)))
        owners = referrers(self._own_functions, parts) if parts else []
        own.update(parts.intersection(_ids_of_referents(owners)))

    def _own_ids(self) -> set[int]:
        """The ids of this package's data: dicts of its modules and classes, its objects, functions and their cells."""
        if self._own is None:
            self._own = self._find_own()
        return self._own

    def _find_own(self) -> set[int]:
        # By the module that contains them: some have the module name of what they replace.
        modules = [module for name, module in list(sys.modules.items()) if _is_ours(name) and is_a(module, ModuleType)]
        names = [attributes_of(module) for module in modules]
        own_globals = set(map(id, names))
        values = {id(value): value for found in names for value in found.values()}
        types = {key: value for key, value in values.items() if issubclass(type(value), type)}
        bases = {id(base): base for cls in types.values() for base in mro_of(cls)}
        own_bases = {key for key, base in bases.items() if is_own_class(base)}
        own_types = {key: cls for key, cls in types.items() if not own_bases.isdisjoint(map(id, mro_of(cls)))}
        all_functions = self._of_kind(FunctionType)
        functions = [function for function in all_functions if id(function.__globals__) in own_globals]
        self._own_functions = functions
        instances = [thing for key in own_types for thing in self._by_type.get(key, ())]
        own = set(values)
        own.update(own_globals, own_types, map(id, functions))
        own.update(id(cell) for function in functions for cell in function.__closure__ or ())
        own.update(map(id, instances))
        # An instance without a dict refers to its values itself. Creating the dict here would hide them: the dict is
        # not part of this survey.
        own.update(id(attributes_of(thing)) for thing in instances if _has_dict(thing))
        for cls in own_types.values():
            own.update(map(id, gc.get_referents(class_dict(cls))), map(id, class_dict(cls).values()))
        # Each module also refers to the dict of builtins, which is not ours.
        own.discard(id(vars(builtins)))
        return own


@compiled
def referrers(objects: list[Any], wanted: AbstractSet[int]) -> list[Any]:
    """Return those of `objects` that refer to an object with one of the ids `wanted`."""
    for size in CHUNKS:
        parts = [objects[start : start + size] for start in range(0, len(objects), size)]
        objects = [each for part in parts if not wanted.isdisjoint(_ids_of_referents(part)) for each in part]
    return objects


@compiled
def referents_of_kinds(holders: list[Any], kinds: AbstractSet[int]) -> list[Any]:
    """Return what `holders` refer to, as often as they do, if the id of its type is one of `kinds`."""
    found: list[Any] = []
    for start in range(0, len(holders), CHUNKS[0]):
        held = gc.get_referents(*holders[start : start + CHUNKS[0]])
        # No code of the objects or their metaclasses runs.
        found += compress(held, map(kinds.__contains__, map(id, map(type, held))))
    return found


@compiled
def sorted_by_type(objects: list[Any]) -> dict[int, list[Any]]:
    """Sort objects by the id of their type, because a metaclass may have made its classes unhashable."""
    groups: dict[int, list[Any]] = defaultdict(list)
    for key, thing in zip(map(id, map(type, objects)), objects, strict=True):
        groups[key].append(thing)
    return groups


def _ids_of_referents(holders: Iterable[Any]) -> Iterator[int]:
    """The ids of the objects that `holders` refer to."""
    return map(id, gc.get_referents(*holders))


def _has_dict(thing: Any) -> bool:
    """Return whether `thing` refers to a dict, which may be that of its attributes."""
    return dict in map(type, gc.get_referents(thing))


def _new_attributes(holder: Any) -> Iterator[Any]:
    """The dict of an instance, if it is made here: from then on it refers to the values, up to Python 3.12."""
    if not is_a(holder, WITHOUT_ATTRIBUTES):
        before = set(map(id, gc.get_referents(holder)))
        attributes = attributes_of(holder)
        if attributes is not None and id(attributes) not in before:
            yield attributes


def has_frozen() -> bool:
    """Return whether the program has called `gc.freeze`."""
    return gc.get_freeze_count() > FROZEN_BY_PYTHON


@contextmanager
def thawed() -> Iterator[None]:
    """Make frozen objects visible to the collector in the block; afterwards freeze all objects again."""
    freezes = has_frozen()
    # A collection would write to all pages of memory, and programs freeze objects to avoid just that.
    with without_collections():
        gc.unfreeze()
        try:
            yield
        finally:
            if freezes:
                gc.freeze()


@contextmanager
def without_collections() -> Iterator[None]:
    """Disable automatic collections in the block."""
    collects = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collects:
            gc.enable()


def _frames() -> Iterator[FrameType]:
    for innermost in sys._current_frames().values():
        frame: FrameType | None = innermost
        while frame is not None:
            # Calls of this package that are under way hold what the program has given them, so search their frames.
            # Leave out those of this survey: their variables refer to what it searches for.
            if frame.f_locals is not frame.f_globals and not _is_ours(frame.f_globals.get("__name__"), PATCHING):
                yield frame
            frame = frame.f_back


def _locals(frame: FrameType, names: Mapping[str, Any]) -> list[Any]:
    """The values of the local variables of a running function, which the collector does not list."""
    return [names[name] for name in frame.f_code.co_varnames if name in names]


def _is_ours(module: Any, package: str = PACKAGE) -> bool:
    return type(module) is str and (module == package or module.startswith(package + "."))


# The getter of `partial` itself: a subclass may override the access to attributes.
arguments_of: Any = vars(partial)["args"].__get__


def is_own_class(cls: type) -> bool:
    """Return whether the class belongs to this package."""
    # Recognize a class by its methods. Functions that this package has put into a foreign class are module-level or
    # local ones, so their qualified names have no class.
    return _is_ours(module_of(cls)) or any(
        type(value) is FunctionType
        and _is_ours(value.__globals__.get("__name__"))
        and "." in value.__code__.co_qualname
        and "<locals>" not in value.__code__.co_qualname
        for value in class_dict(cls).values()
    )
