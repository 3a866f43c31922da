"""Every file in examples/ runs by itself, ends by itself and prints what it is expected to."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.real

EXAMPLES = Path(__file__).parents[2] / "examples"

EXPECTED = {
    "chat_server.py": """\
Ann heard Bob has come | Cleo has come | Ann: hello | Bob: hi | Cleo: good night
Bob heard Cleo has come | Ann: hello | Bob: hi | Cleo: good night
Cleo heard Ann: hello | Bob: hi | Cleo: good night
""",
    "crawler.py": """\
/            is linked from 2 pages
/animals     is linked from 3 pages
/animals/cat is linked from 2 pages
/animals/dog is linked from 2 pages
/plants      is linked from 1 pages
/plants/oak  is linked from 1 pages
""",
    "download_all.py": "20 pages, the first: page /0 the last: page /9\n" * 5,
    "graceful_shutdown.py": """\
SIGTERM came
the server has ended
the request under way was answered early
a late request is refused
""",
    "metrics.py": "int(parked) >= 10=True, int(delays) >= 100=True, 10 buckets, 1 offload\n",
    "pipeline.py": """\
20 squares, the last one: 20 400
their sum: 2870
""",
    "port_scanner.py": "3 of the 3 ports opened here were found\n",
}


def test_every_example_has_an_expectation():
    assert sorted(EXPECTED) == sorted(path.name for path in EXAMPLES.iterdir() if path.is_file())


@pytest.mark.parametrize("name", EXPECTED)
def test_an_example_prints_what_is_expected(name, tmp_path):
    command = [sys.executable, str(EXAMPLES / name)]
    ended = subprocess.run(command, check=False, capture_output=True, text=True, timeout=200, cwd=tmp_path)

    assert "" == ended.stderr
    assert EXPECTED[name] == ended.stdout
    assert 0 == ended.returncode


@pytest.mark.parametrize("name", EXPECTED)
def test_an_example_is_short_and_plain(name):
    text = (EXAMPLES / name).read_text()

    assert 60 >= text.count("\n")
    assert not [word for word in ("async ", "await ", "patch(") if word in text]


MIGRATED = EXAMPLES / "migrated"
COLLECTED = json.dumps(dict.fromkeys(("DEBUG", "ERROR", "INFO", "WARNING"), 250))
OF_MIGRATED = {
    "monitor": """\
closed: 0 of 2 checks
good: 2 of 2 checks
hanging: 0 of 2 checks
closed down, good up, hanging down
""",
    "collector": f"""\
a worker failed: no level in 'nonsense'
a sender was idle
senders: 20
first error known: True
questions: {json.loads(COLLECTED)} no question age
at the end: {COLLECTED}
""",
}


@pytest.mark.parametrize("name", ["monitor_asyncio", "monitor_vthreads", "collector_gevent", "collector_vthreads"])
def test_a_migrated_program_prints_the_same_as_before(name, tmp_path):
    program, _, library = name.partition("_")
    if library == "gevent":
        pytest.importorskip("gevent", reason="gevent is not installed")
    command = [sys.executable, str(MIGRATED / f"{name}.py")]
    ended = subprocess.run(command, check=False, capture_output=True, text=True, timeout=200, cwd=tmp_path)

    assert (0, OF_MIGRATED[program]) == (ended.returncode, ended.stdout)
    # gevent prints the failure of a greenlet although the program handles it.
    assert library == "gevent" or "" == ended.stderr


def test_every_migrated_program_has_an_expectation():
    names = {path.stem.partition("_")[0] for path in MIGRATED.glob("*.py")}
    assert names == OF_MIGRATED.keys()
