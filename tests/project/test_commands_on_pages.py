"""What README, CONTRIBUTING and the pages name exists: subcommands with options, targets, extras, files, names."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
import tomllib
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
# Blocks of commands. A line of output, which does not begin with one of the programs below, is passed over.
BLOCK = re.compile(r"^ *```(?:console|bash|dockerfile|ini)\n(.*?)^ *```$", re.M | re.S)
SPAN = re.compile("`([^`\n]+)`")
NAME = re.compile(r"(?<![\w./])vthreads(?:\.(?!pyx?\b)\w+)+(?![\w/])")
SETTING = re.compile(r"^(?:[A-Z_]+=\S+ +)+")
BEFORE = re.compile(r"^\s*(?:\$ +|ExecStart=\S*/(?=python ))?")


@cache
def commands():
    """Each command of the pages, with the name of the first page that has it."""
    found = {}
    for page in PAGES:
        text = page.read_text()
        lines = [line for block in BLOCK.findall(text) for line in block.splitlines()]
        for line in [*lines, *SPAN.findall(text)]:
            command = SETTING.sub("", BEFORE.sub("", line)).partition(" #")[0].rstrip(" &")
            found.setdefault(command, page.relative_to(ROOT).as_posix())
    return found


def those_of(*programs):
    """The commands that start one of `programs`, as lists of words."""
    chosen = [command for command in commands() if command.startswith(programs)]
    assert chosen, f"no page has a command of {programs}"
    return [shlex.split(command) for command in chosen]


@cache
def help_of(*command):
    asked = [sys.executable, "-m", *command, "--help"]
    return subprocess.run(asked, check=True, stdout=subprocess.PIPE, text=True, timeout=60).stdout


def options_in(words):
    """The options among `words`, up to the name of the program that gets the rest."""
    return [word.partition("=")[0] for word in words if re.match("--?[a-z]", word)]


def test_each_subcommand_exists_and_has_the_options():
    wrong = []
    for words in those_of("python -m vthreads"):
        name, *arguments = [*words[3:], ""]
        known = help_of("vthreads", *([name] if name and not name.startswith("-") else []))
        wanted = [name] if name.startswith("-") else options_in(arguments)
        wrong += [(words, option) for option in wanted if not re.search(rf"(?<![\w-]){option}\b", known)]
    assert wrong == []


def test_each_target_of_make_exists():
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.M))
    for words in those_of("make "):
        named = [word for word in words[1:] if "=" not in word]
        assert set(named) <= targets, words


def test_each_extra_exists():
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())
    extras = set(settings["project"]["optional-dependencies"])
    named = {
        extra
        for page in PAGES
        for listed in re.findall(r"(?:vthreads|\.)\[([a-z,]+)\]\"", page.read_text())
        for extra in listed.split(",")
    }
    assert named
    assert named <= extras


def test_each_script_exists():
    for words in those_of("python benchmarks/", ".ci/"):
        script = next(word for word in words if "/" in word)
        assert (ROOT / script).exists(), words


def test_each_benchmark_exists():
    workloads = {folder.name for folder in (ROOT / "benchmarks" / "macro").iterdir() if folder.is_dir()}
    for words in those_of("python -m benchmarks.compare"):
        named = words[3 : next((at for at, word in enumerate(words) if word.startswith("--")), None)]
        assert set(named) <= workloads, words


# In a process of its own, since the import of an integration may patch. What is in a module that needs a package which
# is not installed here counts as existing.
PRINT_MISSING = """
import sys
from importlib import import_module
import vthreads

def exists(name):
    found, path = vthreads, "vthreads"
    for part in name.split(".")[1:]:
        path = f"{path}.{part}"
        if not hasattr(found, part):
            try:
                import_module(path)
            except ImportError as error:
                return error.name != path
        found = getattr(found, part)
    return True

print(*[name for name in sys.argv[1:] if not exists(name)])
"""


def test_each_name_of_this_package_exists():
    named = sorted({name for command in commands() for name in NAME.findall(command)})
    asked = [sys.executable, "-c", PRINT_MISSING, *named]
    assert named
    assert "\n" == subprocess.run(asked, check=True, stdout=subprocess.PIPE, text=True, timeout=60).stdout
