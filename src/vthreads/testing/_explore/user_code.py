"""Determine which code belongs to the program under test, and which of its instructions affect other threads."""

from __future__ import annotations

import dis
import site
import sysconfig
from collections.abc import Callable, Iterable
from functools import lru_cache
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

from .own_distribution import own_modules

__all__ = ["UserCode", "leaves_a_block", "shared_instructions"]


def _installed() -> tuple[str, ...]:
    """Return the directories of code that the tester has not written: standard library, packages, this package."""
    paths = {sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib")}
    paths |= {site.getusersitepackages(), str(Path(__file__).parents[2])}
    return tuple(sorted(path.rstrip("/") + "/" for path in paths if path))


FOREIGN = (*_installed(), "<frozen ")
# The directories of installed packages, which may be below those of the standard library.
PACKAGES = tuple(
    path.rstrip("/") + "/"
    for path in {sysconfig.get_path("purelib"), sysconfig.get_path("platlib"), site.getusersitepackages()}
    if path
)
PACKAGE = __name__.partition(".")[0]
# Prefix of the module names of generated methods of named tuples.
GENERATED = "namedtuple_"


class UserCode:
    """Distinguishes the code of the program under test from other code.

    Args:
        modules: prefixes of the names of its modules; None: all modules outside the standard library, the directories
            of installed packages, and this package.
        fn: the function under test. The distribution to which it belongs counts as the program, even if installed.
    """

    def __init__(self, modules: Iterable[str] | None, fn: Callable[..., Any]) -> None:
        self._own = set(own_modules(fn, lambda path: path.startswith(PACKAGES))) - {PACKAGE}
        # Names of installed packages outside the program that were seen in a frame.
        self.passed_over: set[str] = set()
        self._modules = None if modules is None else tuple(modules)
        self._known: dict[CodeType, bool] = {}

    def __contains__(self, frame: FrameType) -> bool:
        """Return whether `frame` runs code of the program under test."""
        known = self._known.get(frame.f_code)
        if known is None:
            known = self._known[frame.f_code] = self._is_user(frame)
        return known

    def has_run(self, code: CodeType) -> bool:
        """Return whether `code` belongs to the program, according to the frames seen so far."""
        return self._known.get(code, False)

    def _is_user(self, frame: FrameType) -> bool:
        name = str(frame.f_globals.get("__name__", ""))
        if self._modules is None:
            path = frame.f_code.co_filename
            if path.startswith("<"):
                # Generated code, for example of dataclasses: use the file of the module.
                path = frame.f_globals.get("__file__", path)
            if name.partition(".")[0] in self._own:
                return True
            if path.startswith(PACKAGES) and name.partition(".")[0] != PACKAGE and not _is_import(frame.f_back):
                self.passed_over.add(name.partition(".")[0])
            return not path.startswith(FOREIGN) and not name.startswith(GENERATED)
        return any(name == prefix or name.startswith(prefix + ".") for prefix in self._modules)


def _is_import(caller: FrameType | None) -> bool:
    """Return whether `caller` is the import system: then the frame is part of an import, not of a thread's work."""
    return caller is not None and str(caller.f_globals.get("__name__")).startswith("importlib._bootstrap")


# Prefixes of instructions that touch only their own frame. No other thread can notice whether a thread stops before
# one of these or before the next shared one, so only the latter is a point.
PRIVATE = (
    "BUILD_", "CACHE", "COPY", "DUP_", "END_", "JUMP_", "KW_NAMES", "LIST_TO_TUPLE", "LOAD_ASSERTION", "LOAD_CLOSURE",
    "LOAD_COMMON_CONSTANT", "LOAD_CONST", "LOAD_FAST", "LOAD_SMALL_INT", "MAKE_", "NOP", "NOT_TAKEN", "POP_", "PRECALL",
    "PUSH_", "RESUME", "RETURN_", "ROT_", "SET_FUNCTION_ATTRIBUTE", "STORE_FAST", "SWAP", "UNARY_NOT",
)  # fmt: skip
# Exceptions: instructions with these prefixes that do more.
NOT_PRIVATE = ("BUILD_STRING", "COPY_DICT", "RETURN_GENERATOR")
# Instructions that test an object for truth, which may be a list that other threads change. Later Python versions test
# by `TO_BOOL`, and these instructions then see a bool.
ASKING = ("JUMP_IF_", "POP_JUMP_", "UNARY_NOT") if "TO_BOOL" not in dis.opmap else ()
# Instructions that leave a bool for them (unless a comparison returns another type), and jumps that compare with None.
LEAVES_A_BOOL = ("COMPARE_OP", "CONTAINS_OP", "IS_OP", "UNARY_NOT", "CHECK_EXC_MATCH")
# Instructions at the start of a loop that are points already: of a loop over an iterator, and of an await.
SHARED_BEGINNINGS = ("FOR_ITER", "SEND")
ASKS_FOR_NONE = ("_IF_NONE", "_IF_NOT_NONE")


def shared_instructions(code: CodeType) -> frozenset[int]:
    """Return the offsets of the instructions of `code` that may read or change what other threads see.

    Backward jumps of loops are included although they touch nothing: a thread that waits in a loop for another thread
    must let it run there.
    """
    shared, start, before = [], None, ""
    instructions = list(dis.get_instructions(code))
    names = {instruction.offset: instruction.opname for instruction in instructions}
    for instruction in instructions:
        start = instruction.offset if start is None else start
        if instruction.opname == "EXTENDED_ARG":
            continue
        if _is_shared(instruction.opname, before) or _goes_back(instruction, names):
            # A tracer reports an instruction with a wide argument either at its start or at its end.
            shared += [start, instruction.offset]
        start, before = None, instruction.opname
    return frozenset(shared)


def _is_shared(name: str, before: str) -> bool:
    if name.startswith(ASKING):
        return before not in LEAVES_A_BOOL and not name.endswith(ASKS_FOR_NONE)
    return not name.startswith(PRIVATE) or name.startswith(NOT_PRIVATE)


def _goes_back(instruction: dis.Instruction, names: dict[int, str]) -> bool:
    """Return whether the instruction jumps backwards, to a place that is not a point already."""
    if instruction.opcode not in dis.hasjrel or instruction.argval > instruction.offset:
        return False
    return names.get(instruction.argval) not in SHARED_BEGINNINGS


def leaves_a_block(frame: FrameType) -> bool:
    """Return whether `frame` is about to call the `__exit__` of a `with` statement, or calls it, without an exception.

    The exception table does not cover these instructions: with an exception raised there, `__exit__` is never called.
    """
    return frame.f_lasti in _exits(frame.f_code)


# The instructions that load None: the second one since Python 3.15.
CONSTANTS = ("LOAD_CONST", "LOAD_COMMON_CONSTANT")
# The instructions between a value to return, or the `__exit__` of an inner block, and the next `__exit__`.
MOVES = {"NOP", "SWAP", "POP_TOP"}


@lru_cache(128)
def _exits(code: CodeType) -> frozenset[int]:
    """Return the offsets of the calls with the three arguments None, and of the instructions that prepare them.

    `return` in a block moves its value below `__exit__` first, which has the line of the `with` statement already.
    """
    exits: list[int] = []
    before: list[int] = []
    loads = 0
    for instruction in dis.get_instructions(code):
        if instruction.opname == "CALL" and loads >= 3:
            exits += [*before, instruction.offset]
        if instruction.opname.startswith(CONSTANTS) and instruction.argval is None:
            loads += 1
        elif instruction.opname in MOVES:
            loads = 0
        elif instruction.opname != "PRECALL":
            before, loads = [], 0
            continue
        before.append(instruction.offset)
    return frozenset(exits)
