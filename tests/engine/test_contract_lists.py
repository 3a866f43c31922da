"""The lists in the docstring of the engine agree with both engines, and with the modules above that set fields."""

from __future__ import annotations

import ast
import re
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

import pytest

import vthreads
from vthreads._core import engine
from vthreads._core.engine import reference

SOURCE = Path(vthreads.__file__).parent
ENGINES = ["reference", *(["accelerated"] if find_spec("vthreads._core.engine.accelerated") else [])]
# The lists, by the words that begin the sentence above each.
NAMES = "An engine defines:"
OF_SCHEDULER = ("A scheduler has, for any OS thread:", "and, for its own OS thread:", "Modules above set these fields")
OF_FIBER = ("A fiber has, for any OS thread:", "and, for itself:", "A subclass of `Fiber` defines these")
SET_ABOVE = OF_SCHEDULER[2]


def rows(beginning):
    """The rows of the list below the sentence that begins with `beginning`: name and text."""
    after = engine.__doc__.split(f"\n{beginning}", 1)[1].split("\n\n", 2)[1]
    return re.findall(r"^    (\w+) +(.*(?:\n {6,}.*)*)", after, re.M)


def names(*beginnings):
    return [name for beginning in beginnings for name, _ in rows(beginning)]


def assigned(node):
    """The names and attributes that a statement assigns."""
    targets = node.targets if isinstance(node, ast.Assign) else [node.target]
    for target in targets:
        yield from target.elts if isinstance(target, ast.Tuple) else [target]


def setters(field):
    """The modules above the engine that set `field` of a scheduler, without `vthreads.`."""
    found = set()
    for path in SOURCE.rglob("*.py"):
        module = path.relative_to(SOURCE).with_suffix("").as_posix()
        if module.startswith("_core/engine/") or field not in (text := path.read_text()):
            continue
        for node in ast.walk(ast.parse(text)):
            if not isinstance(node, (ast.Assign, ast.AugAssign, ast.AnnAssign)):
                continue
            for target in assigned(node):
                if isinstance(target, ast.Attribute) and target.attr == field:
                    holder = ast.unparse(target.value).rpartition(".")[2]
                    found.update({module} if holder in ("scheduler", "_scheduler") else ())
    return found


def test_the_list_of_names_is_that_of_the_reference_engine():
    assert sorted(reference.__all__) == sorted(names(NAMES))


@pytest.mark.parametrize("name", ENGINES)
def test_each_engine_has_what_the_lists_name(name):
    module = import_module(f"vthreads._core.engine.{name}")
    missing = [each for each in names(NAMES) if not hasattr(module, each)]
    made = vthreads.run(vthreads.current_thread) if engine.engine_name == name else None
    if made is not None:
        missing += [f"Scheduler.{each}" for each in names(*OF_SCHEDULER) if not hasattr(made._scheduler, each)]
        missing += [f"Fiber.{each}" for each in names(*OF_FIBER) if not hasattr(made, each)]
    assert [] == missing


def test_each_public_attribute_of_a_scheduler_is_listed():
    scheduler = vthreads.run(lambda: vthreads.current_thread()._scheduler)
    public = {name for name in dir(scheduler) if not name.startswith("_")}
    assert public == {name for name in names(*OF_SCHEDULER) if not name.startswith("_")}


@pytest.mark.parametrize("field", names(SET_ABOVE))
def test_a_field_of_the_scheduler_is_set_by_the_modules_that_the_list_names(field):
    text = dict(rows(SET_ABOVE))[field]
    named = re.match(r"\(([\w/, \n]+)\)", text)
    assert setters(field) == set(re.split(r",\s+", named[1]))
