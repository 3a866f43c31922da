"""Participants of a runtime: the order of the table is the order of the calls."""

from __future__ import annotations

import importlib
import pkgutil
import random
import subprocess
import sys

import pytest

import vthreads
from vthreads._core.participants import ORDER, Participant, participants, participate

pytestmark = pytest.mark.unpatched

# Imports the participants in the order of its arguments, without `vthreads/__init__`, which would import most of them
# in its own order. Then each of their functions notes its place and is called.
SCRIPT = """
import os, sys, types
from functools import partial
from importlib import import_module

package = types.ModuleType("vthreads")
package.__path__ = [{path!r}]
sys.modules["vthreads"] = package
for name in sys.argv[1:]:
    import_module("vthreads." + name)

from vthreads._core import participants
from vthreads._core.runtime import run

calls = []


def noting(occasion, name, function):
    def call(*args):
        calls.append((occasion, name))
        return function(*args)

    return call


expected = {{occasion: [] for occasion in participants.Participant._fields}}
for name, participant in participants._places.items():
    functions = {{key: value for key, value in participant._asdict().items() if value is not None}}
    for occasion in functions:
        expected[occasion].append(name)
    participants._places[name] = participant._replace(
        **{{occasion: noting(occasion, name, function) for occasion, function in functions.items()}}
    )
assert list(participants._places) == list(participants.ORDER)


def called(occasion):
    return [name for what, name in calls if what == occasion]


def root():
    assert called("started") == expected["started"], calls
    child = os.fork()
    if child == 0:
        assert called("forked") == expected["forked"], calls
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0


run(root)
assert called("stopping") == expected["stopping"][::-1], calls
assert all(expected.values())
print("in order")
"""


def run_script(script, *args):
    command = [sys.executable, "-c", script, *args]
    return subprocess.run(command, check=False, capture_output=True, text=True, timeout=200)


def shuffled(seed):
    names = list(ORDER)
    random.Random(seed).shuffle(names)
    return names


@pytest.mark.sampled(1)
@pytest.mark.real
@pytest.mark.parametrize(
    "names", [list(ORDER), list(ORDER)[::-1], shuffled(1), shuffled(2)], ids=["table", "reverse", "shuffled", "other"]
)
def test_the_order_of_the_table_is_what_runs_whatever_the_order_of_the_imports(names):
    done = run_script(SCRIPT.format(path=vthreads.__path__[0]), *names)
    assert ("in order\n", "", 0) == (done.stdout, done.stderr, done.returncode)


def test_every_participant_has_a_place_and_every_place_is_taken():
    skipped = ("vthreads.__main__", "vthreads._core.engine.pollers.kqueue")
    names = [module.name for module in pkgutil.walk_packages(vthreads.__path__, "vthreads.")]
    # The public modules of `integrations` need a package that may be absent.
    needing = [name for name in names if name.startswith("vthreads.integrations.") and "._" not in name]
    modules = {name: importlib.import_module(name) for name in names if name not in {*skipped, *needing}}
    modules.pop(participate.__module__)
    registering = {name for name, module in modules.items() if vars(module).get("participate") is participate}
    assert {f"vthreads.{name}" for name in ORDER} == registering, "`ORDER` has a name for each module that registers"
    assert Participant() not in list(participants())


def test_a_module_without_a_place_is_refused_with_what_to_do():
    with pytest.raises(LookupError, match=r"'vthreads\.drawer' has no place .* add 'drawer' to `ORDER`"):
        participate("vthreads.drawer", Participant())


@pytest.mark.real
def test_a_first_group_loads_no_participant_that_it_does_not_need():
    """A place in the table is a name, and costs no import."""
    script = """
import sys
import vthreads
with vthreads.ThreadGroup() as g:
    g.spawn(int)
from vthreads._core.participants import ORDER
print(*[name for name in ORDER if "vthreads." + name not in sys.modules])
"""
    done = run_script(script)
    lazy = (
        "aio._shared_loop _os_threads.ticker _preemption _mapping _calls.net.dns integrations._thread_pools "
        "debug._observers debug._lock_circles debug._server debug._fatal "
        "testing._standard_time testing._root testing._explore.run"
    )
    assert (f"{lazy}\n", "") == (done.stdout, done.stderr)
