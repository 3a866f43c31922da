"""Exceptions that refuse attributes, notes or tracebacks pass through threads, groups and calls unchanged."""

import dataclasses
import io
import logging
import os
import sys
import threading

import pytest

import vthreads
import vthreads.testing
from vthreads import Semaphore, ThreadGroup, sleep
from vthreads._core import exceptions

pytestmark = pytest.mark.unpatched


@dataclasses.dataclass(frozen=True)
class Frozen(Exception):
    code: int = 1


@dataclasses.dataclass(frozen=True, slots=True)
class FrozenWithSlots(Exception):
    code: int = 1


class RefusesAttributes(Exception):
    def __setattr__(self, name, value):
        raise RuntimeError(f"no {name}")


class AnswersForAttributes(Exception):
    def __getattribute__(self, name):
        raise RuntimeError(f"no {name}")


class NotesByProperty(Exception):
    @property
    def __notes__(self):
        raise RuntimeError("no notes")


class NotesInATuple(Exception):
    __notes__ = ("a note",)


class NotesInAString(Exception):
    def __init__(self):
        self.__notes__ = "a note"


class RefusesNotes(Exception):
    def add_note(self, note):
        raise RuntimeError("no notes")


class WithoutText(Exception):
    def __repr__(self):
        raise RuntimeError("no text")

    __str__ = __repr__


class TextIsNoString(Exception):
    def __str__(self):
        return 3  # noqa: PLE0307  # the case


class ExitsInItsText(Exception):
    def __str__(self):
        raise SystemExit("no text")


class Guarded(dict):
    """A dict whose methods raise."""

    def refuse(self, *_):
        raise RuntimeError("no access")

    get = setdefault = __contains__ = __getitem__ = __setitem__ = refuse


class AttributesInAnotherDict(Exception):
    def __init__(self):
        self.__dict__ = Guarded()


class RefusesToBeDescribed(type):
    def refuse(cls):
        raise RuntimeError("no attributes")

    __name__ = __mro__ = __dict__ = property(refuse)


class OfARefusingClass(Exception, metaclass=RefusesToBeDescribed):
    pass


# By the getter of `type`, which no metaclass overrides.
name_of = vars(type)["__name__"].__get__


class ComparesBadly(Exception):
    def __eq__(self, other):
        raise RuntimeError("no comparison")

    __hash__ = None


class Empty(Exception):
    def __len__(self):
        return len(self.args)


class NeitherTrueNorFalse(Exception):
    def __bool__(self):
        raise RuntimeError("no truth")


class OddSyntaxError(SyntaxError):
    def __init__(self):
        super().__init__("odd", ("file", 1, "offset", 7))


class Suppresses(Exception):
    suppressed = property(lambda self: "its own")


ODD = [
    Frozen,
    FrozenWithSlots,
    RefusesAttributes,
    AnswersForAttributes,
    NotesByProperty,
    NotesInATuple,
    NotesInAString,
    RefusesNotes,
    WithoutText,
    TextIsNoString,
    ExitsInItsText,
    AttributesInAnotherDict,
    OfARefusingClass,
    ComparesBadly,
    Empty,
    NeitherTrueNorFalse,
    OddSyntaxError,
    Suppresses,
]


@pytest.fixture(params=ODD, ids=name_of)
def odd(request):
    """An exception of a class that refuses something, made for one test."""
    return request.param()


def failing(error, after=0.0):
    if after:
        sleep(after)
    raise error


def raised_by(fn, *args):
    """The exception that `fn(*args)` ends with."""
    try:
        fn(*args)
    except BaseException as error:
        return error
    raise AssertionError(f"{fn} raised nothing")


def same(error, expected):
    """Whether it is one object; not in an `assert`, which would show it."""
    return error is expected


def only_failure(group):
    """The failure in an `ExceptionGroup` of one."""
    assert isinstance(group, BaseExceptionGroup), type(group)
    (failure,) = group.exceptions
    return failure


def run_group(*calls, **options):
    with ThreadGroup(**options) as group:
        for fn, *args in calls:
            group.spawn(fn, *args)


# --- any exception comes out as it is


@pytest.mark.parametrize("after", [0.0, 1.0])
def test_an_odd_failure_comes_out_of_its_group_and_the_others_are_cancelled(virtual, odd, after):
    def root():
        error = raised_by(run_group, (failing, odd, after), (sleep, 3600))
        return error, vthreads.now()

    error, ended = virtual(root)
    assert same(only_failure(error), odd)
    assert after == ended


def test_an_odd_failure_of_the_body_comes_out_of_its_group(virtual, odd):
    def body():
        with ThreadGroup() as group:
            group.spawn(sleep, 3600)
            raise odd

    assert same(only_failure(virtual(lambda: raised_by(body))), odd)


def test_an_odd_failure_is_the_first_of_several(virtual, odd):
    other = ValueError("other")

    def root():
        return raised_by(lambda: run_group((failing, odd), (failing, other), errors="first", on_failure="continue"))

    assert same(virtual(root), odd)
    if type(odd) not in (AnswersForAttributes, Suppresses):
        assert (other,) == odd.suppressed


def test_an_odd_failure_beside_an_exit_is_noted_on_it(virtual, odd):
    leaving = SystemExit(3)

    def root():
        return raised_by(run_group, (failing, odd, 1), (failing, leaving, 1))

    assert virtual(root) is leaving
    assert any("also failed" in note and name_of(type(odd)) in note for note in leaving.__notes__)


def test_an_odd_failure_comes_out_of_its_future_as_often_as_it_is_asked(virtual, odd):
    def root():
        with ThreadGroup(on_failure="continue") as group:
            future = group.spawn(failing, odd, 1)
            return raised_by(future.result), raised_by(future.result), future.exception()

    assert [True] * 3 == [same(error, odd) for error in virtual(root)]


@pytest.mark.parametrize("after", [0.0, 1.0])
def test_an_odd_failure_in_the_background_is_reported_once(virtual, odd, after, monkeypatch):
    seen = []
    monkeypatch.setattr(threading, "excepthook", lambda details: seen.append(details.exc_value))

    def root():
        vthreads.spawn(failing, odd, after)
        sleep(2)

    virtual(root)
    assert 1 == len(seen)
    assert same(seen[0], odd)


def test_an_odd_exception_passes_scopes_and_time_limits(virtual, odd):
    def body():
        with vthreads.fail_after(1), vthreads.shield(1), vthreads.CancelScope():
            raise odd

    assert same(virtual(lambda: raised_by(body)), odd)


def test_an_odd_failure_comes_out_of_gather(virtual, odd):
    assert same(only_failure(virtual(lambda: raised_by(vthreads.gather, lambda: failing(odd)))), odd)


def test_an_odd_failure_comes_out_of_race(virtual, odd):
    assert same(only_failure(virtual(lambda: raised_by(vthreads.race, lambda: failing(odd)))), odd)


def test_an_odd_failure_comes_out_of_first_completed(virtual, odd):
    assert same(virtual(lambda: raised_by(vthreads.first_completed, lambda: failing(odd))), odd)


def test_an_odd_failure_comes_out_of_map_at_its_place(virtual, odd):
    def root():
        results = vthreads.map(lambda number: number if number < 2 else failing(odd), [1, 2, 3])
        return next(results), raised_by(next, results)

    first, error = virtual(root)
    assert 1 == first
    assert same(error, odd)


def test_an_odd_failure_comes_out_of_offload(odd):
    assert same(vthreads.run(lambda: raised_by(vthreads.offload, failing, odd), patch=False), odd)


def test_an_odd_exception_interrupts(virtual, odd):
    def root():
        with ThreadGroup(on_failure="continue") as group:
            future = group.spawn(sleep, 3600)
            future.thread.interrupt(odd)
            return future.exception()

    assert same(virtual(root), odd)


def test_an_odd_interrupt_of_a_block_that_waits_comes_out_of_it(virtual, odd):
    def root():
        body = vthreads.current_thread()
        return raised_by(run_group, (lambda: (sleep(1), body.interrupt(odd), sleep(3600)),))

    assert same(only_failure(virtual(root)), odd)


def in_a_block(make):
    """Raise an exception in the block of `make()`."""

    def raise_in_it(error):
        with make():
            raise error

    return raise_in_it


BLOCKS = {
    "check_nothing_leaked": vthreads.testing.check_nothing_leaked,
    "no_park": vthreads.testing.no_park,
    "sequencer": lambda: vthreads.testing.Sequencer()(0),
}


@pytest.mark.parametrize("make", BLOCKS.values(), ids=BLOCKS)
def test_an_odd_exception_passes_the_blocks_of_tests(virtual, odd, make):
    assert same(virtual(lambda: raised_by(in_a_block(make), odd)), odd)


@pytest.mark.parametrize("make", BLOCKS.values(), ids=BLOCKS)
@pytest.mark.parametrize("error", [StopIteration(3), GeneratorExit(), SystemExit(1)], ids=repr)
def test_what_means_something_to_generators_passes_the_blocks_of_tests(virtual, make, error):
    assert same(virtual(lambda: raised_by(in_a_block(make), error)), error)


def test_a_block_of_tests_decorates_a_function_as_often_as_that_is_called(virtual):
    @vthreads.testing.no_park()
    def quiet():
        return sleep

    @vthreads.testing.no_park()
    def parks():
        sleep(1)

    def root():
        quiet()
        return quiet() is sleep, raised_by(parks), raised_by(parks)

    answer, first, second = virtual(root)
    assert answer
    assert [vthreads.testing.Parked] * 2 == [type(first), type(second)]


def test_an_odd_interrupt_ends_the_read_of_a_file(odd):
    def root():
        reader, writer = os.pipe()
        with open(reader, "rb") as file, open(writer, "wb"), ThreadGroup(on_failure="continue") as group:
            future = group.spawn(file.read, 10)
            future.thread.interrupt(odd)
            return future.exception()

    assert same(vthreads.run(root), odd)


@pytest.mark.parametrize("kind", [Frozen, RefusesAttributes, WithoutText, NeitherTrueNorFalse])
def test_explore_tells_of_an_odd_failure(kind):
    error = kind()
    with pytest.raises(vthreads.testing.ScheduleFailed, match=f"error.*{kind.__name__}") as caught:
        vthreads.testing.explore(lambda: failing(error), schedules=2)
    assert caught.value.__cause__ is error


# --- what is added to an exception


def notes_of(error):
    return getattr(error, "__notes__", [])


def test_a_frozen_failure_tells_where_its_thread_was_spawned(virtual):
    error = only_failure(virtual(lambda: raised_by(run_group, (failing, Frozen()))))
    assert ["in virtual thread"] == [note[:17] for note in notes_of(error)]


def test_notes_that_are_no_list_stay_as_they_are(virtual):
    for kind in (NotesInATuple, NotesInAString):
        error = only_failure(virtual(lambda kind=kind: raised_by(run_group, (failing, kind()))))
        assert kind().__notes__ == error.__notes__


def test_a_message_that_cannot_be_made_is_replaced_in_the_reason(virtual):
    def root():
        reasons = []

        def other():
            try:
                sleep(3600)
            except vthreads.Cancelled as cancelled:
                reasons.append(cancelled.reason)
                raise

        raised_by(run_group, (other,), (failing, WithoutText()))
        return reasons

    (reason,) = virtual(root)
    assert reason.endswith("failed: WithoutText: <exception str() failed>")


def test_the_reason_of_a_cancellation_leaves_out_what_the_failure_came_from(virtual):
    asked = []

    class Told(Exception):
        def __str__(self):
            asked.append(self)
            return "text"

    error = Told()
    error.__context__ = Told()
    error.__cause__ = Told()
    virtual(lambda: raised_by(run_group, (failing, error)))
    assert [error] == asked


def test_one_exception_of_many_threads_has_few_notes(virtual):
    def root(count, error):
        for _ in range(count):
            raised_by(run_group, (failing, error))

    few, many = LookupError("shared"), LookupError("shared")
    virtual(lambda: root(12, few))
    virtual(lambda: root(500, many))
    assert len(few.__notes__) == len(many.__notes__) < 12
    assert "there are more" in many.__notes__[-1]


def test_notes_of_the_program_are_no_reason_to_leave_out_ours(virtual):
    error = LookupError("noted")
    for number in range(50):
        error.add_note(f"note {number}")
    virtual(lambda: raised_by(run_group, (failing, error)))
    assert 51 == len(error.__notes__)


def test_a_first_failure_of_many_has_few_notes_and_all_the_others(virtual):
    def root():
        calls = [(failing, ValueError(number)) for number in range(200)]
        return raised_by(lambda: run_group(*calls, errors="first", on_failure="continue"))

    error = virtual(root)
    assert 199 == len(error.suppressed)
    assert len(error.__notes__) < 20


# --- what is called at the end of a thread


def test_a_failing_log_filter_keeps_no_callback_and_no_thread_from_its_end(virtual, monkeypatch):
    shown, called = [], []
    monkeypatch.setattr(sys, "excepthook", lambda kind, error, traceback: shown.append(error))
    refusal = RuntimeError("no logging")

    def refuse(record):
        raise refusal

    def root():
        with ThreadGroup() as group:
            future = group.spawn(sleep, 1)
            future.add_done_callback(lambda future: 1 / 0)
            future.add_done_callback(called.append)
        return future

    logger = logging.getLogger("vthreads")
    logger.addFilter(refuse)
    try:
        assert [virtual(root)] == called
    finally:
        logger.removeFilter(refuse)
    assert [refusal] == shown


class Slow:
    """A stream whose calls park."""

    def __init__(self):
        self.writes = []

    def write(self, text):
        sleep(1)
        self.writes.append(text)

    def flush(self):
        sleep(1)


def test_reports_of_threads_that_fail_together_are_not_mixed(virtual, monkeypatch):
    stream = Slow()
    monkeypatch.setattr(threading, "excepthook", threading.__excepthook__)
    monkeypatch.setattr(sys, "stderr", stream)

    def root():
        for number in range(3):
            vthreads.spawn(failing, ValueError(f"failure {number}"), 1)

    virtual(root)
    reports = "".join(stream.writes).split("Exception in thread ")
    assert ["", *(f"ValueError: failure {number}" for number in range(3))] == [
        next((line for line in report.splitlines() if line.startswith("ValueError")), "") for report in reports
    ]
    assert [0, 1, 1, 1] == [report.count("Traceback") for report in reports]


@pytest.mark.parametrize("stream", [None, io.StringIO()])
def test_an_exit_of_a_background_thread_is_not_reported(monkeypatch, stream):
    monkeypatch.setattr(threading, "excepthook", threading.__excepthook__)
    monkeypatch.setattr(sys, "stderr", stream)
    error = SystemExit(3)
    exceptions.report(error, None)
    assert stream is None or "" == stream.getvalue()


def test_failing_hooks_keep_no_background_thread_from_its_end(virtual, monkeypatch, capsys):
    def refuse(*details):
        raise RuntimeError("no reports")

    monkeypatch.setattr(threading, "excepthook", refuse)
    monkeypatch.setattr(sys, "excepthook", refuse)

    def root():
        thread = vthreads.spawn(failing, ValueError("lost?"), 1).thread
        thread.join()

    virtual(root)
    err = capsys.readouterr().err
    assert "ValueError: lost?" in err
    assert "RuntimeError: no reports" in err


class RefusesPermits(Semaphore):
    def release(self, n=1):
        raise RuntimeError("no permits")


def test_a_semaphore_that_fails_at_the_end_of_a_thread_is_a_failure_of_the_group(virtual):
    def root():
        return raised_by(lambda: run_group((sleep, 1), max_concurrency=RefusesPermits(1)))

    assert "no permits" == str(only_failure(virtual(root)))


class Translated(Exception):
    """Its message has to be waited for."""

    def __str__(self):
        sleep(1)
        return "text"


class Odd(vthreads.CancelScope):
    """A scope whose public methods raise."""

    def cancel(self, reason=None):
        raise RuntimeError("cancel")

    def __repr__(self):
        raise RuntimeError("repr")


def test_a_thread_leaves_a_scope_that_does_not_cooperate(virtual):
    def main():
        with ThreadGroup() as group:
            future = group.spawn(Odd(shield=True).__enter__)
            group.spawn(sleep, 1)
        assert future.done()
        return vthreads.now()

    assert 1 == virtual(main)


# Functions of the end of a thread. Not those that hold a section: Python calls a trace function also before it leaves a
# `with` block, which is then not left.
IN_THE_END = {
    "VirtualThread.run",
    "drop_frame",
    "VirtualThread._kept_of",
    "VirtualThread._end",
    "VirtualThread._abandon_scopes",
    "VirtualThread._leave",
    "CancelScope._leave_quietly",
    "CancelNode._detach",
    "Members._settle",
    "Fiber._leave_context",
}


class Traced(Exception):
    pass


class FailingTrace:
    """A trace function that raises at one of the calls and lines of the end of a thread."""

    def __init__(self, place):
        self.left = place

    def __call__(self, frame, event, _arg):
        if frame.f_code.co_qualname not in IN_THE_END:
            return None
        if event in ("call", "line"):
            self.left -= 1
            if self.left == 0:
                raise Traced  # after which Python calls the function no more
        return self

    def begin(self):
        """Trace the caller's end, as a debugger that steps to it."""
        caller = sys._getframe(1).f_back
        if caller is not None and caller.f_code.co_qualname in IN_THE_END:
            caller.f_trace = self
        sys.settrace(self)


@pytest.mark.parametrize("own", [None, KeyError("own")], ids=["returns", "fails"])
def test_an_error_of_a_trace_function_anywhere_in_the_end_is_a_failure_of_the_group(virtual, own):
    def end_with_an_error_at(place):
        """Whether the end has that many calls and lines."""
        trace = FailingTrace(place)

        def member():
            vthreads.CancelScope().__enter__()
            trace.begin()
            if own is not None:
                raise own

        def main():
            me = vthreads.current_thread()
            before = sys.gettrace()
            with ThreadGroup() as group:
                future = group.spawn(member)  # which ends before the call returns
                sys.settrace(before)
                assert future.done()
                assert vthreads.current_thread() is me

        try:
            virtual(main)
        except ExceptionGroup as failed:
            return Traced in map(type, failed.exceptions)
        return False

    places = 0
    while end_with_an_error_at(places + 1):
        places += 1
    assert places > 20


def test_failures_whose_message_waits_come_before_an_outer_cancellation(virtual):
    def root():
        with vthreads.move_on_after(1.5):
            run_group((failing, ValueError("first"), 1), (failing, Translated(), 1), errors="first")

    error = virtual(lambda: raised_by(root))
    assert "first" == str(error)
    assert "Translated: text" in error.__notes__[-1]


def test_a_message_that_waits_does_not_let_a_block_end_before_its_members(virtual):
    ended = []

    def member():
        try:
            sleep(3600)
        finally:
            ended.append(vthreads.now())

    def root():
        error = None
        with vthreads.move_on_after(0.5):
            try:
                with ThreadGroup() as group:
                    group.spawn(member)
                    raise Translated
            except ExceptionGroup as raised:
                assert [0.5] == ended
                error = raised
        return error

    assert isinstance(only_failure(virtual(root)), Translated)


def test_waits_near_the_recursion_limit_raise_before_they_begin_or_are_waits_like_others(virtual):
    ended = []

    def descend():
        try:
            descend()
        except RecursionError:
            # Each level on the way up waits once, with a few frames more than the one below.
            try:
                sleep(0.001)
            except RecursionError:
                pass
            raise

    def root():
        with pytest.raises(ExceptionGroup) as failed, ThreadGroup() as g:
            for _ in range(3):
                g.spawn(descend)
        assert failed.group_contains(RecursionError)
        with ThreadGroup() as g:
            g.spawn(lambda: ended.append(sleep(1)))

    virtual(root)
    assert [None] == ended
