"""The second part of the tutorial: its steps run in order, each with the files that the page has shown so far."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

for package in ("flask", "redis", "psycopg", "psycopg_pool"):
    pytest.importorskip(package, reason=f"{package} is not installed")

pytestmark = [pytest.mark.server("PostgreSQL"), pytest.mark.server("Redis"), pytest.mark.real]

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "tutorial" / "service.md"
SERVICE = ROOT / "examples" / "service"

# A block of Python; a mark before it makes it the content of a file.
BLOCK = re.compile(r"(?:^<!-- file: (?P<file>\S+) -->\n\n)?^```python\n(?P<code>.*?)^```$", re.M | re.S)


def blocks():
    """Each block of the page: the file that it is, or None; its code; the number of lines before it."""
    text = PAGE.read_text()
    found = [(match["file"], match["code"], text.count("\n", 0, match.start("code"))) for match in BLOCK.finditer(text)]
    assert text.count("```python") == len(found)
    return found


def test_the_files_on_the_page_are_those_of_the_example():
    shown = {file: code for file, code, _ in blocks() if file}
    files = [path for path in (SERVICE / "shop").glob("*.py") if path.name != "__init__.py"]
    assert {path.relative_to(SERVICE).as_posix(): path.read_text() for path in files} == shown


# Runs in a separate process. A file is written when the page shows it, so no step can use a later one.
PROGRAM = """
from pathlib import Path

Path("shop").mkdir(exist_ok=True)
Path("shop/__init__.py").touch()
for file, code, line in BLOCKS:
    if file:
        Path(file).write_text(code)
    else:
        exec(compile("\\n" * line + code, PAGE, "exec"))
"""


def test_each_step_runs_with_the_files_up_to_it_and_once_more(tmp_path, new_database):
    """A reader runs all steps again after each new one, with what earlier runs have left in the servers."""
    settings = {
        "DATABASE_URL": new_database,
        "SHOP_PREFIX": new_database.rpartition("/")[2],
        "SHOP_BIND": "127.0.0.1:0",
        "SHOP_ADMIN": "127.0.0.1:0",
    }
    (tmp_path / "program.py").write_text(f"BLOCKS, PAGE = {blocks()!r}, {str(PAGE)!r}\n{PROGRAM}")
    assert [(0, []), (0, [])] == [outcome_in(tmp_path, settings) for _ in range(2)]


def outcome_in(folder, settings):
    """The status of a process that runs the program in the folder, and its errors."""
    ended = subprocess.run(
        [sys.executable, "program.py"],
        check=False,
        capture_output=True,
        text=True,
        timeout=120,
        cwd=folder,
        env={**os.environ, **settings},
    )
    # The step about the cache shows what it does without Redis.
    errors = [line for line in ended.stderr.splitlines() if not line.startswith("not read: ")]
    return ended.returncode, errors
