"""The parts of the compiled engine keep to the layers of `pyproject.toml`, which import-linter cannot see in them.

A part `x/compiled/y.pxi` is in the layer of the module `x/y.py` that it repeats; the parts in `_core/engine/compiled`
are in the layer of the engine.
"""

from __future__ import annotations

import functools
import re
import tomllib
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).parents[2]
PACKAGE = CHECKOUT / "src" / "vthreads"
ROOT = PACKAGE / "_core/engine/accelerated.pyx"
PARTS = sorted(path.relative_to(PACKAGE).as_posix() for path in PACKAGE.rglob("compiled/*.pxi"))

pytestmark = pytest.mark.skipif(not ROOT.exists(), reason="an installed package has no sources of the compiled engine")

# A part of moderate size can be read as a whole.
MOST_LINES = 500
TEXT = re.compile(r'"""(?:.|\n)*?"""|"(?:\\.|[^"\\\n])*"|' + r"'(?:\\.|[^'\\\n])*'|#.*")
# The definitions of a name of the module: a class, a function, an import, a variable.
CLASS = re.compile(r"^cdef class (\w+)", re.M)
FUNCTION = re.compile(r"^(?:def|cpdef|cdef)\b[^=\n(]*?(\w+)\(", re.M)
VARIABLES = re.compile(r"^cdef (?!class|enum|extern|inline)[\w.]+(?: \w+)* \*{0,2}(\w+ *(?:=.*|,.*)?)$", re.M)
IMPORT = re.compile(r"^(?:from [\w.]+ )?c?import (.+)$", re.M)
EXTERN = re.compile(r"^cdef (?:extern from|enum).*:\n((?:(?:    .*)?\n)+)", re.M)
METHOD = re.compile(r"^( +(?:def|cpdef|cdef)\b[^=\n(]*?)\w+\(", re.M)
NAME = re.compile(r"(?<![\w.])[A-Za-z_]\w*")
OWN_MODULE = re.compile(r"^(?:from|import) (vthreads[\w.]*)", re.M)
MENTIONED = re.compile(r"vthreads\.[\w.]+")


@functools.cache
def contracts():
    """The layers of each package that has a contract, topmost first, as sets of the names of its modules."""
    tool = tomllib.loads((CHECKOUT / "pyproject.toml").read_text())["tool"]["importlinter"]
    return {
        package: [set(re.split(r"\s*[:|]\s*", layer)) for layer in contract["layers"]]
        for contract in tool["contracts"]
        if contract["type"] == "layers"
        for package in contract["containers"]
    }


def module_of(part):
    """The module that `part` repeats."""
    folder, name = part.removesuffix(".pxi").rsplit("/", 1)
    above = ["vthreads", *folder.split("/")[:-1]]
    return ".".join(above) if above[-1] == "engine" else ".".join([*above, name])


def layer_of(module, package, layers):
    """The number of the layer of `package` that `module` is in, from the top; None if it is not in the package."""
    if not module.startswith(f"{package}."):
        return None
    name = module.removeprefix(f"{package}.").split(".")[0]
    found = [number for number, layer in enumerate(layers) if name in layer]
    assert found, f"{module} is in no layer of {package}"
    return found[0]


def may_use(user, used):
    """Whether the layers allow code of the module `user` to use a name of the module `used`."""
    for package, layers in contracts().items():
        above, below = layer_of(user, package, layers), layer_of(used, package, layers)
        if above is not None and below is not None and below < above:
            return False
    return True


def code_of(part):
    """The text of `part` without comments and strings."""
    return TEXT.sub("''", (PACKAGE / part).read_text())


def names_defined_in(part):
    code = code_of(part)
    names = {*CLASS.findall(code), *FUNCTION.findall(code)}
    for line in VARIABLES.findall(code):
        names.update(NAME.findall(re.sub(r"=[^,]*(?:\([^)]*\))?", "", line)))
    for line in IMPORT.findall(code):
        names.update(each.split(" as ")[-1].strip() for each in line.split(","))
    for block in EXTERN.findall(code):
        names.update(re.findall(r"(\w+)(?=\()", block), re.findall(r"\b([A-Z_]{4,}|vt_\w+)\b", block))
    return names


def names_used_in(part):
    return set(NAME.findall(METHOD.sub(r"\1(", code_of(part))))


# A name that several parts import is not the name of one of them.
DEFINED = {}
for _part in PARTS:
    for _name in names_defined_in(_part):
        DEFINED.setdefault(_name, set()).add(_part)


def test_names_are_found_in_the_parts():
    expected = {
        "Fiber": "_core/engine/compiled/fiber.pxi",
        "vt_epoll_wait": "_core/engine/compiled/descriptors.pxi",
        "mode_version": "_core/engine/compiled/descriptors.pxi",
        "SCRATCH": "_core/engine/compiled/scheduler.pxi",
        "WaitQueue": "_core/compiled/wait_queue.pxi",
        "MemberFields": "_core/compiled/members.pxi",
        "changing_futures": "_core/compiled/future.pxi",
        "_check": "_core/compiled/current.pxi",
        "sleep_here": "compiled/_timeouts.pxi",
        "vt_sendto": "_calls/net/compiled/socket.pxi",
        "managed": "_calls/net/compiled/attempts.pxi",
    }
    assert {name: {part} for name, part in expected.items()} == {name: DEFINED.get(name) for name in expected}


@pytest.mark.parametrize("part", PARTS)
def test_a_part_uses_names_of_its_own_layer_and_those_below(part):
    user = module_of(part)
    upwards = {
        f"{name} of {' and '.join(sorted(DEFINED[name]))}"
        for name in names_used_in(part) & DEFINED.keys()
        if not any(may_use(user, module_of(other)) for other in DEFINED[name])
    }
    assert not upwards, f"{part} uses names of layers above its own; let these hand over what it needs: engine.supply"


@pytest.mark.parametrize("part", PARTS)
def test_a_part_imports_and_mentions_modules_of_its_own_layer_and_those_below(part):
    user, text = module_of(part), (PACKAGE / part).read_text()
    named = {*OWN_MODULE.findall(text), *MENTIONED.findall(text)} - {"vthreads"}
    assert [] == sorted(module for module in named if not may_use(user, module))


@pytest.mark.parametrize("part", [*PARTS, "_core/engine/accelerated.pyx"])
def test_no_part_looks_into_modules_for_names(part):
    assert not re.search(r"__globals__|\bmodules\[|import_module|sys\.modules", code_of(part)), (
        f"{part} takes names out of a module at run time; the module hands them over: engine.supply"
    )


@pytest.mark.parametrize("part", PARTS)
def test_a_part_repeats_a_module_that_exists(part):
    module = module_of(part).replace(".", "/")
    assert any((CHECKOUT / "src" / f"{module}{end}").exists() for end in (".py", "/__init__.py"))


@pytest.mark.parametrize("part", PARTS)
def test_a_part_can_be_read_as_a_whole(part):
    assert len((PACKAGE / part).read_text().splitlines()) <= MOST_LINES, "split the part by noun, as its module"


def test_the_root_includes_every_part_once_and_a_layer_after_those_below():
    included = re.findall(r'^include "(.+)"$', ROOT.read_text(), re.M)
    assert sorted(included) == PARTS
    modules = [module_of(part) for part in included]
    above = {
        f"{module} before {later}"
        for place, module in enumerate(modules)
        for later in modules[place:]
        if not may_use(later, module)
    }
    # Below the engine, but a part of them uses its C interfaces.
    assert {module for each in above for module in each.split(" before ")} <= {
        "vthreads._core.engine",
        "vthreads._core.arguments",
        "vthreads._core.contexts",
        "vthreads._core.idents",
    }
