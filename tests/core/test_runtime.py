"""Start and end of runtimes."""

import threading

import pytest

import vthreads
from vthreads import Future, ThreadGroup, sleep
from vthreads._core import carrier
from vthreads._core.current import on_carrier
from vthreads._core.originals import get_ident
from vthreads._core.participants import Participant
from vthreads._core.semaphore import Semaphore
from vthreads.errors import DeadlockError
from vthreads.testing import VirtualClock

pytestmark = pytest.mark.unpatched


def in_os_thread(fn, *args):
    """The result of `fn(*args)` in a new OS thread."""
    box = []

    def call():
        try:
            box.append((fn(*args), None))
        except BaseException as error:
            box.append((None, error))

    os_thread = threading.Thread(target=call)
    os_thread.start()
    os_thread.join()
    ((result, error),) = box
    if error is not None:
        raise error
    return result


# --- run


def test_run_returns_the_result_of_its_function():
    assert (1, 2) == vthreads.run(lambda *args: args, 1, 2, patch=False)


def test_run_raises_what_its_function_raises():
    def root():
        raise KeyError("broken")

    with pytest.raises(KeyError, match="broken"):
        vthreads.run(root, patch=False)


def test_run_inside_a_virtual_thread_is_refused(virtual):
    def root():
        with pytest.raises(RuntimeError, match="runs here already"):
            vthreads.run(lambda: None)
        with ThreadGroup() as g:
            with pytest.raises(RuntimeError, match="runs here already"):
                g.spawn(vthreads.run, lambda: None).result()
            g.cancel()

    with pytest.raises(ExceptionGroup):
        virtual(root)


def test_one_run_may_follow_another():
    assert [0, 1, 2] == [vthreads.run(lambda: number, patch=False) for number in range(3)]


def test_run_joins_the_background_before_it_returns(virtual):
    def root():
        future = ThreadGroup.current.spawn(lambda: (sleep(60), "value")[1])
        return future, vthreads.now()

    future, returned = virtual(root)
    assert ("value", 0.0) == (future.result(0), returned)


def test_run_joins_the_background_when_its_function_fails(virtual):
    futures = []

    def root():
        futures.append(ThreadGroup.current.spawn(sleep, 60))
        raise KeyError

    with pytest.raises(KeyError):
        virtual(root)
    assert futures[0].result(0) is None


def test_a_keyboard_interrupt_of_the_root_cancels_the_background(virtual):
    futures = []

    def root():
        futures.append(ThreadGroup.current.spawn(sleep, 60))
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        virtual(root)
    assert futures[0].cancelled()


def test_times_are_on_the_clock_of_the_run():
    assert 41.0 == vthreads.run(lambda: (sleep(1), vthreads.now())[1], clock=VirtualClock(40), patch=False)


def test_an_unknown_number_of_carriers_is_refused():
    with pytest.raises(ValueError, match="carriers=0"):
        vthreads.run(lambda: None, carriers=0)


@pytest.mark.timeout(0)  # the signal handler of pytest-timeout counts as something that could unpark a thread
def test_when_all_are_parked_for_ever_the_root_is_told_who_waits(virtual):
    def root():
        def waiting_for_nothing():
            Semaphore(0).acquire()

        with ThreadGroup() as g:
            future = g.spawn(waiting_for_nothing)
            future.thread.name = "the one"
            with pytest.raises(DeadlockError, match=r"'the one' waits in Semaphore\.acquire.*waiting_for_nothing"):
                future.result()
            future.cancel()
        return "alive"

    assert "alive" == virtual(root)


# --- current_thread


def test_the_root_is_the_current_thread_of_its_os_thread(virtual):
    def root():
        me = vthreads.current_thread()
        return me is vthreads.current_thread(), me.ident == get_ident(), me.group, me.name

    assert (True, True, None, threading.current_thread().name) == virtual(root)


def test_each_virtual_thread_is_its_own_current_thread(virtual):
    def root():
        with ThreadGroup() as g:
            futures = [g.spawn(lambda: (sleep(1), vthreads.current_thread())[1]) for _ in range(3)]
        return [future.result() is future.thread for future in futures]

    assert [True] * 3 == virtual(root)


# --- a start that fails


@pytest.mark.parametrize("start", [vthreads.current_thread, lambda: vthreads.run(int)], ids=["first use", "run"])
def test_a_start_that_fails_leaves_an_ordinary_os_thread(start, monkeypatch):
    calls = []

    def fail(scheduler, patch):
        raise ValueError("VTHREADS_STALLS='never'")

    participant = Participant(started=fail, stopping=lambda scheduler: calls.append(scheduler.ident))
    monkeypatch.setattr(carrier, "participants", lambda: iter([participant]))

    def outside():
        with pytest.raises(ValueError, match="never"):
            start()
        return on_carrier(), get_ident()

    is_carrier, ident = in_os_thread(outside)
    assert (False, [ident]) == (is_carrier, calls)


# --- lazy start


@pytest.fixture
def unpatched(monkeypatch):
    """A carrier that starts by itself leaves the standard library as it is, as `run(patch=False)` does."""
    monkeypatch.setattr(carrier, "participants", lambda: iter(()))


@pytest.mark.usefixtures("unpatched")
@pytest.mark.parametrize(
    "first_use",
    [
        vthreads.current_thread,
        lambda: sleep(0),
        lambda: ThreadGroup.current.spawn(int).result(),
        lambda: vthreads.CancelScope().__enter__(),
    ],
    ids=["current_thread", "sleep", "spawn", "scope"],
)
def test_the_first_use_makes_an_os_thread_a_carrier(first_use):
    def outside():
        first_use()
        me = vthreads.current_thread()
        return me.ident == get_ident(), me.name == threading.current_thread().name

    assert (True, True) == in_os_thread(outside)


@pytest.mark.usefixtures("unpatched")
def test_a_group_works_in_an_os_thread_without_run():
    def outside():
        with ThreadGroup() as g:
            futures = [g.spawn(lambda number: (sleep(0.001), number)[1], number) for number in range(3)]
        return [future.result() for future in futures]

    assert [0, 1, 2] == in_os_thread(outside)


@pytest.mark.usefixtures("unpatched")
def test_an_os_thread_joins_its_background_when_it_ends():
    futures = []
    os_thread = threading.Thread(target=lambda: futures.append(ThreadGroup.current.spawn(lambda: (sleep(0.01), 5)[1])))
    os_thread.start()
    os_thread.join()
    assert 5 == futures[0].result(timeout=5)


def test_asking_does_not_make_an_os_thread_a_carrier():
    def outside():
        vthreads.now()
        vthreads.checkpoint()
        vthreads.remaining()
        vthreads.stopping()
        ThreadGroup()
        vthreads.CancelScope()
        return get_ident() in vthreads._core.current.carriers

    assert in_os_thread(outside) is False


# --- two runtimes


def test_two_runtimes_share_a_group_and_its_futures():
    entered, spawned = threading.Event(), []

    def second():
        entered.wait()
        here = get_ident()

        def root():
            def child():
                sleep(0)
                return get_ident()

            for _ in range(50):
                spawned.append(shared[0].spawn(child))
            # Waiting parks the virtual thread here until the thread over there has ended.
            return {future.result() for future in spawned}, here

        try:
            return vthreads.run(root, patch=False)
        finally:
            keepers[0]._unpark()

    shared, keepers, results = [], [], []

    def first():
        with ThreadGroup() as g:
            shared.append(g)
            keepers.append(g.spawn(lambda: vthreads.current_thread()._park()).thread)
            entered.set()

    os_thread = threading.Thread(target=lambda: results.append(second()))
    os_thread.start()
    vthreads.run(first, patch=False)
    os_thread.join()
    ((idents, elsewhere),) = results
    assert {get_ident()} == idents
    assert elsewhere not in idents


def test_a_runtime_cancels_the_threads_of_another():
    started, outcomes = threading.Event(), []

    def first():
        with ThreadGroup() as g:
            futures.append(g.spawn(lambda: vthreads.current_thread()._park()))
            started.set()
        return futures[0].cancelled()

    def second():
        started.wait()

        def root():
            futures[0].cancel()
            futures[0].thread.join()
            return futures[0].cancelled()

        outcomes.append(vthreads.run(root, patch=False))

    futures: list[Future] = []
    os_thread = threading.Thread(target=second)
    os_thread.start()
    assert vthreads.run(first, patch=False) is True
    os_thread.join()
    assert [True] == outcomes


def test_back_pressure_holds_between_runtimes():
    entered, most = threading.Event(), [0]

    def first():
        with ThreadGroup(max_concurrency=2) as g:
            shared.append(g)
            keeper = ThreadGroup.current.spawn(lambda: vthreads.current_thread()._park())
            keepers.append(keeper.thread)
            entered.set()

    def second():
        entered.wait()
        running = 0

        def child():
            nonlocal running
            running += 1
            most[0] = max(most[0], running)
            sleep(0.0005)
            running -= 1

        def root():
            with ThreadGroup() as here:
                for _ in range(4):
                    here.spawn(lambda: [shared[0].spawn(child) for _ in range(10)])

        vthreads.run(root, patch=False)
        keepers[0]._unpark()

    shared, keepers = [], []
    os_thread = threading.Thread(target=second)
    os_thread.start()
    vthreads.run(first, patch=False)
    os_thread.join()
    # One of the two permits belongs to the keeper.
    assert 1 == most[0]


@pytest.mark.usefixtures("unpatched")
def test_each_os_thread_has_its_own_background_group(virtual):
    def root():
        mine = ThreadGroup.current
        theirs = in_os_thread(lambda: ThreadGroup.current)
        return mine is theirs

    assert virtual(root) is False
