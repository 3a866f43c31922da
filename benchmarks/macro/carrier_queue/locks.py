"""Two OS threads wake each other by a lock each: the cheapest wait that the interpreter has."""

from threading import Lock, Thread


def taken():
    lock = Lock()
    lock.acquire()
    return lock


def run(size, operations, watch):
    times = operations // size
    pairs = [(taken(), taken()) for _ in range(size)]
    trips = []

    def answers(there, back):
        for _ in range(times):
            there.acquire()
            back.release()

    def asks(there, back):
        for _ in range(times):
            there.release()
            trips.append(back.acquire())

    threads = [Thread(target=function, args=pair) for pair in pairs for function in (answers, asks)]
    with watch():
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    return sum(trips)
