"""The limit: two greenlets that switch to each other, independent of the size."""

from greenlet import getcurrent, greenlet


def run(size, operations, watch):
    def answers():
        while True:
            main.switch()

    main = getcurrent()
    other = greenlet(answers)
    other.switch()
    with watch():
        for _ in range(operations // 2):
            other.switch()
    return operations
