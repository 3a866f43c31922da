"""Circles of locks are reported to their members, whatever else lives; and nothing else is."""

from __future__ import annotations

import contextlib
import subprocess
import sys
import threading
import weakref

import pytest

import vthreads
from vthreads import DeadlockError, Lock, Mutex, RLock, RwLock, ThreadGroup, sleep
from vthreads._core import originals
from vthreads._core.engine import contended
from vthreads.debug import _lock_circles as circles
from vthreads.testing import wait_all_parked

pytestmark = [pytest.mark.real, pytest.mark.unpatched]


@pytest.fixture(autouse=True)
def frequent_looks(monkeypatch):
    monkeypatch.setattr(circles, "LOOK_EVERY", 0.02)


def hold_and_take(first, second, is_held, others_hold):
    with first:
        is_held.set()
        for held in others_hold:
            held.wait()
        with second:
            pass


def hold_and_take_by_calls(first, second, is_held, others_hold):
    first.acquire()
    try:
        is_held.set()
        for held in others_hold:
            held.wait()
        second.acquire()
        second.release()
    finally:
        first.release()


class Account:
    """An object that acquires its lock in `__enter__`."""

    def __init__(self, lock):
        self._lock = lock

    def __enter__(self):
        self._lock.acquire()

    def __exit__(self, *_):
        self._lock.release()


def hold_and_take_accounts(first, second, is_held, others_hold):
    first, second = Account(first), Account(second)
    hold_and_take(first, second, is_held, others_hold)


def hold_and_take_items(first, second, is_held, others_hold):
    number, name, locks = 1, "second", {"first": [None, first], "second": (None, second)}
    with locks["first"][number]:
        is_held.set()
        for held in others_hold:
            held.wait()
        with locks[name][-1]:
            pass


def hold_and_take_values(first, second, is_held, others_hold):
    with first.lock():
        is_held.set()
        for held in others_hold:
            held.wait()
        with second.lock():
            pass


def result(lock):
    return lock


def hold_and_take_results(first, second, is_held, others_hold):
    """The lock of a block is the result of a call, so no name refers to it."""
    with result(first):
        is_held.set()
        for held in others_hold:
            held.wait()
        with result(second):
            pass


@contextlib.contextmanager
def holding(lock):
    with lock:
        yield


def hold_and_take_in_generators(first, second, is_held, others_hold):
    """No frame of the thread is in a block of the lock: while its body runs, the generator is on no stack."""
    hold_and_take(holding(first), holding(second), is_held, others_hold)


def hold_and_take_on_a_stack(first, second, is_held, others_hold):
    with contextlib.ExitStack() as stack:
        stack.enter_context(first)
        is_held.set()
        for held in others_hold:
            held.wait()
        stack.enter_context(second)


def ring(locks, hold_and_take=hold_and_take):
    """Threads that each hold one lock and wait for the next one's; the errors that came out, by the thread's number."""
    held = [vthreads.Event() for _ in locks]
    errors = {}

    def member(number):
        try:
            hold_and_take(locks[number], locks[(number + 1) % len(locks)], held[number], held)
        except BaseException as error:
            errors[number] = error
            raise

    try:
        # The timer prevents a deadlock of the process, which would be reported at once.
        with vthreads.fail_after(100), ThreadGroup(on_failure="continue") as group:
            for number in range(len(locks)):
                group.spawn(member, number).thread.name = f"member-{number}"
    except ExceptionGroup:
        pass
    return errors


# By name, since the locks of `threading` are exchanged when the runtime starts.
MAKERS = {
    "Lock": Lock,
    "RLock": RLock,
    "threading.Lock": lambda: threading.Lock(),  # noqa: PLW0108  # as above
    "threading.RLock": lambda: threading.RLock(),  # noqa: PLW0108
    "threading.Condition": lambda: threading.Condition(),  # noqa: PLW0108
    "Mutex": lambda: Mutex({}),
}


@pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS)
@pytest.mark.parametrize("count", [2, 3])
def test_the_members_of_a_circle_get_a_deadlock_error(make, count):
    function = hold_and_take_values if make is MAKERS["Mutex"] else hold_and_take
    errors = vthreads.run(lambda: ring([make() for _ in range(count)], function))
    assert [DeadlockError] * count == [type(errors[number]) for number in range(count)]
    assert len(set(map(id, errors.values()))) == count
    text = str(errors[0])
    for number in range(count):
        assert f"  'member-{number}' waits in " in text
        assert f"    for a lock that 'member-{number}' holds" in text
    assert "hold_and_take" in text


@pytest.mark.parametrize("name", ["Lock", "RLock", "threading.Lock", "threading.RLock"])
@pytest.mark.parametrize("count", [2, 3])
@pytest.mark.parametrize(
    "hold_and_take",
    [
        hold_and_take_by_calls,
        hold_and_take_accounts,
        hold_and_take_items,
        hold_and_take_results,
        hold_and_take_in_generators,
        hold_and_take_on_a_stack,
    ],
    ids=["calls", "accounts", "items", "results", "generators", "stack"],
)
def test_locks_that_are_acquired_in_another_way_are_a_circle(name, count, hold_and_take):
    make = MAKERS[name]
    errors = vthreads.run(lambda: ring([make() for _ in range(count)], hold_and_take))
    assert [DeadlockError] * count == [type(errors[number]) for number in range(count)]


@pytest.mark.parametrize("hold_and_take", [hold_and_take, hold_and_take_by_calls], ids=["with", "calls"])
@pytest.mark.parametrize("make", [Lock, RLock], ids=["Lock", "RLock"])
@pytest.mark.parametrize("is_last", [False, True], ids=["OS thread first", "OS thread last"])
def test_an_os_thread_can_be_a_member(make, hold_and_take, is_last):
    # Whether the OS thread begins to wait before or after the virtual thread's wait has been checked.
    locks, held, is_checked = [make(), make()], [threading.Event(), threading.Event()], threading.Event()
    errors = []

    def member(number, others_hold):
        try:
            hold_and_take(locks[number], locks[1 - number], held[number], others_hold)
        except BaseException as error:
            errors.append(error)

    os_thread = threading.Thread(target=member, args=[0, [*held, is_checked] if is_last else held], name="plain")

    def root():
        os_thread.start()
        held[0].wait()
        with vthreads.fail_after(100), ThreadGroup() as group:
            group.spawn(member, 1, held).thread.name = "virtual"
            sleep(0.1)
            is_checked.set()

    vthreads.run(root)
    os_thread.join()
    # The first member that gets the error releases its lock, and the other one may continue with it.
    assert {DeadlockError} == set(map(type, errors))
    assert "'plain' waits in an OS thread, called at" in str(errors[0])
    assert "'virtual' waits in " in str(errors[0])
    assert not any(lock.locked() for lock in locks)


def write_in_blocks_of_a_helper(first, second, is_held, other_is_held):
    # The source of this function does not show which locks it holds.
    accesses = [first.write(), second.write()]
    with accesses[0]:
        is_held.set()
        other_is_held.wait()
        with accesses[1]:
            pass


def write_in_blocks_without_source(*arguments):
    names = {}
    exec(
        "def write(first, second, is_held, other_is_held):\n"
        "    with first.read():\n"
        "        is_held.set()\n"
        "        other_is_held.wait()\n"
        "        with second.write():\n"
        "            pass\n",
        names,
    )
    names["write"](*arguments)


def write_in_a_stack(first, second, is_held, other_is_held):
    with contextlib.ExitStack() as stack:
        stack.enter_context(first.write())
        is_held.set()
        other_is_held.wait()
        stack.enter_context(second.write())


def write_in_a_read(first, second, is_held, other_is_held):
    with first.read():
        is_held.set()
        other_is_held.wait()
        with second.write():
            pass


@pytest.mark.parametrize(
    "function", [write_in_a_read, write_in_blocks_of_a_helper, write_in_blocks_without_source, write_in_a_stack]
)
def test_a_writer_and_a_reader_are_a_circle(function):
    def root():
        one, other = RwLock(1), RwLock(2)
        is_held, other_is_held = vthreads.Event(), vthreads.Event()
        with vthreads.fail_after(100), ThreadGroup(on_failure="continue") as group:
            futures = [
                group.spawn(function, one, other, is_held, other_is_held),
                group.spawn(function, other, one, other_is_held, is_held),
            ]
            return [future.exception() for future in futures]

    assert [DeadlockError] * 2 == list(map(type, vthreads.run(root)))


def take_again(lock):
    with lock, lock:
        pass


def test_a_thread_that_waits_for_its_own_lock_is_a_circle():
    def root():
        with ThreadGroup(on_failure="continue") as group:
            group.spawn(sleep, 0.2)
            return group.spawn(take_again, Lock()).exception()

    assert DeadlockError is type(vthreads.run(root))


def test_an_os_thread_that_lives_does_not_hide_a_circle():
    over = threading.Event()
    os_thread = threading.Thread(target=over.wait)
    os_thread.start()
    try:
        errors = vthreads.run(lambda: ring([Lock(), Lock()]), patch=False)
    finally:
        over.set()
        os_thread.join()
    assert {0: DeadlockError, 1: DeadlockError} == {number: type(error) for number, error in errors.items()}


IN_A_STRING = """
import threading
import vthreads
from vthreads.debug import _lock_circles

_lock_circles.LOOK_EVERY = 0.02

def hold_and_take(first, second, is_held, other_is_held):
    first.acquire()
    try:
        is_held.set()
        other_is_held.wait()
        second.acquire()
        second.release()
    finally:
        first.release()

def main():
    locks, held = [threading.Lock(), threading.Lock()], [threading.Event(), threading.Event()]
    with vthreads.move_on_after(LIMIT), vthreads.ThreadGroup(on_failure="continue") as group:
        members = [
            group.spawn(hold_and_take, locks[at], locks[1 - at], held[at], held[1 - at]) for at in range(2)
        ]
        try:
            print(type(members[0].exception()).__name__)
        finally:
            group.cancel()

main()
"""


@pytest.mark.parametrize("options", [["-c"], ["-uc"], ["-m", "vthreads", "run", "-c"]], ids=" ".join)
def test_a_circle_in_a_program_of_the_option_c_is_found(options):
    program = IN_A_STRING.replace("LIMIT", "100")
    done = subprocess.run([sys.executable, *options, program], capture_output=True, text=True, check=False, timeout=100)
    assert "DeadlockError\n" == done.stdout, done.stderr


def test_a_circle_in_a_string_that_a_program_executes_is_not_looked_up_in_the_program():
    # A function of the same name at the same line of the program shows nothing of this one.
    executed = IN_A_STRING.replace("LIMIT", "0.5")
    program = executed.replace("\nmain()\n", f"\nexec({executed!r})\nprint('ended')\n")
    program = program.replace("        is_held.set()", "        is_held.set() or print()", 1)
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False, timeout=100)
    assert "ended\n" == done.stdout, done.stderr


def test_a_circle_is_found_among_threads_that_keep_the_carrier_busy():
    def root():
        with ThreadGroup() as group:
            group.spawn(busy)
            errors = ring([Lock(), Lock()])
            group.cancel()
        return errors

    assert {0, 1} == set(vthreads.run(root))


def busy():
    while True:
        vthreads.checkpoint()


def test_a_circle_across_carriers_is_found():
    locks, held = [Lock(), Lock()], [threading.Event(), threading.Event()]
    errors = []

    def carrier(number):
        def root():
            with ThreadGroup(on_failure="continue") as group:
                # With a timer the carrier has no deadlock before the other one has begun to wait.
                timer = group.spawn(sleep, 60)
                member = group.spawn(hold_and_take, locks[number], locks[1 - number], held[number], held)
                errors.append(member.exception())
                timer.cancel()

        vthreads.run(root, patch=False)

    os_threads = [threading.Thread(target=carrier, args=[number]) for number in range(2)]
    for os_thread in os_threads:
        os_thread.start()
    for os_thread in os_threads:
        os_thread.join()
    # The first that is notified releases its lock, and the other one may go on with it.
    assert DeadlockError in map(type, errors)
    assert 2 == len(errors)


class Meeting(threading.Barrier):
    """Where two OS threads wait for each other, in place of the event that a member sets."""

    def __init__(self):
        super().__init__(2)

    def set(self):
        pass


def test_a_circle_across_carriers_that_wait_on_the_stacks_of_its_members_is_found():
    locks, both = [Lock(), Lock()], Meeting()
    errors = []

    def carrier(number):
        def root():
            with ThreadGroup() as group:
                timer = group.spawn(sleep, 60)
                # The root parks last, so its carrier waits for events on the stack of the root.
                hold_and_take(locks[number], locks[1 - number], both, [both])
                timer.cancel()

        try:
            vthreads.run(root, patch=False)
        except BaseException as error:
            errors.append(error)

    os_threads = [threading.Thread(target=carrier, args=[number]) for number in range(2)]
    for os_thread in os_threads:
        os_thread.start()
    for os_thread in os_threads:
        os_thread.join()
    # The first member that gets the error releases its lock, and the other one may go on with it.
    assert errors


# --- what is no circle


def healthy(root):
    """The outcome of `root()` after so many looks that a circle would have been reported."""

    def body():
        with ThreadGroup() as group:
            future = group.spawn(root)
            sleep(0.15)
        return future.result()

    return vthreads.run(body)


def test_a_wait_with_a_timeout_is_not_reported():
    def root():
        a, b, both_hold = Lock(), Lock(), vthreads.Barrier(2)

        def member(first, second):
            with first:
                both_hold.wait()
                return second.acquire(timeout=0.1)

        with ThreadGroup() as group:
            futures = [group.spawn(member, a, b), group.spawn(member, b, a)]
        return [future.result() for future in futures]

    assert False in healthy(root)


def test_a_holder_that_does_something_else_is_not_reported():
    def root():
        a, b = Lock(), Lock()

        def hold():
            with a, b:
                sleep(0.1)
            return "held"

        with ThreadGroup() as group:
            futures = [group.spawn(hold) for _ in range(3)]
        return [future.result() for future in futures]

    assert ["held"] * 3 == healthy(root)


def test_a_lock_that_another_thread_releases_is_not_reported():
    def root():
        ping, pong = Lock(), Lock()

        def play(mine, other):
            mine.acquire()
            other_taken = mine.acquire()
            other.release()
            return other_taken

        with ThreadGroup() as group:
            futures = [group.spawn(play, ping, pong), group.spawn(play, pong, ping)]
            sleep(0.1)
            ping.release()
        return [future.result() for future in futures]

    assert [True, True] == healthy(root)


def test_a_lock_that_is_released_inside_its_block_is_not_held():
    def root():
        ours, theirs = Lock(), Lock()

        def release_for_a_while():
            with ours:
                ours.release()
                try:
                    with theirs:
                        pass
                finally:
                    ours.acquire()
            return "through"

        def hold_theirs():
            with theirs, ours:
                return "had both"

        ours.acquire()
        theirs.acquire()
        with ThreadGroup() as group:
            first = group.spawn(release_for_a_while)
            ours.release()
            sleep(0.01)
            ours.acquire()
            theirs_future = group.spawn(hold_theirs)
            theirs.release()
            sleep(0.1)
            ours.release()
        return first.result(), theirs_future.result()

    assert ("through", "had both") == healthy(root)


@pytest.mark.parametrize("module", [vthreads, threading], ids=lambda module: module.__name__)
def test_a_condition_that_takes_its_lock_again_does_not_hold_it(module):
    def root():
        # By name, since `threading` has other locks when the runtime has started.
        condition = module.Condition(module.Lock())

        def wait():
            with condition:
                return condition.wait()

        with ThreadGroup() as group:
            future = group.spawn(wait)
            sleep(0.01)
            with condition:
                condition.notify()
                sleep(0.1)
        return future.result()

    assert healthy(root)


def test_locks_that_only_others_release_are_no_circle():
    def root():
        ping, pong = Lock(), Lock()

        def take_both(first, second):
            first.acquire()
            sleep(0.01)
            return second.acquire()

        with ThreadGroup() as group:
            futures = [group.spawn(take_both, ping, pong), group.spawn(take_both, pong, ping)]
            sleep(0.1)
            ping.release()
            pong.release()
        return [future.result() for future in futures]

    assert [True, True] == healthy(root)


def test_a_thread_that_waits_for_a_release_by_another_one_is_no_circle():
    def root():
        gate = Lock()

        def wait_twice():
            gate.acquire()
            gate.acquire()
            gate.release()
            return "through"

        with ThreadGroup() as group:
            future = group.spawn(wait_twice)
            sleep(0.1)
            gate.release()
        return future.result()

    assert "through" == healthy(root)


@pytest.mark.parametrize("make", [Lock, RLock], ids=["Lock", "RLock"])
def test_a_member_that_was_handed_the_lock_gets_no_error(make):
    lock, events = make(), []
    # Gates that block a carrier too.
    held, may_release, released = gates = [originals.allocate_lock() for _ in range(3)]
    for gate in gates:
        gate.acquire()

    def hold():
        lock.acquire()
        held.release()
        may_release.acquire()
        lock.release()
        released.release()

    def member():
        with lock:
            events.append("held")
            # Checkpoints, at which an error that is pending would be raised.
            sleep(0)
        sleep(0)
        events.append("ended")

    def root():
        with ThreadGroup() as group:
            thread = group.spawn(member).thread
            # The member parks before `spawn` returns only if the time slice lasts so long.
            wait_all_parked()
            wait = circles._Wait(thread, lock)
            # Block the carrier, so that it has not read the message of the hand-over when the circle is reported.
            may_release.release()
            released.acquire()
            assert wait.goes_on()
            circles._interrupt_waiter(wait, "too late")

    os_thread = threading.Thread(target=hold)
    os_thread.start()
    held.acquire()
    vthreads.run(root)
    os_thread.join()
    assert ["held", "ended"] == events


def test_a_circle_that_a_cancellation_ends_is_left_to_it():
    def root():
        a, b = Lock(), Lock()

        def member(first, second):
            with first:
                try:
                    sleep(60)
                finally:
                    with second:
                        pass

        # A DeadlockError would be a failure of the group.
        with ThreadGroup(cleanup_grace=0.15) as group:
            group.spawn(member, a, b)
            group.spawn(member, b, a)
            sleep(0)
            group.cancel()

    vthreads.run(root)


# --- what it costs


def test_a_wait_that_is_known_does_not_wake_the_carrier_again():
    def root():
        lock = Lock()
        with lock, ThreadGroup() as group:
            group.spawn(lock.acquire)
            sleep(0.1)
            listed = list(contended)
            group.cancel()
        return listed

    assert [] == vthreads.run(root)


def test_a_lock_that_was_waited_for_is_not_kept():
    def root():
        lock = Lock()
        with ThreadGroup() as group:
            with lock:
                group.spawn(lock.acquire)
            sleep(0)
        reference = weakref.ref(lock)
        del lock
        return reference()

    assert vthreads.run(root) is None
