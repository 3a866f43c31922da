"""The paths in pyproject.toml exist: ruff ignores a pattern that matches nothing, without a message."""

from __future__ import annotations

import re
import tomllib
from itertools import product
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SETTINGS = tomllib.loads((ROOT / "pyproject.toml").read_text())
PATTERNS = SETTINGS["tool"]["ruff"]["lint"]["per-file-ignores"]


def alternatives(pattern):
    """The patterns that one with `{a,b}` stands for."""
    parts = [part[1:-1].split(",") if part[0] == "{" else [part] for part in re.findall(r"\{.*?\}|[^{]+", pattern)]
    return ["".join(chosen) for chosen in product(*parts)]


def test_a_pattern_with_braces_stands_for_each_alternative():
    assert ["a/x.py", "a/y.py", "b/x.py", "b/y.py"] == alternatives("{a,b}/{x,y}.py")
    assert ["a/**"] == alternatives("a/**")


@pytest.mark.parametrize("pattern", PATTERNS)
def test_each_file_whose_rules_differ_exists(pattern):
    assert [] == [one for one in alternatives(pattern) if not any(ROOT.glob(one))]
