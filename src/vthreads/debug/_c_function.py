"""Find the C function that a frame is calling, from its bytecode, since a C function has no frame."""

from __future__ import annotations

import builtins
import dis
from inspect import getattr_static
from types import BuiltinFunctionType, FrameType, FunctionType, MethodType, ModuleType
from typing import Any

__all__ = ["NAMELESS", "c_function_of"]

NAMES = ("LOAD_GLOBAL", "LOAD_NAME", "LOAD_FAST", "LOAD_DEREF", "LOAD_CLASSDEREF")
ATTRIBUTES = ("LOAD_ATTR", "LOAD_METHOD")
# In hot code of Python 3.11, the specialized form of PRECALL makes the call of a C function.
CALLS = ("CALL", "PRECALL")
UNKNOWN = object()
# Placeholder for the result of a call, subscript or similar expression, which has no name.
NAMELESS = "…"


def c_function_of(frame: FrameType) -> str | None:
    """Return the C function that `frame` is calling, as "module.name"; None if there is none.

    Runs no code of the user. A name that only a property could resolve is returned as it is written in the source. A
    method of an unnamed object is returned as "….name", and may also be a Python function.
    """
    names = _called_names(frame)
    if not names:
        return None
    value = _value_of(names, frame)
    if value is UNKNOWN:
        return ".".join(names)
    if isinstance(value, (FunctionType, MethodType)):
        # A Python function that has not started or has returned: otherwise its frame would be the innermost.
        return None
    return _full_name(value) or ".".join(names)


def _called_names(frame: FrameType) -> list[str]:
    """Return the name that is being called with its attributes, for example `["time", "sleep"]`."""
    call: Any = None
    before = []
    for instruction in dis.get_instructions(frame.f_code):
        if instruction.offset == frame.f_lasti:
            call = instruction
            break
        before.append(instruction)
    if call is None or not call.opname.startswith(CALLS) or call.positions is None or call.positions.lineno is None:
        return []
    # The call has the same start position as the expression that is called.
    start = call.positions.lineno, call.positions.col_offset
    names = [NAMELESS]
    for instruction in before:
        positions = instruction.positions
        if positions is None or (positions.lineno, positions.col_offset) != start:
            continue
        if instruction.opname.startswith(NAMES):
            names = [str(instruction.argval)]
        elif instruction.opname in ATTRIBUTES:
            names.append(str(instruction.argval))
        elif instruction.opname.startswith(("CALL", "BINARY_")):
            names = [NAMELESS]
    return names


def _value_of(names: list[str], frame: FrameType) -> Any:
    value: Any = UNKNOWN
    for namespace in (frame.f_locals, frame.f_globals, vars(builtins)):
        if names[0] in namespace:
            value = namespace[names[0]]
            break
    for name in names[1:]:
        if value is UNKNOWN:
            return UNKNOWN
        value = vars(value).get(name, UNKNOWN) if isinstance(value, ModuleType) else _attribute(value, name)
    return value


def _attribute(value: Any, name: str) -> Any:
    found = getattr_static(value, name, UNKNOWN)
    # Descriptors of C functions, and functions, can be used as they are. A property would run code of the user.
    return UNKNOWN if isinstance(found, property) else found


def _full_name(value: Any) -> str | None:
    name = getattr(value, "__qualname__", None)
    if not isinstance(name, str):
        return None
    owner = getattr(value, "__objclass__", None)
    if owner is None and isinstance(value, BuiltinFunctionType) and value.__self__ is not None:
        owner = value.__self__ if isinstance(value.__self__, type) else type(value.__self__)
        if owner is ModuleType:
            owner = None
    module = getattr(value if owner is None else owner, "__module__", None)
    return name if module in (None, "builtins") else f"{module}.{name}"
