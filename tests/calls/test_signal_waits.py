"""Waiting for signals: it parks, takes what is pending, and loses none when it is given up."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
from contextlib import contextmanager

import pytest

import vthreads
from vthreads import ThreadGroup
from vthreads._calls import signal_waits
from vthreads.testing import VirtualClock

pytestmark = pytest.mark.real

ONE, TWO = signal.SIGUSR1, signal.SIGUSR2


def virtual(fn):
    return vthreads.run(fn, clock=VirtualClock())


@contextmanager
def handled(*signals):
    """Count the signals that a handler gets instead of the waiting thread."""
    came = []
    previous = {signum: signal.signal(signum, lambda signum, frame: came.append(signum)) for signum in signals}
    try:
        yield came
    finally:
        for signum, handler in previous.items():
            signal.signal(signum, handler)


@pytest.fixture
def came():
    with handled(ONE, TWO) as came:
        yield came


@pytest.fixture
def blocked(came):
    previous = signal.pthread_sigmask(signal.SIG_BLOCK, [ONE, TWO])
    yield
    signal.pthread_sigmask(signal.SIG_SETMASK, previous)
    assert [] == came


@pytest.fixture(params=["signalfd", "pauses"])
def way(request, monkeypatch):
    """Each way to be notified of a signal."""
    if request.param == "pauses":
        monkeypatch.setattr(signal_waits, "_open_signalfd", lambda wanted: None)


WAITS = {
    "sigwait": lambda: signal.sigwait([ONE, TWO]),
    "sigwaitinfo": lambda: signal.sigwaitinfo([ONE, TWO]).si_signo,
    "sigtimedwait": lambda: signal.sigtimedwait([ONE, TWO], 3600).si_signo,
}


@pytest.mark.parametrize("wait", WAITS)
def test_others_run_while_one_waits_for_a_signal(wait, way, blocked):
    def root():
        with ThreadGroup() as group:
            waiting = group.spawn(WAITS[wait])
            assert "parked" == waiting.thread.state.value
            signal.raise_signal(TWO)
            assert TWO == waiting.result()

    virtual(root)


def test_a_signal_for_the_whole_process_is_waited_for_in_any_virtual_thread():
    # In a process of its own, as any OS thread that does not block the signal may get it.
    script = """
        import os, signal, vthreads
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1])
        with vthreads.ThreadGroup() as group:
            waiting = group.spawn(signal.sigwaitinfo, [signal.SIGUSR1])
            os.kill(os.getpid(), signal.SIGUSR1)
            assert os.getpid() == waiting.result().si_pid
        """
    subprocess.run([sys.executable, "-W", "error", "-c", textwrap.dedent(script)], timeout=200, check=True)


@pytest.mark.parametrize("wait", WAITS)
def test_a_signal_that_is_pending_is_taken_at_once(wait, way, blocked):
    def root():
        signal.raise_signal(ONE)
        assert ONE == WAITS[wait]()
        return vthreads.now()

    assert 0 == virtual(root)


@pytest.mark.parametrize("wait", WAITS)
def test_a_wait_that_was_given_up_leaves_the_signal_to_the_next(wait, way, blocked):
    def root():
        with vthreads.move_on_after(1) as scope:
            WAITS[wait]()
        assert scope.cancelled_caught
        signal.raise_signal(ONE)
        with vthreads.move_on_after(0) as scope:
            WAITS[wait]()
        assert scope.cancelled_caught
        assert {ONE} == signal.sigpending()
        assert ONE == WAITS[wait]()

    virtual(root)


def test_two_that_wait_get_one_signal_each(way, blocked):
    def root():
        with ThreadGroup() as group:
            waiting = [group.spawn(signal.sigwait, [ONE, TWO]) for _ in range(2)]
            signal.raise_signal(ONE)
            signal.raise_signal(TWO)
            assert {ONE, TWO} == {future.result() for future in waiting}

    virtual(root)


def test_sigwait_answers_with_the_name_of_the_signal(way, blocked):
    def root():
        signal.raise_signal(ONE)
        assert signal.SIGUSR1 is signal.sigwait({ONE})

    virtual(root)


def test_a_realtime_signal_is_a_number(blocked):
    unnamed = signal.SIGRTMIN + 3
    signal.pthread_sigmask(signal.SIG_BLOCK, [unnamed])

    def root():
        signal.raise_signal(unnamed)
        assert unnamed == signal.sigwait([unnamed])

    virtual(root)


def test_sigtimedwait_has_its_time(way, blocked):
    def root():
        assert signal.sigtimedwait([ONE], 100) is None
        return vthreads.now()

    assert 100 == virtual(root)


def test_sigtimedwait_with_no_time_is_no_checkpoint(blocked):
    def root():
        with vthreads.move_on_after(0) as scope:
            assert signal.sigtimedwait([ONE], 0) is None
        assert not scope.cancelled_caught
        with pytest.raises(ValueError, match="non-negative"):
            signal.sigtimedwait([ONE], -1)

    virtual(root)


# --- signals that are not blocked

SENDING = {
    "to the process": lambda: os.kill(os.getpid(), TWO),
    "to the carrier": lambda: signal.raise_signal(TWO),
}


@pytest.mark.parametrize("sending", SENDING)
def test_sigwait_takes_a_signal_that_is_not_blocked_before_its_handler(sending, way, came):
    def root():
        handler = signal.getsignal(TWO)
        with ThreadGroup() as group:
            waiting = group.spawn(signal.sigwait, [ONE, TWO])
            SENDING[sending]()
            assert TWO is waiting.result()
        assert [] == came
        assert handler is signal.getsignal(TWO)
        signal.raise_signal(TWO)

    virtual(root)
    assert [TWO] == came


def test_ctrl_c_ends_a_sigwait_for_it():
    def root():
        with ThreadGroup() as group:
            waiting = group.spawn(signal.sigwait, {signal.SIGINT, signal.SIGTERM})
            signal.raise_signal(signal.SIGINT)
            assert signal.SIGINT is waiting.result()
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
            vthreads.sleep(1)

    virtual(root)


def test_two_that_wait_for_one_unblocked_signal_get_it_in_turn(way, came):
    def root():
        with ThreadGroup() as group:
            waiting = [group.spawn(signal.sigwait, [ONE]) for _ in range(2)]
            signal.raise_signal(ONE)
            assert ONE == waiting[0].result()
            assert not waiting[1].done()
            signal.raise_signal(ONE)
            assert ONE == waiting[1].result()

    virtual(root)
    assert [] == came


def test_an_unblocked_signal_that_came_together_with_a_cancellation_goes_to_its_handler(way, came):
    def root():
        with ThreadGroup() as group:
            waiting = group.spawn(signal.sigwait, [ONE])
            waiting.cancel()
            signal.raise_signal(ONE)
            vthreads.wait(waiting)
        vthreads.checkpoint()
        assert waiting.cancelled()

    virtual(root)
    assert [ONE] == came


# --- pause


def test_pause_ends_when_a_handler_has_run(came):
    def root():
        with ThreadGroup() as group:
            waiting = [group.spawn(signal.pause) for _ in range(2)]
            signal.raise_signal(ONE)
            for future in waiting:
                assert future.result() is None
        assert [ONE] == came

    virtual(root)


def test_pause_waits_for_a_handler_that_blocks():
    def handler(signum, frame):
        vthreads.sleep(10)

    def root():
        signal.signal(ONE, handler)
        with ThreadGroup() as group:
            group.spawn(signal.raise_signal, ONE)
            signal.pause()
        signal.signal(ONE, signal.SIG_DFL)
        return vthreads.now()

    assert 10 == virtual(root)


def test_what_a_handler_raises_comes_out_of_the_pause_of_the_root():
    def handler(signum, frame):
        raise ZeroDivisionError

    def root():
        signal.signal(ONE, handler)
        with ThreadGroup() as group:
            group.spawn(signal.raise_signal, ONE)
            with pytest.raises(ZeroDivisionError):
                signal.pause()
        signal.signal(ONE, signal.SIG_DFL)

    virtual(root)


def test_a_pause_that_was_given_up_waits_no_more(came):
    def root():
        with vthreads.move_on_after(5) as scope:
            signal.pause()
        assert scope.cancelled_caught
        signal.raise_signal(ONE)
        return vthreads.now()

    assert 5 == virtual(root)


# Calls that start a private OS thread of the runtime, before the program blocks the signal.
STARTERS = {
    "a look-up": "import socket; socket.getaddrinfo('localhost', 80)",
    "a call of the user's": "vthreads.offload(int)",
    "waiting for any child": "import subprocess; child = subprocess.Popen(['true']); os.wait()",
    "a ticker": "stalls = vthreads.debug.watch_stalls()",
    "the service for who looks from outside": "vthreads.debug.serve()",
}


@pytest.mark.parametrize("start", STARTERS.values(), ids=STARTERS.keys())
def test_a_blocked_signal_does_not_reach_the_os_threads_of_the_runtime(start, tmp_path, monkeypatch):
    tmp_path.chmod(0o700)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    script = f"""
        import os, signal, vthreads, vthreads.debug

        def main():
            {start}
            signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
            os.kill(os.getpid(), signal.SIGTERM)
            vthreads.checkpoint()
            print(signal.sigwait([signal.SIGTERM]))

        vthreads.run(main)
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)], check=False, capture_output=True, text=True, timeout=200
    )
    assert (0, "15\n", "") == (done.returncode, done.stdout, done.stderr)


@pytest.mark.usefixtures("blocked")
def test_an_offloaded_call_has_the_mask_of_its_caller_and_so_have_its_children():
    show = "import signal; print(sorted(map(int, signal.pthread_sigmask(signal.SIG_BLOCK, []))))"

    def root():
        own = signal.pthread_sigmask(signal.SIG_BLOCK, [])
        of_call = vthreads.offload(signal.pthread_sigmask, signal.SIG_BLOCK, [])
        child = vthreads.offload(
            subprocess.run, [sys.executable, "-c", show], check=True, capture_output=True, text=True
        )
        return own, of_call, child.stdout

    own, of_call, of_child = virtual(root)
    assert {ONE, TWO} <= own
    assert own == of_call
    assert f"{sorted(map(int, own))}\n" == of_child
