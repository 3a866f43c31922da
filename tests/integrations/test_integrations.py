"""Installation and removal of the integrations. Tests with the drivers themselves: `tests/drivers`."""

import builtins
import contextlib
import gc
import importlib
import importlib.machinery
import socket
import subprocess
import sys
import threading

import pytest

import vthreads
from vthreads.integrations._imports import watch_imports

# --- watching imports


@pytest.fixture
def make_module(tmp_path, monkeypatch):
    """Make a module that can be imported; it is forgotten afterwards."""
    monkeypatch.syspath_prepend(tmp_path)
    made = []

    def make(name, code=""):
        (tmp_path / f"{name}.py").write_text(code)
        importlib.invalidate_caches()
        made.append(name)
        return name

    yield make
    for name in made:
        sys.modules.pop(name, None)


@pytest.fixture
def watch():
    """Watch imports; what was seen is a list."""
    ends = []

    def watch(*names):
        seen = []
        ends.append(watch_imports(names, seen.append).end)
        return seen

    yield watch
    for end in ends:
        end()


def test_a_watched_module_is_seen_once_when_its_code_has_run(make_module, watch):
    name = make_module("vthreads_watched", "answer = 42")
    seen = watch(name)
    importlib.import_module(name)
    importlib.import_module(name)
    assert [42] == [module.answer for module in seen]


def test_other_modules_are_not_seen(make_module, watch):
    seen = watch("vthreads_watched")
    importlib.import_module(make_module("vthreads_unwatched"))
    assert [] == seen


def test_the_loader_of_a_watched_module_is_its_own(make_module, watch):
    name = make_module("vthreads_watched", "loader, from_spec = __loader__, __spec__.loader")
    watch(name)
    module = importlib.import_module(name)
    plain = importlib.import_module(make_module("vthreads_unwatched"))
    assert {type(plain.__loader__)} == {type(found) for found in (module.loader, module.from_spec, module.__loader__)}


def test_a_watched_module_that_fails_is_not_seen(make_module, watch):
    name = make_module("vthreads_watched", "1 / 0")
    seen = watch(name)
    with pytest.raises(ZeroDivisionError):
        importlib.import_module(name)
    assert [] == seen
    assert name not in sys.modules


def test_a_module_that_is_not_there_is_reported_as_ever(watch):
    watch("vthreads_nowhere")
    with pytest.raises(ModuleNotFoundError, match="No module named 'vthreads_nowhere'"):
        importlib.import_module("vthreads_nowhere")


def test_an_import_on_an_os_thread_is_seen(make_module, watch):
    name = make_module("vthreads_watched")
    seen = watch(name)
    os_thread = threading.Thread(target=importlib.import_module, args=[name])
    os_thread.start()
    os_thread.join()
    assert [name] == [module.__name__ for module in seen]


def test_two_watches_see_the_same_import(make_module, watch):
    name = make_module("vthreads_watched")
    one, other = watch(name), watch(name)
    importlib.import_module(name)
    assert [name] == [module.__name__ for module in one] == [module.__name__ for module in other]


def test_nothing_is_seen_after_the_end(make_module):
    name, seen = make_module("vthreads_watched"), []
    before = list(sys.meta_path)
    watch_imports([name], seen.append).end()
    importlib.import_module(name)
    assert [] == seen
    assert before == sys.meta_path


@pytest.mark.parametrize("outcome", ["whole = True", "1 / 0"])
def test_an_import_that_another_os_thread_has_begun_is_seen_at_its_end(make_module, watch, outcome):
    name = make_module("vthreads_watched", f"import builtins\nbuiltins.vthreads_pause()\n{outcome}")
    begun, go_on = threading.Event(), threading.Event()

    def pause():
        begun.set()
        assert go_on.wait(60)

    def load():
        with contextlib.suppress(ZeroDivisionError):
            importlib.import_module(name)

    builtins.vthreads_pause = pause
    try:
        loading = threading.Thread(target=load)
        loading.start()
        assert begun.wait(60)
        seen = watch(name)
        assert [] == seen
        go_on.set()
        loading.join()
    finally:
        del builtins.vthreads_pause
    assert [True] * (outcome != "1 / 0") == [module.whole for module in seen]
    for module in seen:
        assert importlib.machinery.ModuleSpec is type(module.__spec__)


def test_a_repeated_import_and_a_reload_are_seen(make_module, watch):
    name = make_module("vthreads_watched")
    seen = watch(name)
    first = importlib.import_module(name)
    assert first is importlib.reload(first)
    del sys.modules[name]
    assert [first, first, importlib.import_module(name)] == seen


def test_what_is_imported_already_is_listed(make_module):
    name = make_module("vthreads_watched")
    module = importlib.import_module(name)
    watch = watch_imports([name, "vthreads_unwatched"], lambda _: None)
    watch.end()
    assert [module] == watch.present


# --- fitting


LIFE_OF_A_FUNCTION = """
import sys, vthreads
for step in sys.argv[1:]:
    exec(step)
import urllib3.util.connection
print(hasattr(urllib3.util.connection.create_connection, "__wrapped__"))
print(any("vthreads" in type(finder).__module__ for finder in sys.meta_path))
"""


@pytest.mark.sampled(1)
@pytest.mark.everywhere
@pytest.mark.parametrize(
    ("steps", "fitted"),
    [
        (["vthreads.patch()", "import urllib3"], True),
        (["import urllib3", "vthreads.patch()"], True),
        (["import urllib3", "vthreads.patch()", "vthreads.unpatch()"], False),
        (["vthreads.patch()", "import urllib3", "vthreads.unpatch()"], False),
        (["vthreads.patch()", "vthreads.unpatch()", "import urllib3"], False),
        (["import urllib3", "vthreads.patch()", "vthreads.unpatch()", "vthreads.patch()"], True),
    ],
)
def test_the_order_of_import_and_patch_does_not_matter(steps, fitted):
    done = subprocess.run(
        [sys.executable, "-c", LIFE_OF_A_FUNCTION, *steps], capture_output=True, text=True, timeout=60, check=True
    )  # fmt: skip
    assert [str(fitted)] * 2 == done.stdout.splitlines()


@pytest.mark.real
def test_a_client_that_is_cancelled_while_it_connects_leaves_no_socket():
    import urllib3

    def root():
        with socket.create_server(("127.0.0.1", 0), backlog=1) as server:
            # Fill the queue of connections that wait to be accepted.
            waiting = [socket.socket() for _ in range(4)]
            for sock in waiting:
                sock.setblocking(False)
                sock.connect_ex(server.getsockname())
            with vthreads.move_on_after(0.1) as scope:
                try:
                    urllib3.HTTPConnectionPool(*server.getsockname()).request("GET", "/", retries=False)
                except vthreads.Cancelled as cancelled:
                    # Its traceback keeps the frames, as a cycle would.
                    kept.append(cancelled)
                    raise
            assert scope.cancelled_caught
            for sock in waiting:
                sock.close()

    kept = []
    gc.collect()
    vthreads.run(root)
    sockets = [found for found in gc.get_objects() if isinstance(found, socket.socket) and found.fileno() >= 0]
    assert [] == sockets
