"""The limit: greenlets that switch to the next one in a ring, without a scheduler."""

from greenlet import getcurrent, greenlet


def run(size, operations, watch):
    def turns():
        main.switch()
        next_one = following[getcurrent()]
        count = 0
        while going_on:
            next_one.switch()
            count += 1
        counts.append(count)

    main, going_on, counts = getcurrent(), True, []
    rounds = operations // size
    ring = [main, *(greenlet(turns) for _ in range(size - 1))]
    following = dict(zip(ring, [*ring[1:], main], strict=True))
    for one in ring[1:]:
        one.switch()
    with watch():
        for _ in range(rounds):
            following[main].switch()
    going_on = False
    for one in ring[1:]:
        one.switch()
    return rounds + sum(min(count, rounds) for count in counts)
