"""Ended threads are freed: a group keeps only what can still be requested."""

from __future__ import annotations

import concurrent.futures
import gc
import sys
import threading
import time
import traceback
import weakref
from contextlib import contextmanager
from contextvars import ContextVar

import pytest

import vthreads
from vthreads import ThreadGroup, sleep
from vthreads._sync.queues import SimpleQueue

pytestmark = pytest.mark.unpatched


class Tracked:
    """Something that a program made, and that can be seen to go."""


@contextmanager
def reference_counts_alone():
    """Without the garbage collector, so that what a cycle keeps is seen."""
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def alive(references):
    return sum(reference() is not None for reference in references)


# --- results


def by_spawn(group, fn):
    group.spawn(fn)


def by_try_spawn(group, fn):
    assert group.try_spawn(fn) is not None


def by_a_member(group, fn):
    group.spawn(lambda: group.spawn(fn) and None)


def by_an_os_thread(group, fn):
    vthreads.offload(lambda: group.spawn(fn) and None)
    sleep(2)


def by_spawn_with_a_callback(group, fn):
    group.spawn(fn).add_done_callback(lambda future: future.result())


@pytest.mark.parametrize(
    "spawn",
    [by_spawn, by_try_spawn, by_a_member, by_an_os_thread, by_spawn_with_a_callback],
    ids=lambda how: how.__name__,
)
@pytest.mark.parametrize("options", [{}, {"max_concurrency": 3}, {"on_failure": "continue"}], ids=str)
@pytest.mark.parametrize("seconds", [None, 1])
def test_a_result_that_nobody_holds_goes_when_the_member_ends(virtual, spawn, options, seconds):
    results = []

    def member():
        if seconds is not None:
            sleep(seconds)
        result = Tracked()
        results.append(weakref.ref(result))
        return result

    def root():
        with reference_counts_alone(), ThreadGroup(**options) as g:
            for _ in range(3):
                spawn(g, member)
            sleep(5)
            return len(g), len(results), alive(results)

    assert (0, 3, 0) == virtual(root)


def test_a_result_of_the_background_that_nobody_holds_goes(virtual):
    results = []

    def member():
        results.append(weakref.ref(result := Tracked()))
        return result

    def root():
        with reference_counts_alone():
            vthreads.spawn(member)
            return alive(results)

    assert 0 == virtual(root)


# --- as_completed


def test_as_completed_begins_with_the_ended_ones_whose_futures_are_held(virtual):
    def root():
        with ThreadGroup() as g:
            held = [g.spawn(lambda seconds=seconds: sleep(seconds) or seconds) for seconds in (5, 2, 1, 3)]
            sleep(2.5)
            return [(future.result(), vthreads.now()) for future in g.as_completed()], len(held)

    assert ([(1, 2.5), (2, 2.5), (3, 3.0), (5, 5.0)], 4) == virtual(root)


def test_as_completed_refuses_if_members_are_gone_and_tells_how_many_and_what_to_do(virtual):
    def root():
        with ThreadGroup("crawl") as g:
            held = [g.spawn(lambda: 1) for _ in range(2)]
            for _ in range(3):
                g.spawn(lambda: 2)
            g.spawn(sleep, 1)
            with pytest.raises(RuntimeError) as raised:
                g.as_completed()
            ways_out = [list(vthreads.as_completed(held)), len(g)]
        return str(raised.value), [len(way) if isinstance(way, list) else way for way in ways_out]

    message, ways_out = virtual(root)
    assert (
        "<ThreadGroup 'crawl' open members=1 failures=0>.as_completed() cannot yield 3 of 6 members: they ended before "
        "this call, and their futures were not kept; call as_completed() before spawning, or keep the futures and use "
        "vthreads.as_completed(futures)"
    ) == message
    assert [2, 1] == ways_out


@pytest.mark.parametrize("seconds", [None, 0, 1])
def test_as_completed_called_before_spawning_misses_none(virtual, seconds):
    def member(number):
        if seconds is not None:
            sleep(seconds)
        return number

    def root():
        with ThreadGroup(max_concurrency=7) as g:
            completed = g.as_completed()
            for number in range(500):
                g.spawn(member, number)
            return sorted(future.result() for future in completed)

    assert list(range(500)) == virtual(root)


@pytest.mark.parametrize("stride", [2, 10, 500])
def test_held_futures_are_known_however_many_went(virtual, stride):
    def root():
        with ThreadGroup() as g:
            futures = (g.spawn(lambda number=number: number) for number in range(2_000))
            held = [future for number, future in enumerate(futures) if number % stride == 0]
            with pytest.raises(RuntimeError) as raised:
                g.as_completed()
        return len(held), str(raised.value)

    held, message = virtual(root)
    assert f"cannot yield {2_000 - held} of 2000 members" in message


def test_all_futures_are_known_however_many_are_held(virtual):
    def root():
        with ThreadGroup() as g:
            futures = [g.spawn(lambda number=number: number) for number in range(2_000)]
            return [future.result() for future in g.as_completed()], len(futures)

    assert (list(range(2_000)), 2_000) == virtual(root)


def test_a_group_does_not_keep_the_futures_that_it_knows(virtual):
    def root():
        with reference_counts_alone(), ThreadGroup() as g:
            held = [g.spawn(lambda: None) for _ in range(100)]
            references = [weakref.ref(future) for future in held]
            list(g.as_completed())
            before = alive(references)
            held.clear()
            return before, alive(references)

    assert (100, 0) == virtual(root)


def test_what_as_completed_has_yielded_or_recorded_goes_with_it(virtual):
    results = []

    def member():
        results.append(weakref.ref(result := Tracked()))
        return result

    def root():
        with reference_counts_alone(), ThreadGroup() as g:
            completed = g.as_completed()
            for _ in range(4):
                g.spawn(member)
            next(completed)
            seen = [alive(results)]
            del completed
            return [*seen, alive(results)]

    assert [3, 0] == virtual(root)


def test_as_completed_after_the_block_knows_the_futures_that_are_held(virtual):
    def root():
        with ThreadGroup() as g:
            held = [g.spawn(lambda number=number: number) for number in range(3)]
        complete = [future.result() for future in g.as_completed()]
        del held[0]
        with pytest.raises(RuntimeError, match="cannot yield 1 of 3 members"):
            g.as_completed()
        return complete, len(held)

    assert ([0, 1, 2], 2) == virtual(root)


def test_what_a_finalizer_of_a_result_spawns_is_counted(virtual):
    def root():
        with ThreadGroup() as g:
            held = []

            class Spawns:
                def __del__(self):
                    held.append(g.spawn(lambda: None))

            for _ in range(200):
                held.append(g.spawn(lambda: None))
                # Dropped here, and with it what it returned.
                g.spawn(Spawns)
            with pytest.raises(RuntimeError) as raised:
                g.as_completed()
        return len(held), str(raised.value)

    held, message = virtual(root)
    assert 400 == held
    assert "cannot yield 200 of 600 members" in message


# --- failures


class Failure(Exception):
    pass


def failing(errors, seconds):
    local = Tracked()
    errors.append(weakref.ref(local))
    if seconds is not None:
        sleep(seconds)
    raise Failure(local)


def by_exception(group, errors, seconds):
    assert type(group.spawn(failing, errors, seconds).exception()) is Failure


def by_result(group, errors, seconds):
    with pytest.raises(Failure):
        group.spawn(failing, errors, seconds).result()


def by_a_callback(group, errors, seconds):
    group.spawn(failing, errors, seconds).add_done_callback(lambda future: future.exception())
    sleep(2)


def by_an_os_thread_that_asks(group, errors, seconds):
    asks = threading.Thread(target=group.spawn(failing, errors, seconds).exception)
    sleep(2)
    asks.start()
    asks.join()


def by_the_standard_library(group, errors, seconds):
    futures = [group.spawn(failing, errors, seconds)]
    sleep(2)
    assert [Failure] == [type(future.exception()) for future in concurrent.futures.as_completed(futures)]


@pytest.mark.parametrize(
    "take",
    [by_exception, by_result, by_a_callback, by_an_os_thread_that_asks, by_the_standard_library],
    ids=lambda how: how.__name__,
)
@pytest.mark.parametrize("seconds", [None, 1])
def test_an_independent_failure_that_was_taken_goes_with_its_frames(virtual, take, seconds):
    errors = []

    def root():
        with reference_counts_alone(), ThreadGroup(on_failure="continue") as g:
            for _ in range(3):
                take(g, errors, seconds)
            return len(errors), alive(errors), repr(g)

    taken = virtual(root)
    assert (3, 0) == taken[:2]
    assert "failures=0" in taken[2]


def test_a_failure_that_was_not_taken_is_raised_although_nobody_holds_its_future(virtual):
    shared = Failure("shared")

    def fail(error):
        raise error

    def root():
        with ThreadGroup(on_failure="continue") as g:
            taken = [g.spawn(fail, error) for error in (Failure("taken"), shared)]
            g.spawn(fail, Failure("dropped"))
            # Two members ended with this exception; the future of one was read.
            g.spawn(fail, shared)
            for future in taken:
                future.exception()
            raise Failure("body")

    with pytest.raises(ExceptionGroup) as raised:
        virtual(root)
    assert ["dropped", "shared", "body"] == [str(error) for error in raised.value.exceptions]


def test_an_exit_that_was_taken_is_raised_all_the_same(virtual):
    def root():
        with ThreadGroup(on_failure="continue") as g:
            assert type(g.spawn(sys.exit, 3).exception()) is SystemExit

    with pytest.raises(SystemExit, match="3"):
        virtual(root)


@pytest.mark.parametrize("errors", ["group", "first"])
@pytest.mark.parametrize("on_failure", ["cancel", "continue"])
def test_a_group_keeps_no_failure_that_it_has_raised(virtual, on_failure, errors):
    seen = []

    def root():
        with reference_counts_alone():
            g = ThreadGroup(on_failure=on_failure, errors=errors)
            try:
                with g:
                    g.spawn(failing, seen, None)
            except* Failure:
                pass
            return len(seen), alive(seen), len(g)

    assert (1, 0, 0) == virtual(root)


# --- without the garbage collector


def fails():
    local = Tracked()
    raise Failure(local)


def parks():
    local = Tracked()
    sleep(10)
    return local


def returns():
    sleep(0)
    return Tracked()


def a_group():
    with ThreadGroup() as g:
        g.spawn(returns)


def a_group_with_a_limit():
    with ThreadGroup(max_concurrency=1) as g:
        g.spawn(lambda: [g.spawn(returns) for _ in range(2)] == [])


def a_group_whose_futures_are_kept():
    with ThreadGroup() as g:
        futures = [g.spawn(returns) for _ in range(3)]
        list(g.as_completed())
    return [future.result() for future in futures] and None


def a_cancelled_group():
    with ThreadGroup() as g:
        g.spawn(parks)
        g.cancel()


def a_group_that_is_cancelled_by_a_member():
    with ThreadGroup() as g:
        g.spawn(lambda: sleep(0) or g.cancel())
        parks()


def a_group_that_is_shut_down():
    with ThreadGroup() as g:
        g.spawn(parks)
        g.shutdown(1)


def a_failed_group(**options):
    try:
        with ThreadGroup(**options) as g:
            g.spawn(parks)
            g.spawn(fails)
    except* Failure:
        pass


def a_group_that_raises_the_first_failure():
    a_failed_group(errors="first")


def a_group_whose_body_fails():
    try:
        with ThreadGroup() as g:
            g.spawn(parks)
            fails()
    except* Failure:
        pass


def a_group_with_a_deadline():
    with vthreads.move_on_after(1), ThreadGroup() as g:
        g.spawn(parks)


def a_nested_group():
    with ThreadGroup() as g:
        g.spawn(a_group_with_a_deadline)


def a_scope_that_was_not_cancelled():
    with vthreads.fail_after(10), vthreads.CancelScope():
        sleep(0)


def a_scope_that_expires():
    with vthreads.move_on_after(1):
        parks()


def a_scope_that_was_expired():
    with vthreads.move_on_after(0) as scope:
        parks()
    assert scope.cancelled_caught


def a_scope_that_raises_a_timeout():
    try:
        with vthreads.fail_after(1):
            parks()
    except TimeoutError:
        pass


def a_scope_that_is_cancelled_after_its_end():
    with vthreads.CancelScope() as scope:
        sleep(0)
    scope.cancel()
    assert scope.cancel_called


def a_shield():
    with vthreads.move_on_after(1), vthreads.shield(2):
        parks()


def a_thread_that_cancels_itself():
    with ThreadGroup() as g:
        g.spawn(lambda: vthreads.current_thread().cancel() or sleep(1))


def a_thread_that_is_cancelled_before_and_after_its_end():
    with ThreadGroup() as g:
        future = g.spawn(parks)
        thread = future.thread
        future.cancel()
        thread.join()
        thread.cancel()


def a_thread_that_is_cancelled_in_the_queue():
    with ThreadGroup(max_concurrency=1) as g:
        g.spawn(lambda: g.spawn(parks).cancel() and None)


def a_failure_that_the_body_takes():
    with ThreadGroup(on_failure="continue") as g:
        future = g.spawn(fails)
        try:
            future.result()
        except Failure:
            pass


def an_interrupted_thread():
    with ThreadGroup(on_failure="continue") as g:
        future = g.spawn(parks)
        future.thread.interrupt()
        future.exception()


def a_thread_that_is_interrupted_as_it_ends():
    with ThreadGroup() as g:
        g.spawn(lambda: vthreads.current_thread().interrupt())


def a_map():
    list(vthreads.map(lambda number: (sleep(1), number), range(3)))


def a_map_that_is_closed():
    steps = vthreads.map(lambda number: (sleep(1), number), range(3))
    next(steps)
    steps.close()


def a_map_that_fails():
    try:
        list(vthreads.map(lambda _: fails(), range(3)))
    except Failure:
        pass


def a_map_whose_source_fails():
    def source():
        yield 1
        fails()

    try:
        list(vthreads.map(lambda number: number, source()))
    except Failure:
        pass


def gathered():
    vthreads.gather(returns, returns)


def failures_gathered_as_values():
    vthreads.gather(fails, returns, return_exceptions=True)


def a_map_with_failures_as_values():
    list(vthreads.map(lambda _: fails(), range(3), return_exceptions=True))


def gathered_failures():
    try:
        vthreads.gather(fails, parks)
    except* Failure:
        pass


def a_race():
    vthreads.race(lambda: 1, parks)


def a_race_that_fails():
    try:
        vthreads.race(fails, fails)
    except* Failure:
        pass


def the_first_that_fails():
    try:
        vthreads.first_completed(fails, parks)
    except Failure:
        pass


def waits_that_time_out():
    for wait in (
        lambda: vthreads.Queue().get(timeout=1),
        lambda: vthreads.Event().wait(1),
        lambda: vthreads.Semaphore(0).acquire(timeout=1),
        lambda: vthreads.Condition(vthreads.Lock()).acquire(timeout=1),
        lambda: vthreads.spawn(sleep, 2).result(timeout=1),
        lambda: vthreads.spawn(sleep, 2).thread.join(1),
        lambda: list(vthreads.as_completed([vthreads.spawn(sleep, 2)], timeout=1)),
    ):
        try:
            wait()
        except (vthreads.Empty, TimeoutError):
            pass
    sleep(5)


OPERATIONS = [
    a_group,
    a_group_with_a_limit,
    a_group_whose_futures_are_kept,
    a_cancelled_group,
    a_group_that_is_cancelled_by_a_member,
    a_group_that_is_shut_down,
    a_failed_group,
    a_group_that_raises_the_first_failure,
    a_group_whose_body_fails,
    a_group_with_a_deadline,
    a_nested_group,
    a_scope_that_was_not_cancelled,
    a_scope_that_expires,
    a_scope_that_was_expired,
    a_scope_that_raises_a_timeout,
    a_scope_that_is_cancelled_after_its_end,
    a_shield,
    a_thread_that_cancels_itself,
    a_thread_that_is_cancelled_before_and_after_its_end,
    a_thread_that_is_cancelled_in_the_queue,
    a_failure_that_the_body_takes,
    an_interrupted_thread,
    a_thread_that_is_interrupted_as_it_ends,
    a_map,
    a_map_that_is_closed,
    a_map_that_fails,
    a_map_whose_source_fails,
    gathered,
    gathered_failures,
    failures_gathered_as_values,
    a_map_with_failures_as_values,
    a_race,
    a_race_that_fails,
    the_first_that_fails,
    waits_that_time_out,
]


@pytest.mark.parametrize("operation", OPERATIONS, ids=lambda operation: operation.__name__)
def test_what_an_operation_leaves_goes_by_reference_count(virtual, operation):
    def root():
        for _ in range(2):
            operation()
        with reference_counts_alone():
            for _ in range(5):
                operation()
            # Of the program's things none is left, and nothing that the collector has to find.
            return sum(type(thing) in (Tracked, Failure) for thing in gc.get_objects()), gc.collect()

    assert (0, 0) == virtual(root)


def functions_of_here(error):
    return [frame.name for frame in traceback.extract_tb(error.__traceback__) if frame.filename == __file__]


def test_a_failure_that_is_taken_again_and_again_keeps_one_caller(virtual):
    def root():
        with ThreadGroup(on_failure="continue") as g:
            future = g.spawn(fails)
            callers = []
            for _ in range(3):
                with pytest.raises(Failure) as raised:
                    future.result()
                callers.append(functions_of_here(raised.value))
        return callers, functions_of_here(future.exception())

    assert ([["root", "fails"]] * 3, ["fails"]) == virtual(root)


def test_a_block_that_fails_leaves_the_traceback_of_a_failure_as_it_is(virtual):
    def root():
        with ThreadGroup(on_failure="continue", errors="first") as g:
            future = g.spawn(fails)
            try:
                future.result()
            except Failure as failure:
                raise KeyError from failure

    with pytest.raises(KeyError) as raised:
        virtual(root)
    assert ["root", "fails"] == functions_of_here(raised.value.__cause__)


# --- contexts


request = ContextVar("request")


def handles(seconds, then=lambda: None):
    request.set(Tracked())
    if seconds is not None:
        sleep(seconds)
    return then()


def cancels_itself():
    vthreads.current_thread().cancel()
    sleep(1)


@pytest.mark.parametrize("then", [int, fails, cancels_itself], ids=lambda then: then.__name__)
@pytest.mark.parametrize("options", [{}, {"max_concurrency": 3}], ids=str)
@pytest.mark.parametrize("seconds", [None, 1])
def test_what_a_member_set_in_its_context_goes_at_its_end(virtual, seconds, options, then):
    def root():
        # Many at once, so that finished greenlets are left that run nothing else afterwards.
        with reference_counts_alone(), ThreadGroup(on_failure="continue", **options) as g:
            futures = [g.spawn(handles, seconds, then) for _ in range(20)]
            sleep(20)
            # Held and taken, the outcomes keep no context either.
            ended = [future.cancelled() or type(future.exception()) for future in futures]
            contexts = {len(future.thread.context) for future in futures}
            futures.clear()
            return len(ended), contexts, sum(type(thing) is Tracked for thing in gc.get_objects())

    assert (20, {0}, 0) == virtual(root)


def test_the_callbacks_of_a_future_still_run_in_the_context_of_its_thread(virtual):
    def root():
        seen = []

        def member():
            request.set("mine")
            sleep(1)

        with ThreadGroup() as g:
            g.spawn(member).add_done_callback(lambda _: seen.append(request.get(None)))
        return seen, request.get(None)

    assert (["mine"], None) == virtual(root)


def test_the_finalizer_of_what_a_context_held_may_park_and_the_block_waits_for_it(virtual):
    closed = []

    class Connection:
        def __del__(self):
            sleep(2)
            closed.append((vthreads.now(), request.get(None)))

    def member(seconds):
        request.set(Connection())
        sleep(seconds)

    def root():
        with ThreadGroup() as g:
            for seconds in (0, 1):
                g.spawn(member, seconds)
        return closed, vthreads.now()

    assert ([(2.0, None), (3.0, None)], 3.0) == virtual(root)


def test_the_context_of_the_root_outlives_what_it_spawned(virtual):
    def root():
        request.set("root")
        with ThreadGroup() as g:
            inside = g.spawn(request.get).result()
        return inside, request.get()

    assert ("root", "root") == virtual(root)


@pytest.fixture
def outside_the_context():
    yield
    assert request.get(None) is None


@pytest.mark.usefixtures("outside_the_context")
def test_later_tests_do_not_see_what_the_root_of_a_test_sets(virtual):
    assert "root" == virtual(lambda: request.set("root") and request.get())


# --- items that were handed over


def channel():
    made = vthreads.Channel(1)
    return made.send, made.receive


def simple_queue():
    made = SimpleQueue()
    return made.put, made.get


def queue():
    made = vthreads.Queue(1)
    return made.put, made.get


@pytest.mark.parametrize("make", [channel, simple_queue, queue])
@pytest.mark.parametrize("receiver", [vthreads.offload, vthreads.spawn])
def test_a_receiver_keeps_an_item_no_longer_than_its_program(virtual, make, receiver):
    put, get = make()
    taken, done = vthreads.Event(), threading.Event()

    def receive():
        get()
        taken.set()
        # Not by a wait like the first one, which would replace all that the first one has left.
        while not done.is_set():
            time.sleep(0.001)

    def root():
        with reference_counts_alone(), ThreadGroup() as group:
            group.spawn(receiver, receive)
            sleep(2)
            item = Tracked()
            reference = weakref.ref(item)
            put(item)
            del item
            taken.wait()
            kept = alive([reference])
            done.set()
        return kept

    assert 0 == virtual(root, patch=True)
