"""No module of the package imports itself through others."""

from __future__ import annotations

import ast
from graphlib import TopologicalSorter
from pathlib import Path

import vthreads

ROOT = Path(vthreads.__file__).parents[1]


def modules():
    for path in sorted((ROOT / "vthreads").rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        yield ".".join(parts[:-1] if parts[-1] == "__init__" else parts), path


def import_statements(nodes):
    """Those that run when the module is imported, and those for annotations."""
    for node in nodes:
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            yield node
        elif not isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)):
            yield from import_statements(ast.iter_child_nodes(node))


def imported_by(name, path, known):
    """The modules of `known` that the module imports: of `from a import b`, `a.b` if that is a module, else `a`."""
    package = name if path.name == "__init__.py" else name.rpartition(".")[0]
    for statement in import_statements(ast.parse(path.read_text("utf-8")).body):
        if isinstance(statement, ast.Import):
            found = [alias.name for alias in statement.names]
        else:
            above = package.split(".")[: -(statement.level - 1) or None] if statement.level else []
            origin = ".".join([*above, *filter(None, [statement.module])])
            inner = [f"{origin}.{alias.name}" for alias in statement.names]
            found = [module if module in known else origin for module in inner]
        yield from (module for module in found if module in known and module != name)


def test_there_is_no_circle_of_imports():
    known = dict(modules())
    # It raises a CycleError that names the modules of a circle.
    TopologicalSorter({name: set(imported_by(name, path, known)) for name, path in known.items()}).prepare()
