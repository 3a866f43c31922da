"""The plugin for pytest, in processes of its own, beside the plugins that others use."""

import re
import sys

import pytest

pytest_plugins = "pytester"
pytestmark = pytest.mark.real

QUIET = """
[pytest]
filterwarnings = error
asyncio_default_fixture_loop_scope = function
addopts = --strict-markers --strict-config
"""


@pytest.fixture
def run(pytester, monkeypatch):
    """Run pytest on the text of a test module, with further lines for the ini file.

    The plugin of Hypothesis imports its package, which takes four times as long as the rest: leave it out, except for
    the test that is about it.
    """
    monkeypatch.delenv("PYTEST_ADDOPTS", raising=False)

    def run_pytest(text, *args, ini="", hypothesis=False):
        pytester.makeini(QUIET + ini)
        pytester.makepyfile(text)
        chosen = () if hypothesis else ("-p", "no:hypothesispytest")
        return pytester.runpytest_subprocess(*chosen, *args, timeout=200)

    return run_pytest


def told(result):
    return "\n".join(result.outlines)


@pytest.mark.thorough
def test_what_ran_without_the_mark_does_not_disturb_marked_tests(run):
    result = run("""
        import time
        import pytest
        import vthreads

        def use_a_group():
            with vthreads.ThreadGroup() as group:
                group.spawn(time.sleep, 0)

        use_a_group()

        @pytest.fixture
        def fixture():
            use_a_group()
            yield
            use_a_group()

        def test_unmarked(fixture):
            use_a_group()

        @pytest.mark.vthreads(clock="virtual")
        def test_marked(fixture):
            time.sleep(3600)

        @pytest.mark.vthreads(clock="virtual")
        def test_marked_again():
            time.sleep(3600)
    """)
    result.assert_outcomes(passed=3)


def test_a_marked_test_is_a_root_virtual_thread_and_others_are_not(run):
    result = run("""
        import time
        import pytest
        import vthreads
        from vthreads._core.current import on_carrier

        @pytest.fixture
        def fixture():
            assert not on_carrier()
            yield 7
            assert not on_carrier()

        @pytest.mark.vthreads
        @pytest.mark.parametrize("number", [1, 2])
        def test_marked(fixture, number):
            assert on_carrier()
            assert fixture == 7
            with vthreads.ThreadGroup() as g:
                g.spawn(time.sleep, 0)

        class TestClass:
            @pytest.mark.vthreads
            def test_method(self):
                assert on_carrier()

        def test_unmarked():
            assert not on_carrier()

        @pytest.mark.vthreads
        def test_fails():
            assert 1 == 2

        @pytest.mark.vthreads
        def test_skips():
            pytest.skip("not today")

        @pytest.mark.vthreads
        @pytest.mark.xfail(strict=True)
        def test_is_expected_to_fail():
            raise KeyError
        """)
    result.assert_outcomes(passed=4, failed=1, skipped=1, xfailed=1)


@pytest.mark.thorough
def test_methods_of_unittest_may_be_marked_as_well(run):
    result = run("""
        import unittest
        import pytest
        import vthreads
        from vthreads._core.current import on_carrier

        class TestOld(unittest.TestCase):
            def setUp(self):
                self.number = 7

            @pytest.mark.vthreads(clock="virtual")
            def test_marked(self):
                vthreads.sleep(3600)
                self.assertEqual(3600, vthreads.now())
                self.assertEqual(7, self.number)

            @pytest.mark.vthreads
            def test_fails(self):
                self.fail("as it should")

            def test_unmarked(self):
                assert not on_carrier()
        """)
    result.assert_outcomes(passed=2, failed=1)


@pytest.mark.thorough
def test_clock_order_and_patch(run):
    result = run("""
        import threading, time
        import pytest
        import vthreads
        from vthreads.testing import VirtualClock

        def order_of_three():
            order = []
            with vthreads.ThreadGroup() as g:
                for number in range(10):
                    g.spawn(lambda number=number: (vthreads.sleep(0), order.append(number)))
            return order

        @pytest.mark.vthreads(clock="virtual")
        def test_virtual():
            time.sleep(3600)
            assert 3600 == time.monotonic()

        @pytest.mark.vthreads
        def test_fixture(virtual_clock):
            time.sleep(3600)
            assert 3600 == virtual_clock.now() == time.monotonic()

        @pytest.mark.vthreads(clock=VirtualClock(start=5))
        def test_given():
            assert 5 == vthreads.now()

        @pytest.mark.vthreads
        def test_real():
            assert abs(vthreads.now() - time.monotonic()) < 60

        @pytest.mark.vthreads
        def test_in_order():
            assert list(range(10)) == order_of_three()

        seen = []

        @pytest.mark.vthreads(seed=3)
        @pytest.mark.parametrize("time_", [1, 2])
        def test_seeded(time_):
            seen.append(order_of_three())
            assert list(range(10)) != seen[0] == seen[-1]

        def test_fixture_without_the_mark(virtual_clock):
            vthreads.run(time.sleep, 3600, clock=virtual_clock)
            assert 3600 == virtual_clock.now()
        """)
    result.assert_outcomes(passed=8)


def test_several_carriers(run, pytester):
    result = run("""
        import threading
        import pytest
        import vthreads

        @pytest.mark.vthreads(carriers=2, patch=False)
        def test_members_run_on_both():
            both = threading.Barrier(2)
            with vthreads.ThreadGroup(placement="spread") as group:
                for _ in range(2):
                    group.spawn(both.wait)

        def fail():
            raise KeyError

        @pytest.mark.vthreads(carriers=2)
        def test_a_failure_on_any_is_told():
            with vthreads.ThreadGroup() as group:
                group.spawn(vthreads.Event().wait).thread.name = "waits for a member"
                with vthreads.ThreadGroup(placement="spread") as inner:
                    both = vthreads.Barrier(2)
                    for _ in range(2):
                        inner.spawn(lambda: (both.wait(), fail()))

        @pytest.mark.vthreads(carriers=2, seed=1)
        def test_without_an_order():
            pass
        """)
    result.assert_outcomes(passed=1, failed=2)
    assert "thread 'waits for a member'" in told(result)
    assert "carriers=2 with seed=1: OS threads run in real time and in no fixed order" in told(result)


def test_what_is_left_behind_fails_the_test(run):
    result = run("""
        import os, time
        import pytest
        import vthreads

        @pytest.mark.vthreads
        def test_leaves_a_thread():
            vthreads.spawn(lambda: time.sleep(3600)).thread.name = "forgotten"

        @pytest.mark.vthreads
        def test_leaves_a_descriptor():
            os.open("/dev/null", os.O_RDONLY)

        @pytest.mark.vthreads(leaks=False)
        def test_may():
            vthreads.spawn(time.sleep, 0.001)
        """)
    result.assert_outcomes(passed=1, failed=2)
    assert "virtual thread 'forgotten' of group 'background', spawned at" in told(result)
    assert "/dev/null" in told(result)


@pytest.mark.thorough
def test_the_deadline_fails_the_test_and_its_threads_end(run):
    result = run("""
        import time
        import pytest
        import vthreads

        ended = []

        def sleeper():
            try:
                time.sleep(3600)
            finally:
                ended.append(True)

        @pytest.mark.vthreads(clock="virtual", deadline=5)
        def test_too_long():
            with vthreads.ThreadGroup() as g:
                g.spawn(sleeper)

        @pytest.mark.vthreads(clock="virtual", deadline=5)
        def test_in_time():
            time.sleep(4)

        def test_afterwards():
            assert [True] == ended
        """)
    result.assert_outcomes(passed=2, failed=1)
    assert "did not end within its deadline of 5 s" in told(result)


def test_a_failure_tells_its_seed_and_what_the_others_were_doing(run, pytester):
    # Stands in for the dump: what counts is that it is asked while the threads are there.
    pytester.makeconftest("""
        import pytest

        @pytest.fixture(autouse=True)
        def dumps(monkeypatch):
            def dump():
                from vthreads._core.current import carriers
                from vthreads._core.deadlock import threads_below
                (scheduler,) = carriers.values()
                return "DUMP " + ", ".join(sorted(thread.name for thread in threads_below(scheduler)))

            monkeypatch.setattr("vthreads.debug.dump", dump)
        """)
    result = run("""
        import time
        import pytest
        import vthreads

        def spawn(name):
            vthreads.ThreadGroup.current.spawn(lambda: time.sleep(3600)).thread.name = name

        @pytest.mark.vthreads(seed=17)
        def test_fails():
            spawn("left over")
            raise KeyError

        @pytest.mark.vthreads(deadline=0.01, clock="virtual")
        def test_is_late():
            with vthreads.ThreadGroup():
                spawn("late")

        @pytest.mark.vthreads
        def test_fails_alone():
            raise KeyError
        """)
    result.assert_outcomes(failed=3)
    assert "SeededOrder(17)" in told(result)
    assert ["DUMP MainThread, left over", "DUMP MainThread, late"] == [
        line for line in result.outlines if line.startswith("DUMP")
    ]


@pytest.mark.thorough
def test_a_failure_tells_what_the_others_were_doing_before_it_cancelled_them(run):
    result = run(
        """
        import time
        import pytest
        import vthreads

        def spawn(name, function, *args):
            vthreads.ThreadGroup.current.spawn(function, *args).thread.name = name

        def fail():
            time.sleep(0.01)
            raise KeyError("of a member")

        @pytest.mark.vthreads
        def test_body():
            with vthreads.ThreadGroup("outer"):
                spawn("waits outside", time.sleep, 3600)
                with vthreads.ThreadGroup("inner"):
                    spawn("waits for the body", time.sleep, 3600)
                    assert 1 == 2

        @pytest.mark.vthreads
        def test_member():
            with vthreads.ThreadGroup():
                spawn("waits for a member", time.sleep, 3600)
                spawn("fails", fail)

        @pytest.mark.vthreads
        def test_deadlock():
            with vthreads.ThreadGroup():
                spawn("waits for ever", vthreads.Event().wait)

        @pytest.mark.vthreads
        @pytest.mark.timeout(0.5)
        def test_too_long():
            with vthreads.ThreadGroup():
                spawn("waits for too long", time.sleep, 3600)

        @pytest.mark.vthreads
        def test_a_failure_that_does_not_come_out():
            with pytest.raises(ExceptionGroup), vthreads.ThreadGroup():
                spawn("was expected", time.sleep, 3600)
                raise KeyError
            raise OSError
        """,
        "--timeout=30",
    )
    result.assert_outcomes(failed=5)
    # Who comes to its first checkpoint late in a slice has let others run there.
    line = re.compile(r"^ *thread '(waits .*?|was expected)', [\w.]+, (?:parked for|ready)", re.MULTILINE)
    assert [
        "waits outside",
        "waits for the body",
        "waits for a member",
        "waits for ever",
        "waits for too long",
    ] == line.findall(told(result))


def test_a_deadlock_is_told(run):
    result = run("""
        import threading
        import pytest

        @pytest.mark.vthreads
        def test_deadlock():
            threading.Event().wait()
        """)
    result.assert_outcomes(failed=1)
    assert "DeadlockError: every virtual thread is parked" in told(result)


@pytest.mark.thorough
def test_tests_may_be_chosen_by_the_ini_file(run):
    result = run(
        """
        import asyncio, time
        import pytest
        import vthreads

        from vthreads._core.current import on_carrier as is_virtual

        def test_chosen():
            assert is_virtual()
            time.sleep(3600)

        def test_other():
            assert not is_virtual()

        @pytest.mark.asyncio
        async def test_chosen_coroutine():
            assert not is_virtual()

        def test_chosen_and_late():
            time.sleep(5000)

        @pytest.mark.vthreads(clock="real", deadline=None)
        def test_marked():
            assert vthreads.now() > 0
        """,
        ini="vthreads_tests = *::test_chosen*\nvthreads_clock = virtual\nvthreads_deadline = 4000\n",
    )
    result.assert_outcomes(passed=4, failed=1)
    assert "deadline of 4000 s" in told(result)


MISUSE = {
    "clock='lunar'": "clock='lunar': pass one of real, virtual",
    "seed=1, order=object()": "pass only one of them",
    "deadline=float('nan')": "deadline=nan",
    "speed=3": "unexpected keyword argument 'speed'",
    "'virtual'": "accepts keyword arguments only",
}


def test_misuse_is_told(run):
    tests = [f"@pytest.mark.vthreads({args})\ndef test_{number}(): pass\n" for number, args in enumerate(MISUSE)]
    coroutine = "@pytest.mark.vthreads\nasync def test_coroutine(): pass\n"
    result = run("import pytest\n" + "\n".join([*tests, coroutine]))
    result.assert_outcomes(failed=len(MISUSE) + 1)
    assert [] == [message for message in [*MISUSE.values(), "is a coroutine function"] if message not in told(result)]


# --- side by side


@pytest.mark.thorough
@pytest.mark.everywhere
def test_beside_hypothesis_each_example_has_a_runtime_of_its_own(run):
    result = run(
        """
        import time
        import pytest
        import vthreads
        from hypothesis import Phase, given, settings, strategies as st

        roots = []

        @pytest.mark.vthreads(clock="virtual")
        @settings(max_examples=12, deadline=None, database=None)
        @given(st.integers(0, 10_000))
        def test_property(seconds):
            assert 0 == vthreads.now()
            roots.append(vthreads.current_thread())
            time.sleep(seconds)
            assert seconds == time.monotonic()

        def test_afterwards():
            assert len(roots) == len(set(map(id, roots))) >= 10

        @pytest.mark.vthreads
        @settings(max_examples=20, deadline=None, database=None, phases=[Phase.generate, Phase.shrink])
        @given(st.integers(0, 100))
        def test_leaks(number):
            if number > 3:
                vthreads.spawn(lambda: time.sleep(3600))

        class TestMethods:
            @pytest.mark.vthreads(clock="virtual")
            @settings(max_examples=5, deadline=None, database=None)
            @given(st.integers(0, 10))
            def test_method(self, seconds):
                time.sleep(seconds)
        """,
        hypothesis=True,
    )
    result.assert_outcomes(passed=3, failed=1)
    assert "LeakError" in told(result)
    assert "number=4" in told(result)


@pytest.mark.thorough
def test_beside_asyncio(run):
    result = run("""
        import asyncio, time
        import pytest
        from vthreads._core.current import on_carrier

        @pytest.mark.asyncio
        async def test_coroutine():
            await asyncio.sleep(0)
            assert not on_carrier()

        @pytest.mark.vthreads(clock="virtual")
        def test_virtual():
            async def sleep():
                await asyncio.sleep(3600)
                return time.monotonic()

            assert 3600 <= asyncio.run(sleep())

        @pytest.mark.asyncio
        async def test_another_coroutine():
            await asyncio.sleep(0.001)
        """)
    result.assert_outcomes(passed=3)


@pytest.mark.sampled(1)
@pytest.mark.parametrize("method", ["signal", "thread"])
def test_beside_timeouts(run, method):
    result = run(
        """
        import time
        import pytest
        import vthreads

        @pytest.mark.vthreads
        def test_quick():
            vthreads.sleep(0)

        @pytest.mark.vthreads
        @pytest.mark.timeout(0.5)
        def test_parks_too_long():
            vthreads.sleep(3600)
        """,
        "--timeout=30",
        f"--timeout-method={method}",
    )
    # By the thread method the whole process ends.
    output = told(result) + "\n".join(result.errlines)
    assert "Timeout" in output
    assert "vthreads.sleep(3600)" in output
    if method == "signal":
        result.assert_outcomes(passed=1, failed=1)


@pytest.mark.thorough
def test_a_deadlock_is_found_beside_timeouts(run):
    # Only a deadlock that is not found takes any of the limit's time.
    result = run(
        """
        import signal
        import threading
        import pytest
        import vthreads

        @pytest.mark.vthreads
        def test_deadlock():
            threading.Event().wait()

        @pytest.mark.vthreads
        @pytest.mark.timeout(50, func_only=True)
        def test_deadlock_in_a_group():
            with vthreads.ThreadGroup() as g:
                g.spawn(threading.Event().wait)

        @pytest.mark.vthreads
        def test_a_handler_of_its_own_may_unpark():
            event = threading.Event()
            signal.signal(signal.SIGUSR1, lambda *_: event.set())
            threading.Timer(0.1, signal.raise_signal, [signal.SIGUSR1]).start()
            event.wait()
            signal.signal(signal.SIGUSR1, signal.SIG_DFL)

        def test_no_handler_stays_behind():
            import vthreads._calls.signals
            assert [signal.default_int_handler] == vthreads._calls.signals.quiet_handlers
        """,
        "--timeout=50",
    )
    result.assert_outcomes(passed=2, failed=2)
    assert 2 <= told(result).count("DeadlockError: every virtual thread is parked")
    assert "Timeout" not in told(result)


@pytest.mark.thorough
def test_beside_xdist(run):
    result = run(
        """
        import os, time
        import pytest
        import vthreads

        @pytest.mark.vthreads(clock="virtual")
        @pytest.mark.parametrize("number", range(8))
        def test_virtual(number):
            assert os.environ["PYTEST_XDIST_WORKER"]
            with vthreads.ThreadGroup() as g:
                for _ in range(10):
                    g.spawn(time.sleep, 3600)

        @pytest.mark.vthreads
        def test_fails():
            vthreads.spawn(lambda: time.sleep(3600))
        """,
        "-n2",
    )
    result.assert_outcomes(passed=8, failed=1)
    assert "LeakError" in told(result)


@pytest.mark.thorough
def test_a_deadlock_is_found_beside_xdist(run):
    # A worker has an OS thread that receives from the controller, which is no reason to wait.
    result = run(
        """
        import pytest
        import vthreads

        @pytest.mark.vthreads
        def test_deadlock():
            vthreads.Queue().get()
        """,
        "-n1",
        "--timeout=50",
    )
    result.assert_outcomes(failed=1)
    assert "DeadlockError: every virtual thread is parked" in told(result)
    assert "Timeout" not in told(result)


def test_it_costs_nothing_where_nobody_asks(run, pytester):
    pytester.makeconftest("""
        import sys

        def pytest_sessionfinish():
            print("LOADED", sorted(name for name in sys.modules if name.split(".")[0] in ("vthreads", "greenlet")))
        """)
    result = run(
        """
        import pytest_vthreads  # it is there

        def test_nothing():
            pass
        """,
        "-s",
    )
    result.assert_outcomes(passed=1)
    assert "LOADED []" in told(result)


def test_the_fixture_explore_is_that_of_the_package(run):
    result = run("""
        import vthreads.testing

        def test_explore(request, monkeypatch):
            monkeypatch.setattr(vthreads.testing, "explore", "the function", raising=False)
            assert "the function" == request.getfixturevalue("explore")
        """)
    result.assert_outcomes(passed=1)


# --- coverage


def coverage_of(pytester, program):
    """The line about `program` in the report, from the number of its statements on."""
    pytester.makepyfile(program=program)
    settings = '[tool.coverage.run]\nconcurrency = ["greenlet", "thread"]\ncore = "ctrace"\nbranch = true\n'
    pytester.makefile(".toml", pyproject=settings)
    coverage = [sys.executable, "-m", "coverage"]
    done = pytester.run(*coverage, "run", "program.py")
    assert (0, "") == (done.ret, done.stderr.str())
    report = pytester.run(*coverage, "report", "-m", "--include=program.py").stdout.str()
    return re.search(r"^program.py +(.*)$", report, re.M)[1]


def test_coverage_measures_virtual_threads(pytester):
    measured = coverage_of(
        pytester,
        """
        import time
        import vthreads

        def child(number):
            if number:
                time.sleep(0.001)
                after_the_first_park = number
                time.sleep(0.001)
                return after_the_first_park
            return 0

        def on_another_os_thread():
            measured = True

        def never_called():
            never = True

        with vthreads.ThreadGroup() as g:
            for number in range(3):
                g.spawn(child, number)
            vthreads.offload(on_another_os_thread)
        at_the_end = True
        """,
    )
    # All but the lines of the function that nobody calls.
    assert re.fullmatch(r"\d+ +1 .* 9\d% +16", measured), measured


@pytest.mark.thorough
@pytest.mark.everywhere
def test_coverage_measures_threads_of_the_standard_library_that_are_virtual(pytester):
    measured = coverage_of(
        pytester,
        """
        import threading
        import vthreads

        def child(number):
            if number:
                met.wait()
                after_the_first_park = number
                met.wait()
                return after_the_first_park
            return 0

        def bare():
            met.wait()
            met.wait()
            after_the_last_park = True

        def never_called():
            never = True

        vthreads.patch(threads=True)
        met = threading.Barrier(4)
        threads = [threading.Thread(target=child, args=(number,)) for number in range(3)]
        for thread in threads:
            thread.start()
        vthreads.spawn(bare)
        met.wait()
        in_between = True
        met.wait()
        for thread in threads:
            thread.join()
        at_the_end = True
        """,
    )
    assert re.fullmatch(r"\d+ +1 .* 9\d% +18", measured), measured
