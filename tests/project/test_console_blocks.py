"""The commands in the blocks of README, CONTRIBUTING and the pages: each runs, or the table says which test runs it.

A new command needs a row in HOW. What a block shows as the output of a command is compared with what that prints.
"""

from __future__ import annotations

import os
import re
import shlex
import signal
import subprocess
import sys
import tomllib
from itertools import takewhile
from pathlib import Path
from typing import NamedTuple

import pytest

from vthreads._core.engine import engine_name

pytestmark = pytest.mark.real

ROOT = Path(__file__).parents[2]
README = ROOT / "README.md"
PAGES = [*ROOT.glob("*.md"), *(page for name in ("docs", "examples", "tests") for page in (ROOT / name).rglob("*.md"))]
BLOCK = re.compile(r"^ *```(?:console|bash)\n(.*?)^ *```$", re.M | re.S)
# Ends a hang.
SECONDS = 200
# `make test` passes these on to what it starts.
OF_MAKE = ("MAKEFLAGS", "MFLAGS", "MAKELEVEL", "ARGS", "VENV", "PYTHON")
ENVIRONMENT = {name: value for name, value in os.environ.items() if name not in OF_MAKE}
ENVIRONMENT["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])


class Command(NamedTuple):
    """A command of a block: the text without its comment, and the lines that the block shows as its output."""

    text: str
    output: list[str]


def commands_in(block):
    """The commands of a block: its lines with a prompt, and without any prompt all lines."""
    lines = block.splitlines()
    prompt = "$ " if any(line.startswith("$ ") for line in lines) else ""
    for number, line in enumerate(lines):
        if line.startswith(prompt):
            text = line.removeprefix(prompt).partition("  # ")[0].rstrip()
            output = takewhile(lambda line: not line.startswith(prompt), lines[number + 1 :]) if prompt else ()
            yield Command(text, list(output))


def commands():
    """The commands of all pages, each once, preferably with output."""
    found = [command for page in PAGES for block in BLOCK.findall(page.read_text()) for command in commands_in(block)]
    return list({command.text: command for command in sorted(found, key=lambda command: len(command.output))}.values())


def shape(lines):
    """The lines without what differs between two runs."""
    return [re.sub(r"\d+", "N", line.replace(f"{engine_name} engine", "accelerated engine")) for line in lines]


def outcome(arguments, folder):
    """The status, the output and the errors of a process."""
    done = subprocess.run(
        arguments, check=False, capture_output=True, text=True, timeout=SECONDS, cwd=folder, env=ENVIRONMENT
    )
    return done.returncode, done.stdout, done.stderr


# --- ways to run a command


def in_a_shell(command, folder):
    """Run it where a file `program.py` is."""
    (folder / "program.py").write_text("import threading\nthreading.Thread(target=print, args=['done']).start()\n")
    status, out, err = outcome(["bash", "-c", command.text], folder)
    assert (0, "") == (status, err)
    assert (command.output or ["done"] if "program.py" in command.text else []) == out.splitlines()


def without_effect(command, folder):
    """Print what `make` would do."""
    status, out, err = outcome(["bash", "-c", re.sub(r"\bmake\b", "make -n", command.text, count=1)], ROOT)
    assert (0, "") == (status, err)
    # It passes on the arguments for other programs.
    arguments = [word.removeprefix("ARGS=") for word in shlex.split(command.text) if word.startswith("ARGS=")]
    assert all(text in out for text in arguments)
    if any("tests/" in text for text in arguments):
        without_running_tests(command, folder)


def without_running_tests(command, folder):
    """Search the files for a test with the word after `-k`."""
    arguments = re.search(r"-m pytest ([^|]*)|ARGS='(.*?)'", command.text)
    words = shlex.split(arguments[1] or arguments[2])
    paths = [ROOT / word for word in words if word.startswith("tests/")]
    files = [file for path in paths for file in ([path] if path.suffix else path.rglob("test_*.py"))]
    assert files
    name = words[words.index("-k") + 1] if "-k" in words else ""
    assert re.search(rf"def test_\w*{name}", "".join(file.read_text() for file in files))


def until_it_serves(command, folder):
    """Start the server on a free port, with the application in the README, and stop it."""
    module = re.search(r" ([\w.]+):\w+", command.text)[1]
    file = folder.joinpath(*module.split(".")).with_suffix(".py")
    file.parent.mkdir(exist_ok=True)
    (file.parent / "__init__.py").touch()
    application = re.search(
        r"^```python\n(.*?Flask\(.*?)^```$", README.read_text().partition("## A server")[2], re.M | re.S
    )
    file.write_text(application[1] + "\n\ndef make_app():\n    return app\n")
    text = command.text.replace(":8000", ":0") if "--bind" in command.text else f"{command.text} --bind 127.0.0.1:0"
    with subprocess.Popen(
        shlex.split(text), cwd=folder, env=ENVIRONMENT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as process:
        try:
            first = process.stdout.readline()
            assert shape(command.output or ["serving on http://127.0.0.1:1"])[0] in shape([first])[0]
            process.send_signal(signal.SIGTERM)
            assert 0 == process.wait(SECONDS)
        finally:
            process.kill()


# --- why a command does not run here

NETWORK = "it needs a package index; .ci/test-wheel installs"
LONG = "it takes minutes; tests/project/test_benchmarks.py runs each benchmark once"
ONE_MOMENT = "the output is of one moment of a program under load"
SHELL = "only the shell runs it; its syntax is checked"
BY_DEBUG = "tests/debug/test_hang_page.py"
BY_DRIVERS = "tests/drivers/test_service.py"

HOW = {
    "pip install vthreads": NETWORK,
    "python3 -m venv .venv && . .venv/bin/activate": NETWORK,
    "python3 -m venv .venv && .venv/bin/pip install '../..[serve]' -r requirements.txt": NETWORK,
    'pip install "vthreads[serve]" flask "psycopg[binary,pool]" redis': NETWORK,
    "mkdir shop && touch shop/__init__.py": in_a_shell,
    "python -m vthreads run --threads program.py": in_a_shell,
    "python -m vthreads run --threads --preempt 0.01 program.py": in_a_shell,
    "python -m vthreads run --debug program.py": in_a_shell,
    "VTHREADS_STALLS=0.1 python program.py": in_a_shell,
    "python -m vthreads serve shop:app --bind 127.0.0.1:8000": until_it_serves,
    "python -m vthreads serve shop:app --workers 4": until_it_serves,
    "python -m vthreads serve shop.site:make_app --factory --workers 4": until_it_serves,
    "gunicorn -k vthreads.integrations.gunicorn.Worker -w 4 shop.site:app": "tests/serve/test_gunicorn.py",
    "export CELERY_CUSTOM_WORKER_POOL=vthreads.integrations.celery:TaskPool": "tests/drivers/test_celery.py",
    "celery -A program worker -P custom -c 1000": "tests/drivers/test_celery.py",
    "VTHREADS_DEBUG=1 python service.py &": BY_DEBUG,
    "python -m vthreads dump 415": BY_DEBUG,
    "python -m vthreads dump 1648": BY_DEBUG,
    "python -m vthreads top 29002 --once --slowest 6": BY_DEBUG,
    "python -m vthreads dump 29002": ONE_MOMENT,
    "python -m vthreads top 24436 --once --slowest 6": ONE_MOMENT,
    "python -m vthreads dump 24436": ONE_MOMENT,
    "python -m shop": BY_DRIVERS,
    ".venv/bin/python -m shop": BY_DRIVERS,
    ".venv/bin/python -m websockets ws://127.0.0.1:8000/news": BY_DRIVERS,
    'curl http://127.0.0.1:8000/orders --json \'{"item": "teapot"}\'': BY_DRIVERS,
    "curl http://127.0.0.1:8000/orders/1": BY_DRIVERS,
    "curl http://127.0.0.1:8000/report": BY_DRIVERS,
    "curl http://127.0.0.1:9900/metrics": BY_DRIVERS,
    "python benchmarks/where.py > where.md": LONG,
    "python benchmarks/fill.py docs/explanation/performance.md curves.json results.json where.md": LONG,
    "trap 'kill $busy' EXIT": SHELL,
    'for i in 1 2; do while :; do :; done & busy="$busy $!"; done': SHELL,
}


def way_of(text):
    """How a command is run, or why not; None if the table has no row for it."""
    if re.match(r"(\w+=\S+ )*make ", text):
        return without_effect
    if "-m pytest " in text:
        return without_running_tests
    if text.startswith("python -m benchmarks.compare "):
        return LONG
    return HOW.get(text)


RUN = [command for command in commands() if callable(way_of(command.text))]


@pytest.mark.parametrize("command", RUN, ids=lambda command: command.text)
def test_a_command_on_a_page_runs_and_prints_what_the_page_shows(command, tmp_path):
    way_of(command.text)(command, tmp_path)


def test_each_command_on_a_page_has_a_row():
    texts = {command.text for command in commands()}
    assert [] == sorted(text for text in texts if way_of(text) is None), "add a row to HOW"
    assert [] == sorted(HOW.keys() - texts), "remove the row from HOW"


def test_the_modules_that_run_other_commands_exist():
    assert [] == [way for way in HOW.values() if str(way).startswith("tests/") and not (ROOT / way).exists()]


def test_the_syntax_of_each_block_is_that_of_a_shell(tmp_path):
    text = "\n".join(command.text for command in commands())
    assert (0, "", "") == outcome(["bash", "-n", "-c", text], tmp_path)


def test_the_readme_names_the_pythons_of_the_classifiers():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    versions = re.findall(r"Python :: (3\.\d+)", "\n".join(project["classifiers"]))
    assert f"# Python {versions[0]} to {versions[-1]}; " in README.read_text()
