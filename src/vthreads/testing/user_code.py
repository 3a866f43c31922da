"""Which code belongs to the program under test, and which of its instructions others can notice."""

from __future__ import annotations

import dis
import site
import sysconfig
from collections.abc import Iterable
from pathlib import Path
from types import CodeType, FrameType

__all__ = ["UserCode", "shared_instructions"]


def _installed() -> tuple[str, ...]:
    """The directories of what was not written by whoever tests: the standard library, packages, this package."""
    paths = {sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib")}
    paths |= {site.getusersitepackages(), str(Path(__file__).parents[1])}
    return tuple(sorted(path.rstrip("/") + "/" for path in paths if path))


FOREIGN = (*_installed(), "<frozen ")
# The modules, in name only, of the methods of named tuples.
GENERATED = "namedtuple_"


class UserCode:
    """Tells the code of the program under test from everybody else's.

    Args:
        modules: prefixes of the names of its modules; None: all that are outside the standard library, the directories
            of installed packages, and this package.
    """

    def __init__(self, modules: Iterable[str] | None) -> None:
        self._modules = None if modules is None else tuple(modules)
        self._known: dict[CodeType, bool] = {}

    def __contains__(self, frame: FrameType) -> bool:
        """Whether `frame` runs code of the program under test."""
        known = self._known.get(frame.f_code)
        if known is None:
            known = self._known[frame.f_code] = self._is_user(frame)
        return known

    def has_run(self, code: CodeType) -> bool:
        """Whether `code` is of the program, as it was seen in a frame."""
        return self._known.get(code, False)

    def _is_user(self, frame: FrameType) -> bool:
        name = str(frame.f_globals.get("__name__", ""))
        if self._modules is None:
            path = frame.f_code.co_filename
            if path.startswith("<"):
                # Generated; dataclasses do so in the module of the class.
                path = frame.f_globals.get("__file__", path)
            return not path.startswith(FOREIGN) and not name.startswith(GENERATED)
        return any(name == prefix or name.startswith(prefix + ".") for prefix in self._modules)


# Instructions that touch nothing but the frame they are in, by the beginning of their names. To stop before one of
# these is to stop before the next one that is not: no other thread could tell the difference.
PRIVATE = (
    "BUILD_", "CACHE", "COPY", "DUP_", "END_", "JUMP_", "KW_NAMES", "LIST_TO_TUPLE", "LOAD_ASSERTION", "LOAD_CLOSURE",
    "LOAD_COMMON_CONSTANT", "LOAD_CONST", "LOAD_FAST", "LOAD_SMALL_INT", "MAKE_", "NOP", "NOT_TAKEN", "POP_", "PRECALL",
    "PUSH_", "RESUME", "RETURN_", "ROT_", "SET_FUNCTION_ATTRIBUTE", "STORE_FAST", "SWAP", "UNARY_NOT",
)  # fmt: skip
# Of these, some that touch more.
NOT_PRIVATE = ("BUILD_STRING", "COPY_DICT", "RETURN_GENERATOR")
# Some that ask an object whether it is true, which may be a list that others change; later versions ask by `TO_BOOL`,
# and these find a bool.
ASKING = ("JUMP_IF_", "POP_JUMP_", "UNARY_NOT") if "TO_BOOL" not in dis.opmap else ()
# What leaves a bool for them, unless somebody compares by something else, and jumps that ask for None.
LEAVES_A_BOOL = ("COMPARE_OP", "CONTAINS_OP", "IS_OP", "UNARY_NOT", "CHECK_EXC_MATCH")
# What a loop goes back to, and where it may be stopped as well: one over an iterator, and one that awaits.
SHARED_BEGINNINGS = ("FOR_ITER", "SEND")
ASKS_FOR_NONE = ("_IF_NONE", "_IF_NOT_NONE")


def shared_instructions(code: CodeType) -> frozenset[int]:
    """The offsets of the instructions of `code` that may read or change what other threads see.

    Those that go back in a loop are among them, although they do not: whoever waits in a loop for another thread lets
    it run there.
    """
    shared, start, before = [], None, ""
    instructions = list(dis.get_instructions(code))
    names = {instruction.offset: instruction.opname for instruction in instructions}
    for instruction in instructions:
        start = instruction.offset if start is None else start
        if instruction.opname == "EXTENDED_ARG":
            continue
        if _is_shared(instruction.opname, before) or _goes_back(instruction, names):
            # A tracer is told of an instruction with a wide argument at its beginning or at its end.
            shared += [start, instruction.offset]
        start, before = None, instruction.opname
    return frozenset(shared)


def _is_shared(name: str, before: str) -> bool:
    if name.startswith(ASKING):
        return before not in LEAVES_A_BOOL and not name.endswith(ASKS_FOR_NONE)
    return not name.startswith(PRIVATE) or name.startswith(NOT_PRIVATE)


def _goes_back(instruction: dis.Instruction, names: dict[int, str]) -> bool:
    """Whether it jumps to where it, or something before it, comes again; not if that is shared anyway."""
    if instruction.opcode not in dis.hasjrel or instruction.argval > instruction.offset:
        return False
    return names.get(instruction.argval) not in SHARED_BEGINNINGS
