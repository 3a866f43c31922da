"""`threading.Thread` and `time.sleep`."""

import time
from threading import Thread

from . import FIGURES, SECONDS

AT_MOST = 5_000


def run(size, _, watch):
    def sleeps():
        time.sleep(SECONDS)
        done.append(None)

    done = []
    for figure in FIGURES:
        threads = [Thread(target=sleeps) for _ in range(size)]
        with watch(figure):
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
    return len(done) // len(FIGURES)
