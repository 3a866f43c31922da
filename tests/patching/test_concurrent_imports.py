"""Virtual threads that import the same module while its body parks: it runs once, and no thread sees half of it."""

import importlib
import os
import subprocess
import sys

import pytest

import vthreads
from vthreads import ThreadGroup, move_on_after, sleep


@pytest.fixture
def module(tmp_path, monkeypatch):
    """Write the source of a module that can be imported, and is forgotten afterwards."""
    monkeypatch.syspath_prepend(tmp_path)
    names = []

    def write(name, source):
        names.append(name)
        (tmp_path / f"{name}.py").write_text(source)
        importlib.invalidate_caches()

    yield write
    for name in names:
        sys.modules.pop(name, None)


@pytest.mark.real
@pytest.mark.parametrize("engine", [None, "reference", "accelerated"])
def test_a_missing_greenlet_is_named(engine):
    script = "import sys; sys.modules['greenlet'] = None; import vthreads"
    environment = {key: value for key, value in os.environ.items() if key != "VTHREADS_ENGINE"}
    if engine is not None:
        environment["VTHREADS_ENGINE"] = engine
    command = [sys.executable, "-c", script]
    process = subprocess.run(command, check=False, capture_output=True, text=True, timeout=200, env=environment)
    last = process.stderr.splitlines()[-1]
    assert last.startswith("ImportError: vthreads needs greenlet, which this Python cannot import")
    assert last.endswith("install it: pip install greenlet")


PARKS = "import time\nbegun = True\ntime.sleep(60)\nwhole = True\n"


def test_the_body_runs_once_and_all_get_the_whole_module(module, virtual):
    module("parks_in_its_body", PARKS)

    def imports():
        import parks_in_its_body

        return parks_in_its_body.whole, id(parks_in_its_body)

    def root():
        with ThreadGroup() as group:
            futures = [group.spawn(imports) for _ in range(10)]
        assert 60 == vthreads.now()
        return {future.result() for future in futures}

    assert 1 == len(virtual(root, patch=True))


def test_others_run_and_import_other_modules_meanwhile(module, virtual):
    module("parks_in_its_body", PARKS)
    module("another_module", "number = 1\n")

    def root():
        with ThreadGroup() as group:
            slow = group.spawn(importlib.import_module, "parks_in_its_body")
            assert 1 == importlib.import_module("another_module").number
            assert not slow.done()
            assert 0 == vthreads.now()

    virtual(root, patch=True)


def test_a_failed_import_is_tried_again_by_who_waited(module, virtual):
    module(
        "fails_at_first",
        "import sys, time\ntime.sleep(1)\nif not hasattr(sys, '_second'):\n    sys._second = 1\n    1 / 0\n",
    )

    def root():
        try:
            with ThreadGroup(on_failure="continue") as group:
                first = group.spawn(importlib.import_module, "fails_at_first")
                second = group.spawn(importlib.import_module, "fails_at_first")
                assert isinstance(first.exception(), ZeroDivisionError)
                assert "fails_at_first" == second.result().__name__
        finally:
            del sys._second

    virtual(root, patch=True)


def test_a_cancelled_import_leaves_no_half_module_behind(module, virtual):
    module("parks_in_its_body", PARKS)

    def root():
        with ThreadGroup() as group:
            importer = group.spawn(importlib.import_module, "parks_in_its_body")
            waiter = group.spawn(importlib.import_module, "parks_in_its_body")
            importer.cancel()
        assert importer.cancelled()
        assert waiter.result().whole

    virtual(root, patch=True)


def test_who_waits_in_an_import_statement_is_told_that_the_import_was_cancelled(module, virtual):
    module("parks_in_its_body", PARKS)

    def imports():
        import parks_in_its_body

        return parks_in_its_body.whole

    def root():
        with ThreadGroup(on_failure="continue") as group:
            importer = group.spawn(imports)
            sleep(1)
            waiters = [group.spawn(imports) for _ in range(2)]
            sleep(1)
            importer.cancel()
            told = [type(waiter.exception()) for waiter in waiters]
        return told, imports()

    told, whole = virtual(root, patch=True)
    assert [ImportError, ImportError] == told
    assert whole


def test_who_waits_for_the_import_of_another_can_be_cancelled(module, virtual):
    module("parks_in_its_body", PARKS)

    def root():
        with ThreadGroup() as group:
            importer = group.spawn(importlib.import_module, "parks_in_its_body")
            with move_on_after(1) as scope:
                importlib.import_module("parks_in_its_body")
            assert scope.cancelled_caught
            assert 1 == vthreads.now()
        assert importer.result().whole

    virtual(root, patch=True)


def test_a_circle_of_imports_in_two_threads_ends(module, virtual):
    module("one_of_two", "import time\ntime.sleep(1)\nimport other_of_two\n")
    module("other_of_two", "import time\ntime.sleep(1)\nimport one_of_two\n")

    def root():
        with ThreadGroup() as group:
            group.spawn(importlib.import_module, "one_of_two")
            group.spawn(importlib.import_module, "other_of_two")
        sleep(0)
        return sys.modules["one_of_two"].other_of_two is sys.modules["other_of_two"]

    assert virtual(root, patch=True)


def test_imports_of_the_scheduler_leave_the_import_that_the_root_waits_for(tmp_path, run_script):
    # The runtime loads the search for lock circles while the root waits for the lock of the module.
    (tmp_path / "parks.py").write_text(
        "import sys, time\nwhile 'vthreads.debug._lock_circles' not in sys.modules: time.sleep(0.005)\n"
    )
    script = """
        import sys
        import vthreads
        sys.path.insert(0, sys.argv[1])

        def load():
            import parks
            return parks.__name__

        with vthreads.ThreadGroup() as group:
            first = group.spawn(load)
            print(load())
        print(first.result())
        """
    assert "parks\nparks\n" == run_script(script, str(tmp_path))


def test_a_deadlock_is_told_to_a_root_that_waits_for_an_import(tmp_path, run_script):
    (tmp_path / "parks.py").write_text("import vthreads\nvthreads.Event().wait()\n")
    script = """
        import sys
        import vthreads
        sys.path.insert(0, sys.argv[1])

        def load():
            import parks

        def root():
            with vthreads.ThreadGroup() as group:
                group.spawn(load)
                load()

        try:
            vthreads.run(root)
        except BaseExceptionGroup as group:
            print(*{type(error).__name__ for error in group.exceptions})
        """
    assert "DeadlockError\n" == run_script(script, str(tmp_path))
