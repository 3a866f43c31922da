"""Imports in the child of a fork that came while another thread imported the same module."""

from __future__ import annotations

import pytest

# The fork comes while the body of the inner module waits: the package and the module are unfinished.
FILES = {
    "__init__": "from . import complete, part\nwhole = True\n",
    "complete": "",
    "part": """
import os, sys, __main__ as main
ran_in = os.getpid()
if ran_in == main.parent:
    main.has_begun.set()
    main.may_end.wait()
whole = True
""",
}

SCRIPT = """
import os, sys, threading, vthreads

def load():
    import package.part
    return package.whole, package.part.whole, package.complete.__name__

def root():
    global has_begun, may_end
    has_begun, may_end = threading.Event(), threading.Event()
    importing = start(load)
    has_begun.wait()
    pid = os.fork()
    if pid == 0:
        print(*load(), sys.modules["package.part"].ran_in == os.getpid())
        print(*vthreads.spawn(load).result(), flush=True)
        os._exit(0)
    print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
    may_end.set()
    print(*importing())

def of_a_virtual_thread(function):
    return vthreads.spawn(function).result

def of_an_os_thread(function):
    results = []
    os_thread = threading.Thread(target=lambda: results.append(function()))
    os_thread.start()
    return lambda: (os_thread.join(), *results)[1]

sys.path.insert(0, sys.argv[1])
parent, start = os.getpid(), globals()[sys.argv[2]]
# A fork beside OS threads is a warning on Python 3.12 and later.
import warnings
warnings.simplefilter("ignore", DeprecationWarning)
vthreads.run(root)
"""


@pytest.fixture
def package(tmp_path):
    (tmp_path / "package").mkdir()
    for name, source in FILES.items():
        (tmp_path / "package" / f"{name}.py").write_text(source)
    return tmp_path


@pytest.mark.real
@pytest.mark.parametrize("starter", ["of_a_virtual_thread", "of_an_os_thread"])
def test_a_child_imports_what_another_thread_of_the_parent_was_importing(starter, package, run_script):
    whole = "True True package.complete"
    assert f"{whole} True\n{whole}\n0\n{whole}\n" == run_script(SCRIPT, str(package), starter)


@pytest.mark.real
def test_an_import_that_forks_goes_on_in_the_child(tmp_path, run_script):
    (tmp_path / "forks.py").write_text("import os, vthreads\npid = os.fork()\nvthreads.sleep(0)\nwhole = True\n")
    script = """
        import os, sys, vthreads
        sys.path.insert(0, sys.argv[1])

        def root():
            import forks
            is_whole = forks.whole and sys.modules["forks"] is forks
            if forks.pid == 0:
                os._exit(0 if is_whole else 1)
            print(is_whole, os.waitstatus_to_exitcode(os.waitpid(forks.pid, 0)[1]))

        vthreads.run(root)
    """
    assert "True 0\n" == run_script(script, str(tmp_path))
