"""Read the type and the attributes of an object without running its code.

Lazy objects, proxies and metaclasses implement `isinstance`, `vars` and attribute access in Python code, which may
evaluate something or raise. Code that looks through all objects of the process reads them with these functions.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import GetSetDescriptorType, MemberDescriptorType, UnionType
from typing import Any

__all__ = ["attributes_of", "class_dict", "classes_of", "is_a", "module_of", "mro_of"]

# The getters of `type` itself, which a metaclass cannot override: `cls.__dict__`, `cls.__module__`, `cls.__mro__`.
class_dict: Callable[[type], Mapping[str, Any]] = vars(type)["__dict__"].__get__
module_of: Callable[[type], Any] = vars(type)["__module__"].__get__
mro_of: Callable[[type], tuple[type, ...]] = vars(type)["__mro__"].__get__


def is_a(value: Any, types: type | UnionType) -> bool:
    """`isinstance` by the real type only: a proxy reports the class of its target, or raises."""
    return issubclass(type(value), types)


def attributes_of(value: Any) -> Any:
    """`vars(value)`, without running code of `value`; None if it has no `__dict__`."""
    for cls in classes_of(value):
        getter = class_dict(cls).get("__dict__")
        # A getter of any other type is Python code of the program.
        if type(getter) is GetSetDescriptorType or type(getter) is MemberDescriptorType:
            return getter.__get__(value)
    return None


def classes_of(value: Any) -> tuple[type, ...]:
    """The class of `value` and its base classes, in method resolution order."""
    return mro_of(type(value))
