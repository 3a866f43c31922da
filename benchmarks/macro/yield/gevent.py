"""`gevent.sleep(0)`."""

import gevent


def run(size, operations, watch):
    def turns():
        count = 0
        while going_on:
            gevent.sleep(0)
            count += 1
        return count

    going_on = True
    rounds = operations // size
    greenlets = [gevent.spawn(turns) for _ in range(size - 1)]
    gevent.sleep(0)
    with watch():
        for _ in range(rounds):
            gevent.sleep(0)
    going_on = False
    gevent.joinall(greenlets)
    return rounds + sum(min(greenlet.value, rounds) for greenlet in greenlets)
