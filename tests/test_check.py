"""`python -m vthreads check`: what it finds in a program, and that it does not run the main part."""

from __future__ import annotations

import subprocess
import sys

import pytest

from vthreads._cli import check

pytestmark = pytest.mark.real


def checked(tmp_path, program, *modules):
    """The status and the output of the check of a program; `modules` are empty modules that it can import."""
    for name in modules:
        folder = tmp_path
        for part in name.split("."):
            folder /= part
            folder.mkdir(exist_ok=True)
            (folder / "__init__.py").touch()
    (tmp_path / "program.py").write_text(program)
    command = [sys.executable, "-m", "vthreads", "check", "program.py"]
    ended = subprocess.run(command, check=False, capture_output=True, text=True, timeout=200, cwd=tmp_path)
    return ended.returncode, ended.stdout, ended.stderr


def test_a_program_that_parks_has_no_findings(tmp_path):
    program = "import threading, queue, urllib.request\nfrom time import sleep\nlock = threading.Lock()\n"
    status, out, err = checked(tmp_path, program)
    assert (0, "") == (status, err)
    assert out.startswith("0 findings in ")


def test_the_main_part_does_not_run(tmp_path):
    status, out, err = checked(tmp_path, "import json\nif __name__ == '__main__':\n    raise SystemExit('ran')\n")
    assert (0, "") == (status, err)


def test_a_lock_that_is_held_is_found_with_its_place(tmp_path):
    status, out, err = checked(tmp_path, "import threading\nlock = threading.Lock()\nlock.acquire()\n")
    assert (1, "") == (status, err)
    assert "captured early: <" in out
    assert "held by a thread; in __checked__.lock; call vthreads.patch()" in out


def test_an_original_in_a_tuple_is_found(tmp_path):
    status, out, err = checked(tmp_path, "import time\nCALLS = (time.sleep,)\nclass A:\n    calls = (time.sleep,)\n")
    assert (1, "") == (status, err)
    assert "captured early: __checked__.CALLS contains the original <built-in function sleep>" in out
    assert "captured early: __checked__.A.calls contains" in out


@pytest.mark.parametrize(("table", "kind"), [(check.PINNING, "pins its carrier"), (check.LOOPS, "cannot be shared")])
def test_what_the_tables_list_is_found(tmp_path, table, kind):
    names = sorted(table.keys() - sys.stdlib_module_names)
    status, out, err = checked(tmp_path, "".join(f"import {name}\n" for name in names), *names)
    assert (1, "") == (status, err)
    assert [f"{kind}: {name}: {table[name]}" for name in names] == out.splitlines()[:-1]


def test_sqlite3_is_found(tmp_path):
    status, out, err = checked(tmp_path, "import sqlite3\n")
    assert (1, "") == (status, err)
    assert "pins its carrier: sqlite3: " in out


def test_the_reactor_of_asyncio_can_be_shared(tmp_path):
    reactors = ["twisted.internet.reactor", "twisted.internet.asyncioreactor"]
    status, out, err = checked(tmp_path, "".join(f"import {name}\n" for name in reactors), *reactors)
    assert (0, "") == (status, err)


def test_a_failing_import_shows_its_traceback(tmp_path):
    status, out, err = checked(tmp_path, "import no_such_module\n")
    assert 1 == status
    assert "No module named 'no_such_module'" in err


def test_a_module_is_named_by_m(tmp_path):
    (tmp_path / "program.py").write_text("import sqlite3\n")
    command = [sys.executable, "-m", "vthreads", "check", "-m", "program"]
    ended = subprocess.run(command, check=False, capture_output=True, text=True, timeout=200, cwd=tmp_path)
    assert (1, "") == (ended.returncode, ended.stderr)
    assert "pins its carrier: sqlite3" in ended.stdout
