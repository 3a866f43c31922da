"""Sphinx extension: check the names that the reference lists by hand, in tables.

They are the environment variables of the package, and the arguments, fixtures and options of the pytest plugin. A name
that is in the source and not in its table, or the other way round, is a warning, which fails `make docs`.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from sphinx.application import Sphinx
from sphinx.util import logging

ROOT = Path(__file__).parents[2]
SOURCE = ROOT / "src"
REFERENCE = ROOT / "docs" / "reference"


def environment_variables() -> set[str]:
    """Those that the source names, but those of the options of `serve`, which are derived from the options."""
    texts = (path.read_text() for path in SOURCE.rglob("*.py"))
    return {name for text in texts for name in re.findall(r"\bVTHREADS_(?!SERVE_)[A-Z_]+\b", text)}


def names_of_plugin() -> set[str]:
    """The arguments of its mark, its fixtures and its options. Not imported: the site is built without pytest."""
    text = (SOURCE / "pytest_vthreads" / "__init__.py").read_text()
    assigned = (node for node in ast.parse(text).body if isinstance(node, ast.Assign))
    values = {ast.unparse(node.targets[0]): node.value for node in assigned}
    arguments = re.findall(r"(\w+)=", ast.literal_eval(values["MARK"]))
    return {*arguments, *ast.literal_eval(values["__all__"]), *re.findall(r'addini\("(\w+)"', text)}


def differences() -> Iterator[str]:
    """A sentence for each name that only the source or only its table has."""
    for page, pattern, names in [
        ("environment", r"^\| `(VTHREADS_[A-Z_]+)`", environment_variables()),
        ("pytest", r"^\| `(\w+)`", names_of_plugin()),
    ]:
        listed = set(re.findall(pattern, (REFERENCE / f"{page}.md").read_text(), re.MULTILINE))
        for name in sorted(names - listed):
            yield f"{name} is not in the table of docs/reference/{page}.md"
        for name in sorted(listed - names):
            yield f"docs/reference/{page}.md lists {name}, which the source does not have"


def check(*_: Any) -> None:
    """Warn of each difference."""
    for difference in differences():
        logging.getLogger(__name__).warning("%s", difference)


def setup(app: Sphinx) -> dict[str, Any]:
    """Check when all pages are read."""
    app.connect("env-check-consistency", check)
    return {"parallel_read_safe": True}
