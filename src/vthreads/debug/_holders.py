"""Find the holder of a lock that does not record it, and what a program shows of how it uses a lock.

A thread inside `with lock:` holds the lock: the source shows in which block its frame is, and the frame contains the
values of the names. A function that calls both `lock.acquire()` and `lock.release()` releases what it has acquired,
but only the lock knows whether it holds it now.
"""

from __future__ import annotations

import ast
import threading
from collections import OrderedDict, defaultdict
from collections.abc import Iterable, Iterator
from types import CodeType, FrameType, ModuleType
from typing import Any

from .._sync.conditions import Condition
from .._sync.mutex import Mutex, RwLock
from ._sources import lines_of, lines_of_command

__all__ = ["held_in", "released_by_blocks_in", "released_in"]

Block = ast.With | ast.AsyncWith
Position = tuple[int, int]


class _Function:
    """The blocks and lock calls in the source of a function."""

    def __init__(self) -> None:
        self.blocks: list[Block] = []
        # The expressions whose methods `acquire` and `release` it calls, by their source.
        self.calls: dict[str, dict[str, ast.expr]] = {"acquire": {}, "release": {}}


# The functions of a file by name and first line.
Functions = dict[tuple[str, int], _Function]
# By file name, with the lines from which they were parsed, since a file may change.
_functions: dict[str, tuple[list[str], Functions]] = {}

# Types whose items can be read without code of the program: a subclass may have another `__getitem__`, and another key
# another `__eq__`.
SEQUENCES = {list, tuple}
DICTS = {dict, defaultdict, OrderedDict}
KEYS = {int, str, bytes, bool, type(None)}

SCOPES = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef


def held_in(frame: FrameType) -> Iterator[int]:
    """Yield the `id` of each lock in whose `with` block `frame` is."""
    for value in _values_entered(frame):
        yield from _identities(value)


def released_by_blocks_in(frame: FrameType) -> Iterator[int]:
    """Yield the `id` of each object that the end of a `with` block of `frame` may release.

    That is the object of the block, and its attributes: a class with a lock often acquires it in `__enter__`.
    """
    for value in _values_entered(frame):
        yield from _identities(value)
        attributes = getattr(value, "__dict__", None)
        if type(attributes) is dict:
            yield from map(id, attributes.values())


def _values_entered(frame: FrameType) -> Iterator[Any]:
    function = _function_of(frame)
    positions = _positions(frame.f_code, frame.f_lasti) if function.blocks else []
    if positions:
        for block in function.blocks:
            for item in _entered(block, positions):
                yield _value_of(item.context_expr, frame)


def released_in(frame: FrameType) -> Iterator[int]:
    """Yield the `id` of each lock that the function of `frame` acquires and releases by calls."""
    calls = _function_of(frame).calls
    for source, expression in calls["release"].items():
        if source in calls["acquire"]:
            yield from _identities(_value_of(expression, frame))


# --- the source


def _function_of(frame: FrameType) -> _Function:
    code = frame.f_code
    # All executed strings have the same name, under which `linecache` of Python 3.13 has the program.
    is_string = code.co_filename == "<string>"
    lines = lines_of_command(code) if is_string else lines_of(code.co_filename, frame.f_globals)
    known = _functions.get(code.co_filename)
    if known is None or known[0] is not lines:
        known = _functions[code.co_filename] = lines, _parse(lines)
    return known[1].get((code.co_name, code.co_firstlineno)) or _Function()


def _parse(lines: list[str]) -> Functions:
    try:
        tree = ast.parse("".join(lines))
    except SyntaxError:
        # The file does not contain the source of this code, or no Python code.
        return {}
    functions: Functions = {}
    nodes: list[tuple[ast.AST, tuple[str, int]]] = [(tree, ("<module>", 1))]
    while nodes:
        node, scope = nodes.pop()
        if isinstance(node, SCOPES):
            # The code of a decorated function starts at the line of its first decorator.
            scope = node.name, min([node.lineno, *(decorator.lineno for decorator in node.decorator_list)])
        elif isinstance(node, ast.Lambda):
            scope = "<lambda>", node.lineno
        else:
            _add(node, scope, functions)
        nodes.extend((child, scope) for child in ast.iter_child_nodes(node))
    return functions


def _add(node: ast.AST, scope: tuple[str, int], functions: Functions) -> None:
    match node:
        case ast.With() | ast.AsyncWith():
            functions.setdefault(scope, _Function()).blocks.append(node)
        case ast.Call(func=ast.Attribute(value=owner, attr="acquire" | "release" as method)):
            functions.setdefault(scope, _Function()).calls[method][ast.unparse(owner)] = owner


def _positions(code: CodeType, instruction: int) -> list[Position]:
    """Return line and column of the current instruction of a frame, and of those before it, backwards."""
    positions = list(code.co_positions())[: instruction // 2 + 1]
    return [(line, column) for line, _, column, _ in reversed(positions) if line is not None and column is not None]


def _entered(block: Block, positions: list[Position]) -> list[ast.withitem]:
    """Return the items of `block` that a frame at the first of `positions` has entered."""
    if _is_in(block.body[0], block.body[-1], positions[0]):
        return block.items
    if positions[0] != (block.lineno, block.col_offset) and _item_at(block, positions[0]) is None:
        return []
    # Up to Python 3.12, entering an item has the position of the block. Then the last evaluated item shows how far the
    # frame is.
    for position in positions:
        number = _item_at(block, position)
        if number is not None:
            return block.items[:number]
        if _is_in(block.body[0], block.body[-1], position):
            break
    return []


def _item_at(block: Block, position: Position) -> int | None:
    expressions = enumerate(item.context_expr for item in block.items)
    return next((number for number, expression in expressions if _is_in(expression, expression, position)), None)


def _is_in(first: ast.expr | ast.stmt, last: ast.expr | ast.stmt, position: Position) -> bool:
    return (first.lineno, first.col_offset) <= position < (last.end_lineno or 0, last.end_col_offset or 0)


# --- the objects


def _value_of(expression: ast.expr, frame: FrameType) -> Any:
    """Evaluate `expression` as in `frame`, without running code; None for what this cannot evaluate.

    It can evaluate names, constants, attributes and items.
    """
    match expression:
        case ast.Name(id=name):
            return frame.f_locals.get(name, frame.f_globals.get(name))
        case ast.Constant(value=value):
            return value
        case ast.Attribute(value=inner, attr=name):
            return _attribute(_value_of(inner, frame), name)
        case ast.Subscript(value=inner, slice=index):
            return _item(_value_of(inner, frame), _value_of(index, frame))
        case ast.Call(func=ast.Attribute(value=inner)):
            value = _value_of(inner, frame)
            return value if isinstance(value, Mutex | RwLock) else None
    return None


def _attribute(value: Any, name: str) -> Any:
    holders: Iterable[Any] = [value] if isinstance(value, ModuleType) else [value, *type(value).__mro__]
    for holder in holders:
        attributes = getattr(holder, "__dict__", None)
        if attributes is not None and name in attributes:
            return attributes[name]
    return None


def _item(container: Any, index: Any) -> Any:
    """Return an item of a list, tuple or dict; None if another class could run code for it."""
    if type(container) in SEQUENCES and type(index) is int:
        return container[index] if -len(container) <= index < len(container) else None
    if type(container) in DICTS and type(index) in KEYS:
        return dict.get(container, index)
    return None


def _identities(value: Any) -> list[int]:
    if isinstance(value, Mutex | Condition | threading.Condition):
        return [id(value), id(vars(value)["_lock"])]
    return [id(value)]
