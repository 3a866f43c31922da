"""Who holds a lock that does not know it: told by the `with` statements that threads are in.

A plain lock has no owner, and noting one at each acquire would cost every program something. But a thread inside
`with lock:` shows it: the source says which block its frame is in, and the frame what the name means. A lock that was
taken by `acquire()` is not found.
"""

from __future__ import annotations

import ast
import threading
from collections.abc import Iterable, Iterator
from types import CodeType, FrameType, ModuleType
from typing import Any

from ..conditions import Condition
from ..mutex import Mutex, RwLock
from .sources import lines_of

__all__ = ["held_in"]

Block = ast.With | ast.AsyncWith
Position = tuple[int, int]

# The blocks of a file by the function that they stand in: its name and first line.
Blocks = dict[tuple[str, int], list[Block]]
# With the lines they were read from, since a file may change.
_blocks: dict[str, tuple[list[str], Blocks]] = {}

SCOPES = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef


def held_in(frame: FrameType) -> Iterator[int]:
    """The `id` of each lock in whose `with` block `frame` is."""
    code = frame.f_code
    blocks = _blocks_of(code.co_filename, frame.f_globals).get((code.co_name, code.co_firstlineno))
    positions = _positions(code, frame.f_lasti) if blocks else []
    if not positions:
        return
    for block in blocks or ():
        for item in _entered(block, positions):
            yield from _identities(_value_of(item.context_expr, frame))


# --- which blocks


def _blocks_of(filename: str, module_globals: dict[str, Any]) -> Blocks:
    lines = lines_of(filename, module_globals)
    known = _blocks.get(filename)
    if known is None or known[0] is not lines:
        known = _blocks[filename] = lines, _parse(lines)
    return known[1]


def _parse(lines: list[str]) -> Blocks:
    try:
        tree = ast.parse("".join(lines))
    except SyntaxError:
        # Not the source of what runs, or not Python's.
        return {}
    blocks: Blocks = {}
    nodes: list[tuple[ast.AST, tuple[str, int]]] = [(tree, ("<module>", 1))]
    while nodes:
        node, scope = nodes.pop()
        if isinstance(node, SCOPES):
            # The code of what is decorated begins with its first decorator.
            scope = node.name, min([node.lineno, *(decorator.lineno for decorator in node.decorator_list)])
        elif isinstance(node, ast.Lambda):
            scope = "<lambda>", node.lineno
        elif isinstance(node, Block):
            blocks.setdefault(scope, []).append(node)
        nodes.extend((child, scope) for child in ast.iter_child_nodes(node))
    return blocks


def _positions(code: CodeType, instruction: int) -> list[Position]:
    """Line and column of the instruction at which a frame is, and of those that stand before it, backwards."""
    positions = list(code.co_positions())[: instruction // 2 + 1]
    return [(line, column) for line, _, column, _ in reversed(positions) if line is not None and column is not None]


def _entered(block: Block, positions: list[Position]) -> list[ast.withitem]:
    """The items of `block` that have been entered by whoever is at the first of `positions`."""
    if _is_in(block.body[0], block.body[-1], positions[0]):
        return block.items
    if positions[0] != (block.lineno, block.col_offset) and _item_at(block, positions[0]) is None:
        return []
    # Entering an item has its position only from Python 3.13 on, before that the block's: what was evaluated last?
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


# --- which objects


def _value_of(expression: ast.expr, frame: FrameType) -> Any:
    """What names and attributes in `expression` mean in `frame`, without running any code; None if it takes more."""
    match expression:
        case ast.Name(id=name):
            return frame.f_locals.get(name, frame.f_globals.get(name))
        case ast.Attribute(value=inner, attr=name):
            return _attribute(_value_of(inner, frame), name)
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


def _identities(value: Any) -> list[int]:
    if isinstance(value, Mutex | Condition | threading.Condition):
        return [id(value), id(vars(value)["_lock"])]
    return [id(value)]
