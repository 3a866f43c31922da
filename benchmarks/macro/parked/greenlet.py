"""The limit: greenlets that wait in a function, without a scheduler and a thread object."""

from contextlib import ExitStack

from greenlet import getcurrent, greenlet


def run(size, _, watch):
    def parks():
        nonlocal done
        main.switch()
        done += 1

    done, main = 0, getcurrent()
    with ExitStack() as until_all_have_ended:
        with watch("make"):
            parked = [greenlet(parks) for _ in range(size)]
            for one in parked:
                one.switch()
        watch.weigh()
        until_all_have_ended.enter_context(watch("end"))
        for one in parked:
            one.switch()
    return done
