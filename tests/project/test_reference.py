"""The pages under docs/reference name all public names, variables and options; `make docs` checks generated parts."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import pytest_vthreads
import vthreads

ROOT = Path(__file__).parents[2]
SOURCE = ROOT / "src"
REFERENCE = ROOT / "docs" / "reference"


def test_every_public_name_has_a_place_in_the_reference():
    placed = re.findall(r"\bvthreads\.(\w+)", "\n".join(re.findall(r"^\.\. public:: .*$", page("vthreads"), re.M)))
    assert sorted(vthreads.__all__) == sorted([*placed, "errors"]), "list a new name in docs/reference/vthreads.md"


def test_every_module_with_public_names_has_a_place_in_the_reference():
    described = set(re.findall(r"^\.\. public-modules:: vthreads\.(\w+)", page("modules"), re.M))
    folders = {path.parent.name for path in (SOURCE / "vthreads").glob("[a-z]*/__init__.py")}
    assert folders == described, "list a new module in docs/reference/modules.md"


def test_every_environment_variable_is_in_the_reference():
    """Those of the options of `serve` are derived from the names of the options, as the page says."""
    read = {name for text in sources() for name in re.findall(r"\bVTHREADS_(?!SERVE_)[A-Z_]+\b", text)}
    assert "`VTHREADS_SERVE_CONFIG`" in page("environment")
    assert read == set(re.findall(r"^\| `(VTHREADS_[A-Z_]+)`", page("environment"), re.M))


def test_every_option_and_fixture_of_the_plugin_is_in_the_reference():
    plugin = Path(pytest_vthreads.__file__).read_text()
    mark = re.findall(r"(\w+)=", pytest_vthreads.MARK)
    options = re.findall(r'addini\("(\w+)"', plugin)
    assert [*mark, *sorted(pytest_vthreads.__all__, reverse=True), *options] == re.findall(
        r"^\| `(\w+)`", page("pytest"), re.M
    )


@pytest.mark.parametrize("name", ["index.md", "reference/index.md"])
def test_an_index_links_only_pages_that_exist(name):
    text = (ROOT / "docs" / name).read_text()
    links = re.findall(r"\]\(([\w/.-]+\.md)\)", text)
    assert links
    assert [] == [link for link in links if not (ROOT / "docs" / name).parent.joinpath(link).exists()]


def page(name):
    return (REFERENCE / f"{name}.md").read_text()


def sources():
    for path in SOURCE.rglob("*.py"):
        yield path.read_text()
