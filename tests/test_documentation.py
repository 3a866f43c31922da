"""The pages under docs: their Python runs, and what they list of the patch is what the patch replaces."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from vthreads.patching import table

DOCS = Path(__file__).parents[1] / "docs"
PAGES = sorted(DOCS.rglob("*.md"))
BLOCKING_CALLS = DOCS / "how-to" / "blocking-calls.md"

# What the page names by the class.
BY_CLASS = {"ssl.SSLSocket"}
# The leaves of these are private: the page names what users call.
PUBLIC_NAMES = {
    "threading.Thread.join",
    "threading.RLock",
    "threading.Semaphore.acquire",
}


def replaced_names():
    """What the patch replaces, as users call it; private leaves are left out."""
    for replacement in [*table.functions(), *table.methods()]:
        holder, name = replacement.holder, replacement.name
        where = holder.__name__ if not isinstance(holder, type) else f"{holder.__module__}.{holder.__qualname__}"
        where = where.replace("concurrent.futures._base", "concurrent.futures")
        if where.startswith("vthreads") or "SSL" in where or where in BY_CLASS:
            yield "ssl.SSLSocket"
        elif not any(part.startswith("_") for part in (*where.split("."), name)):
            yield f"{where}.{name}"


def exists(name):
    """Whether this platform and this Python have it."""
    module, _, rest = name.partition(".")
    found = sys.modules.get(module)
    if name.startswith("concurrent.futures."):
        found, rest = sys.modules["concurrent.futures"], name.removeprefix("concurrent.futures.")
    for part in rest.split("."):
        found = getattr(found, part, None)
    return found is not None


def test_the_page_lists_what_is_replaced_and_nothing_else():
    text = BLOCKING_CALLS.read_text()
    start, end = text.index("## What parks"), text.index("## Threads")
    listed = {
        name
        for name in re.findall(r"`([a-z_]+(?:\.\w+)+)`", text[start:end])
        if name.split(".")[0]
        in (
            "builtins",
            "io",
            "time",
            "select",
            "socket",
            "ssl",
            "os",
            "fcntl",
            "signal",
            "threading",
            "queue",
            "linecache",
        )
        or name.startswith(("concurrent.futures.", "subprocess."))
    }
    replaced = set(replaced_names()) | PUBLIC_NAMES
    assert set() == replaced - listed, "replaced, but not on the page"
    assert set() == {name for name in listed - replaced if exists(name)}, "on the page, but not replaced"


def blocks(page):
    """The Python of a page as one program that keeps its line numbers."""
    text, lines = page.read_text(), []
    for match in re.finditer("^```python\n(.*?)^```$", text, re.M | re.S):
        before = text.count("\n", 0, match.start(1))
        lines += [""] * (before - len(lines)) + match[1].splitlines()
    return "\n".join(lines)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(DOCS).as_posix())
def test_the_python_of_the_page_runs(page, tmp_path):
    (tmp_path / "program.py").write_text(blocks(page))
    # What a page writes stays out of the checkout.
    done = subprocess.run(
        [sys.executable, "-W", "error", "program.py"],
        check=False,
        capture_output=True,
        text=True,
        timeout=60,
        cwd=tmp_path,
    )
    assert (0, "") == (done.returncode, done.stderr)
