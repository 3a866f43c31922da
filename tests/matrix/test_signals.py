"""Waits for a signal."""

import signal

from tests.matrix.endings import Operations, nothing_happened, with_every_cause

OPERATIONS = Operations()


def waiting_for_a_signal(call):
    def wait():
        previous = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1])
        yield call
        signal.raise_signal(signal.SIGUSR1)
        assert signal.SIGUSR1 == signal.sigtimedwait([signal.SIGUSR1], 0).si_signo
        signal.pthread_sigmask(signal.SIG_SETMASK, previous)

    return wait


SIGNAL_WAITS = {
    "sigwait": lambda: signal.sigwait([signal.SIGUSR1]),
    "sigwaitinfo": lambda: signal.sigwaitinfo([signal.SIGUSR1]),
    "sigtimedwait": lambda: signal.sigtimedwait([signal.SIGUSR1], 7200),
}
for name, call in SIGNAL_WAITS.items():
    OPERATIONS[f"signal.{name}"] = waiting_for_a_signal(call)


@OPERATIONS.add
def sigwait_for_what_is_not_blocked():
    handler = signal.getsignal(signal.SIGUSR1)
    yield lambda: signal.sigwait([signal.SIGUSR1])
    assert handler is signal.getsignal(signal.SIGUSR1)


@OPERATIONS.add
def signal_pause():
    yield signal.pause


@with_every_cause(OPERATIONS)
def test_nothing_happened(name, cause):
    nothing_happened(OPERATIONS[name], cause)
