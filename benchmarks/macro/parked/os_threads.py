"""`threading.Thread` and `threading.Event`."""

import time
from threading import Event, Thread

AT_MOST = 5_000


def run(size, _, watch):
    def parks():
        waiting.append(None)
        event.wait()
        done.append(None)

    waiting, done, event = [], [], Event()
    threads = [Thread(target=parks) for _ in range(size)]
    with watch("make"):
        for thread in threads:
            thread.start()
        while len(waiting) < size:
            time.sleep(0.001)
    watch.weigh()
    with watch("end"):
        event.set()
        for thread in threads:
            thread.join()
    return len(done)
