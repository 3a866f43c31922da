"""Every benchmark runs once, and does as much as it says.

What a peer or a server is missing for is left out and checked to be missing. With VTHREADS_REQUIRE_PEERS=1, as in
`make test-benchmarks`, everything has to be there.
"""

import importlib.util
import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from itertools import repeat
from pathlib import Path
from xml.etree import ElementTree

import pytest

import vthreads
from benchmarks.compare.page import page_of
from benchmarks.compare.results import Results, Row, Without
from benchmarks.compare.rounds import Choice, measure_all
from benchmarks.compare.workloads import Workload, workload_names

ROOT = Path(__file__).parents[2]
BENCHMARKS = ROOT / "benchmarks"


def load(name):
    spec = importlib.util.spec_from_file_location(f"benchmark_{name}", BENCHMARKS / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


# --- small operations of vthreads alone

micro = load("micro")


@pytest.mark.parametrize("name", micro.BENCHMARKS)
def test_each_small_benchmark_does_what_it_counts(name):
    function, _ = micro.BENCHMARKS[name]
    assert micro.cpu_seconds(7, function, 1) >= 0


@pytest.mark.real
@pytest.mark.parametrize("name", micro.WHOLE)
def test_what_measures_by_itself_answers(name):
    function, _ = micro.WHOLE[name]
    assert function(1) > 0


def test_parked_threads_are_counted():
    assert vthreads.run(load("parked").measure, 10, patch=False)["seconds to make"] > 0


# --- workloads and their peers

WORKLOADS = {name: Workload(BENCHMARKS, name) for name in workload_names(BENCHMARKS)}
ONE_WORKLOAD, *OTHERS = WORKLOADS


def results():
    return Results(
        date="2026-07-30T12:00:00+00:00", command="bench", rounds=1, machine={"cores": 2}, versions={"vthreads": "0"}
    )


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """Where the C programs are built, once for all."""
    return tmp_path_factory.mktemp("built")


def measured(workload, built):
    """Each peer once. They are not compared here, so they need not take turns."""
    found = results()
    with ThreadPoolExecutor(6) as pool:
        choices = [Choice([peer], [1], 1, 1, built, 30) for peer in workload.peers]
        list(pool.map(measure_all, repeat([workload]), choices, repeat(found)))
    return found


def is_missing(why):
    """Whether what a measurement was left out for is not there indeed."""
    if package := re.fullmatch("(.+) is not installed", why):
        return importlib.util.find_spec(package[1]) is None
    if server := re.match(r"no \w+ at (.+):(\d+) ", why):
        with socket.socket() as asking:
            return asking.connect_ex((server[1], int(server[2]))) != 0
    if why.startswith("there is no C compiler"):
        compiler = shlex.split(os.environ.get("CC", "")) or ["cc"]
        return shutil.which(compiler[0]) is None
    return why.startswith("the compiled engine is not part of this installation")


@pytest.mark.thorough
@pytest.mark.real
@pytest.mark.parametrize("name", [ONE_WORKLOAD, *(pytest.param(name, marks=pytest.mark.thorough) for name in OTHERS)])
def test_each_peer_does_what_it_counts(name, built):
    workload = WORKLOADS[name]
    found = measured(workload, built)

    assert [] == found.failed
    if os.environ.get("VTHREADS_REQUIRE_PEERS") == "1":
        assert [] == found.left_out
    assert [] == [without for without in found.left_out if not is_missing(without.why)]
    there = workload.peers.keys() - {without.peer for without in found.left_out}
    assert {(peer, figure): 1 for peer in there for figure in workload.figures} == {
        (row.peer, row.figure): len(values) for row, values in found.values.items()
    }


WORKLOADS_IN_C = ["echo", "idle_connections"]


def measured_in_c(name, built):
    found = results()
    measure_all([WORKLOADS[name]], Choice(["limit"], [1], 1, 1, built, 60), found)
    return found


@pytest.mark.real
@pytest.mark.skipif(shutil.which("cc") is None, reason="no C compiler")
@pytest.mark.parametrize("name", WORKLOADS_IN_C)
def test_the_compiler_may_be_named_with_arguments(name, monkeypatch, tmp_path):
    monkeypatch.setenv("CC", "env -u NOTHING cc")
    found = measured_in_c(name, tmp_path)

    assert ([], []) == (found.failed, found.left_out)


@pytest.mark.real
@pytest.mark.parametrize("name", WORKLOADS_IN_C)
def test_a_peer_in_c_is_left_out_where_no_compiler_is(name, monkeypatch, tmp_path):
    monkeypatch.setenv("CC", "no-such-compiler --fast")
    found = measured_in_c(name, tmp_path)

    why = "there is no C compiler (cc, or what CC names)"
    assert ([], [Without(name, 1, "limit", why)]) == (found.failed, found.left_out)


# --- what may go wrong

PEERS = {
    "does_less": "def run(size, operations, watch):\n    with watch(): pass\n    return operations - 1\n",
    "breaks": "def run(size, operations, watch):\n    raise ValueError('it broke')\n",
    "crashes": "import os\ndef run(size, operations, watch):\n    os.kill(os.getpid(), 9)\n",
    "is_not_there": "import no_such_package\n",
    "cannot_do_more": "AT_MOST = 3\ndef run(size, operations, watch):\n    with watch(): pass\n    return operations\n",
    "says_who_it_is": (
        "import os, pathlib, time\n"
        "def run(size, operations, watch):\n"
        "    pathlib.Path(__file__).with_suffix('.pid').write_text(f'{os.getpid()}\\n')\n"
        "    time.sleep(3600)\n"
    ),
    "hangs": "import time\ndef run(size, operations, watch):\n    time.sleep(3600)\n",
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with one workload, whose peers do what they are called."""
    folder = tmp_path_factory.mktemp("benchmarks")
    shutil.copytree(BENCHMARKS / "macro", folder / "macro", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(BENCHMARKS / "macro" / "spawn_join", folder / "macro" / "trials")
    for name, program in PEERS.items():
        (folder / "macro" / "trials" / f"{name}.py").write_text(program)
    return folder


def bench(folder, *options, workload="trials"):
    command = [sys.executable, "-m", "benchmarks.compare", workload, "--folder", folder, "--rounds", 2, *options]
    return subprocess.run(list(map(str, command)), check=False, capture_output=True, text=True, timeout=200, cwd=ROOT)


@pytest.fixture(scope="module")
def troubled(folder):
    """A run in which not every peer can be measured."""
    return bench(folder, "--size", 9, "--peers", "does_less", "breaks", "crashes", "is_not_there", "cannot_do_more")


@pytest.mark.real
@pytest.mark.parametrize(
    "told",
    [
        "failed: trials, 9: does_less: AssertionError: macro.trials.does_less did 8 of 9 operations\n",
        "failed: trials, 9: breaks: ValueError: it broke\n",
        "failed: trials, 9: crashes: ended by SIGKILL\n",
        "left out: trials, 9: is_not_there: no_such_package is not installed\n",
        "│ cannot_do_more (at 3) │",
    ],
)
def test_what_cannot_be_measured_is_named_with_the_reason(troubled, told):
    assert told in troubled.stdout


@pytest.mark.real
def test_a_measurement_without_end_is_ended(folder):
    ended = bench(folder, "--peers", "hangs", "--limit", 1)

    assert (1, "failed: trials, 50,000: hangs: no figure after 1 seconds\n") == (ended.returncode, ended.stdout)


@pytest.mark.real
def test_a_failure_is_in_the_exit_status_and_what_is_left_out_is_not(folder, troubled):
    assert 1 == troubled.returncode
    assert 0 == bench(folder, "--peers", "is_not_there").returncode


@pytest.mark.real
def test_the_peers_take_turns(folder):
    ended = bench(folder, "--peers", "asyncio", "os_threads", "--size", 1)

    assert ["1 asyncio", "1 os_threads", "2 asyncio", "2 os_threads"] == [
        f"{number} {peer}" for number, peer in re.findall(r"^round (\d) of 2: .*, (\w+)$", ended.stderr, re.M)
    ]


@pytest.mark.real
@pytest.mark.parametrize(
    ("workload", "options", "told"),
    [
        ("trials", ["--peers", "nobody"], "no such peer: nobody; there are asyncio, "),
        ("nothing", [], "no such workload: nothing; there are "),
        (
            "trials",
            ["--folder", "/nowhere"],
            "no benchmarks in /nowhere: it has no macro/measure.py; name another --folder",
        ),
    ],
)
def test_what_there_is_not_is_refused(folder, workload, options, told):
    ended = bench(folder, *options, workload=workload)

    assert (1, "") == (ended.returncode, ended.stdout)
    assert ended.stderr.startswith(told)


@pytest.mark.real
def test_a_terminated_run_ends_what_it_started(folder):
    command = [sys.executable, "-m", "benchmarks.compare", "trials", "--folder", folder, "--peers", "says_who_it_is"]
    (folder / "macro" / "trials" / "says_who_it_is.pid").unlink(missing_ok=True)
    with subprocess.Popen(command, stderr=subprocess.DEVNULL, cwd=ROOT) as running:
        pid = int(waited_for(folder / "macro" / "trials" / "says_who_it_is.pid"))
        running.terminate()

    assert 128 + signal.SIGTERM == running.returncode
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


@pytest.mark.real
def test_an_interrupted_run_reports_what_it_has(folder, tmp_path):
    written = tmp_path / "results.json"
    command = [sys.executable, "-m", "benchmarks.compare", "trials", "--folder", folder, "--json", written]
    options = ["--size", "1", "--rounds", "1", "--peers", "asyncio", "says_who_it_is"]
    said = folder / "macro" / "trials" / "says_who_it_is.pid"
    said.unlink(missing_ok=True)
    with subprocess.Popen([*command, *options], stderr=subprocess.DEVNULL, cwd=ROOT) as running:
        waited_for(said)
        running.send_signal(signal.SIGINT)

    assert 130 == running.returncode
    assert ["asyncio"] == [row.peer for row in Results.read(written).values]


def waited_for(file):
    """The line that somebody writes into a file within some seconds."""
    for _ in range(2_000):
        if file.exists() and (text := file.read_text()).endswith("\n"):
            return text
        time.sleep(0.01)
    raise TimeoutError(f"nobody wrote into {file}")


# --- what is made of the figures


def row(peer, figure="cpu", size=100):
    return Row("echo", size, "connections", figure, "µs <each>", peer, size)


@pytest.fixture
def three_rounds():
    """vthreads and a peer in three rounds, and a peer that could not be measured."""
    found = results()
    for ours, theirs in (2.0, 6.0), (3.0, 1.0), (8.0, 9.0):
        for size in (10, 100, 1_000):
            found.add(row("vthreads_reference", size=size), 30.0)
            found.add(row("vthreads", size=size), ours)
            found.add(row("peer", size=size), theirs)
    found.left_out.append(Without("echo", 10, "other", "it is not <here>"))
    return found


def test_the_ratio_is_that_of_the_medians_to_the_compiled_engine(three_rounds):
    peers = "vthreads", "peer", "vthreads_reference"

    assert [3.0, 6.0, 30.0] == [three_rounds.median(row(peer)) for peer in peers]
    assert [1.0, 2.0, 10.0] == [three_rounds.ratio(row(peer)) for peer in peers]
    assert (1.0, 9.0) == three_rounds.spread(row("peer"))


def test_without_the_compiled_engine_the_ratio_is_to_the_other(three_rounds):
    for size in (10, 100, 1_000):
        del three_rounds.values[row("vthreads", size=size)]

    assert 0.2 == three_rounds.ratio(row("peer"))


def test_without_vthreads_there_is_no_ratio():
    found = results()
    found.add(row("peer"), 1.0)

    assert found.ratio(row("peer")) is None


def test_the_cheapest_stands_first(three_rounds):
    tables = three_rounds.tables()

    assert [("echo", size, "cpu") for size in (10, 100, 1_000)] == list(tables)
    assert ["vthreads", "peer", "vthreads_reference"] == [row.peer for row in tables["echo", 10, "cpu"]]


def test_results_are_read_as_they_were_written(three_rounds, tmp_path):
    three_rounds.write(tmp_path / "results.json")

    assert three_rounds == Results.read(tmp_path / "results.json")


def test_the_page_is_whole_and_opens_without_network(three_rounds):
    page = page_of(three_rounds)

    # Every tag is closed.
    body = ElementTree.fromstring(page.removeprefix("<!doctype html>"))
    assert 4 == len(body.findall(".//{*}svg"))  # one for each size, and one for how the figure grows with it
    assert 3 == len(body.findall(".//{*}polyline"))
    assert "it is not <here>" in "".join(body.itertext())
    assert not re.search(r"src=|href=|url\(|@import", page)


# --- the page of the documentation

PERFORMANCE = BENCHMARKS.parent / "docs" / "explanation" / "performance.md"


def test_every_workload_has_a_place_in_the_page():
    places = re.findall("<!-- figures: (.+) -->", PERFORMANCE.read_text())

    assert set(WORKLOADS) == set(places) & set(WORKLOADS)
    assert len(places) == len(set(places)) == PERFORMANCE.read_text().count("<!-- end -->")


def figures_of(workload, column=1):
    """The medians of a table of the page, by peer."""
    table = PERFORMANCE.read_text().partition(f"<!-- figures: {workload} -->")[2].partition("<!-- end -->")[0]
    rows = [[cell.strip(" *") for cell in row.strip("|").split("|")] for row in table.splitlines() if row[:1] == "|"]
    return {cells[0].partition(" ")[0]: float(cells[column].split()[0]) for cells in rows[2:]}


def test_the_figures_on_other_pages_are_those_of_the_page():
    readme, engines, comparison = (
        re.sub(" +", " ", (BENCHMARKS.parent / name).read_text())
        for name in ("README.md", "docs/explanation/two-engines.md", "docs/explanation/comparison.md")
    )
    started, switched, parked = figures_of("spawn_join"), figures_of("yield"), figures_of("parked", column=2)
    of_others = f"{started['asyncio']:.1f} µs for an asyncio task, {started['os_threads']:.0f} µs for an OS thread"
    assert f"| {started['vthreads']:.1f} µs | {of_others} |" in readme
    assert f"| {parked['vthreads']:.0f} KiB | {parked['uvloop']:.1f} KiB for an asyncio task on uvloop " in readme
    assert f"| a yield | {switched['vthreads_reference']:.1f} µs | {switched['vthreads']:.2f} µs |" in engines
    assert f"A switch costs {switched['os_threads'] / switched['vthreads']:.0f} times as much." in comparison


def test_every_goal_is_of_something_that_is_measured():
    for goal in load("goals").GOALS:
        workload = WORKLOADS[goal.workload]
        assert goal.figure in workload.figures
        assert goal.size in {*workload.sizes}
        assert goal.peer is None or goal.peer in workload.peers


@pytest.mark.parametrize(
    ("peer", "most", "over", "reached"),
    [("peer", 0.5, False, 0.5), ("peer", 0.5, True, -3.0), (None, 7.0, False, 3.0), ("nobody", 1.0, False, None)],
)
def test_what_is_reached_of_a_goal(peer, most, over, reached):
    goals = load("goals")
    goal = goals.Goal("echo", 100, "cpu", peer, most, over)

    assert reached == goals.reached(goal, {("echo", 100, "cpu", "vthreads"): 3.0, ("echo", 100, "cpu", "peer"): 6.0})


PAGE = """# Figures

<!-- figures: echo -->
<!-- end -->

<!-- figures: queue -->
as it was
<!-- end -->

<!-- figures: where -->
<!-- end -->

<!-- figures: curve echo -->
<!-- end -->

<!-- figures: runs -->

| 2025-01-01 10:00 | `an early run` |

<!-- end -->
"""


@pytest.mark.real
def test_a_page_is_filled_and_filling_it_again_changes_nothing(three_rounds, tmp_path):
    page, figures, where = tmp_path / "page.md", tmp_path / "figures.json", tmp_path / "where.md"
    page.write_text(PAGE)
    three_rounds.write(figures)
    where.write_text("nowhere\n")

    for _ in range(2):
        subprocess.run([sys.executable, BENCHMARKS / "fill.py", page, figures, where], check=True)
        lines = page.read_text().splitlines()
        assert "| **vthreads** " + "| 3.00 (2.00–8.00) · 1.00 " * 3 + "|" in lines
        assert ["as it was", "nowhere"] == [line for line in lines if line in ("as it was", "nowhere")]
        assert "![µs <each>, by connections](echo.svg)" in lines
        assert 3 == len(ElementTree.parse(tmp_path / "echo.svg").findall(".//{*}polyline"))
        runs = [line for line in lines if line.startswith("| 20")]
        assert ["| 2025-01-01 10:00 | `an early run` |", f"| {three_rounds.date[:10]}"] == [runs[0], runs[1][:12]]
        assert f"[Run](#runs) of {runs[1].split(' | ')[0].strip('| ')}" in lines


@pytest.mark.real
@pytest.mark.parametrize("names", [("early", "late"), ("late", "early")])
def test_a_page_has_the_figures_of_the_latest_run_in_whatever_order_the_files_are_given(three_rounds, tmp_path, names):
    page = tmp_path / "page.md"
    page.write_text(PAGE)
    three_rounds.write(tmp_path / "late.json")
    zeros = {row: [0.0] for row in three_rounds.values}
    # Two hours earlier, though the text of the time is greater.
    replace(three_rounds, date="2026-07-30T13:00:00+03:00", values=zeros).write(tmp_path / "early.json")

    files = [tmp_path / f"{name}.json" for name in names]
    subprocess.run([sys.executable, BENCHMARKS / "fill.py", page, *files], check=True)
    assert "| **vthreads** | 3.00 (2.00–8.00)" in page.read_text()


REPORT = """
# To display the perf.data header info, please use --header/--header-only options.
    40.00%  libpython3.11.so.1.0
    30.00%  [kernel.kallsyms]
     5.00%  [kernel.vmlinux]
     5.00%  something.so
"""


def test_shares_are_added_up_by_part(monkeypatch):
    monkeypatch.syspath_prepend(BENCHMARKS)

    assert {"interpreter": 50, "kernel": 43.75, "the rest": 6.25} == load("where").by_part(REPORT)


@pytest.mark.real
def test_a_trace_of_an_echo_is_measured(tmp_path):
    took, rendering = vthreads.run(load("tracing").traced_echoes, 2, 3, str(tmp_path / "trace.json"))
    assert took >= 0
    assert rendering >= 0


@pytest.mark.thorough
def test_the_table_of_races_is_made_and_the_page_has_them_all():
    explore = load("explore")
    cells = explore.row("lost update", seeds=1, most=300, schedules=10)
    assert len(explore.HEADINGS) == len(cells)
    assert 1 <= int(cells[1]) < 300

    page = explore.PAGE.read_text()
    table = page[page.index(explore.BEGIN) : page.index(explore.END)]
    named = [line.split(" | ")[0].removeprefix("| ") for line in table.splitlines() if line.startswith("| ")]
    assert [explore.HEADINGS[0], "---", *explore.RACES] == named
