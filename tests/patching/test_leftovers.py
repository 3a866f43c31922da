"""Objects that the patch cannot exchange: they are reported once, with their place."""

from __future__ import annotations

import queue
import re
import select
import sys
import threading
import weakref

import pytest

import vthreads

pytestmark = pytest.mark.unpatched


class Owner:
    pass


def held_lock():
    owner = Owner()
    owner.lock = threading.Lock()
    owner.lock.acquire()
    return owner


def held_rlock():
    owner = Owner()
    owner.lock = threading.RLock()
    owner.lock.acquire()
    return owner


def hidden_lock():
    owner = Owner()
    owner.locks = frozenset([threading.Lock()])
    return owner


def hidden_local():
    owner = Owner()
    owner.locals = frozenset([threading.local()])
    return owner


def hidden_queue():
    owner = Owner()
    owner.queues = frozenset([queue.SimpleQueue()])
    return owner


def hidden_poll():
    owner = Owner()
    owner.polls = frozenset([select.poll()])
    return owner


def weakly_held(make):
    owner = Owner()
    owner.thing = make()
    owner.by_name = weakref.WeakValueDictionary(name=owner.thing)
    return owner


def weakly_held_lock():
    return weakly_held(threading.Lock)


def weakly_held_rlock():
    return weakly_held(threading.RLock)


def weakly_held_local():
    return weakly_held(threading.local)


def weakly_held_queue():
    return weakly_held(queue.SimpleQueue)


# Since Python 3.15 the collector does not track a frozen set of objects that it does not track: its holder is unknown.
POLLS = r"a frozenset" if sys.version_info >= (3, 15) else r".*\.polls \(a frozenset\)"

LEFTOVERS = {
    held_lock: r"_thread\.lock object at .*held by a thread; in .*\.lock$",
    held_rlock: r"RLock object at .*held by a thread; in .*\.lock$",
    hidden_lock: r"_thread\.lock object at .*cannot be changed; in .*\.locks \(a frozenset\)$",
    hidden_local: r"_local object at .*cannot be changed; in .*\.locals \(a frozenset\)$",
    hidden_queue: r"SimpleQueue object at .*cannot be changed; in .*\.queues \(a frozenset\)$",
    hidden_poll: rf"poll object at .*cannot be changed; in {POLLS}$",
    weakly_held_lock: r"_thread\.lock object at .*cannot be changed; in .*\.thing$",
    weakly_held_rlock: r"RLock object at .*cannot be changed; in .*\.thing$",
    weakly_held_local: r"_local object at .*cannot be changed; in .*\.thing$",
    weakly_held_queue: r"SimpleQueue object at .*cannot be changed; in a KeyedRef$",
}


@pytest.mark.sampled(1)
@pytest.mark.everywhere
@pytest.mark.usefixtures("collected")
@pytest.mark.parametrize("make", LEFTOVERS, ids=lambda make: make.__name__)
def test_what_stays_is_reported_once_with_its_place(before, make):
    owner = make()
    with pytest.warns(RuntimeWarning) as record:
        vthreads.patch()
    vthreads.patch()
    assert 1 == len(record)
    assert __file__ == record[0].filename
    lines = [line for line in str(record[0].message).splitlines() if re.search(LEFTOVERS[make], line)]
    assert 1 == len(lines)
    assert owner


def test_queues_of_a_tuple_over_which_the_program_iterates_are_reported(run_script):
    # Only the iterator, on the stack of the module, refers to the tuple. Since Python 3.15 the loop has no iterator:
    # then only the queue without a name is reported, and the name of the other one gets the new queue.
    old = "in a tuple_iterator, in a tuple_iterator"
    expected = "in C code or on the stack of a call" if sys.version_info >= (3, 15) else old
    script = """
import queue, warnings

def show(message, *place):
    print(*(line.rpartition("; ")[2] for line in str(message).splitlines()[1:]), sep=", ")

warnings.showwarning = show
for one in queue.SimpleQueue(), queue.SimpleQueue():
    import vthreads
    vthreads.spawn(int).result()
"""
    assert f"{expected}\n" == run_script(script)


def test_a_lock_of_a_module_is_reported_by_its_name(run_script):
    script = """
import threading, warnings
class Server:
    def __init__(self):
        self.lock = threading.Lock()
server = Server()
server.lock.acquire()
import vthreads
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    vthreads.spawn(int).result()
print(str(caught[0].message).rpartition("; ")[2])
"""
    assert "in __main__.server.lock\n" == run_script(script)


FILES = {
    "file = open(readable)": "in __main__.file",
    "file = open(readable, 'rb', buffering=0)": "in __main__.file",
    "file = open(pty.openpty()[1], 'rb', buffering=0)": "in __main__.file",
    "ends = socket.socketpair(); file = open(ends[0].fileno(), 'rb', buffering=0)": "in __main__.file",
    "child = subprocess.Popen(['true'], stdout=subprocess.PIPE)": "in __main__.child.stdout.raw",
    "read = open(readable, 'rb', buffering=0).read": "in __main__.read",
    # Nothing to wait for, or no wait.
    "file = open(os.devnull)": "",
    "file = open(writable, 'w')": "",
    "os.set_blocking(readable, False); file = open(readable)": "",
    "file = open(readable); file.close()": "",
    "file = open(readable, closefd=False); os.close(readable)": "",
}


@pytest.mark.sampled(1)
@pytest.mark.parametrize("statement", FILES)
def test_a_file_that_was_opened_before_is_reported_if_its_reads_wait(run_script, statement):
    script = f"""
import os, pty, socket, subprocess, warnings
readable, writable = os.pipe()
{statement}
import vthreads
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always", RuntimeWarning)
    vthreads.spawn(int).result()
for each in caught:
    line = str(each.message).splitlines()[1]
    assert "a file of a pipe, a socket or a terminal" in line, line
    print(line.rpartition("; ")[2].partition(",")[0], flush=True)
# Without warnings of files that are not closed.
os._exit(0)
"""
    assert FILES[statement] == run_script(script).strip()


def test_the_start_goes_on_where_warnings_are_errors(run_script):
    script = """
import threading, warnings
lock = threading.Lock()
lock.acquire()
import vthreads
warnings.showwarning = lambda message, category, *place: print(category.__name__)
print(vthreads.spawn(lambda: 3).result())
print(vthreads.spawn(lambda: 4).result())
"""
    assert "RuntimeWarning\n3\n4\n" == run_script(script)


def test_what_only_os_threads_wait_for_is_not_reported(run_script):
    script = """
import functools, http.server, logging, logging.handlers, multiprocessing.pool, queue, threading, time
from concurrent.futures import ThreadPoolExecutor
used = ThreadPoolExecutor(2)
used.submit(int).result()
pool = multiprocessing.pool.ThreadPool(1)
pool.map(int, [1])
plain, simple, event, semaphore = queue.Queue(), queue.SimpleQueue(), threading.Event(), threading.Semaphore(0)
listener = logging.handlers.QueueListener(queue.Queue(), logging.NullHandler())
listener.start()
server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), http.server.BaseHTTPRequestHandler)
calls = [plain.get, simple.get, event.wait, semaphore.acquire, functools.partial(server.serve_forever, 0.01)]
threads = [threading.Thread(target=call, daemon=True) for call in calls]
threads.append(threading.Timer(3600, int))
for thread in threads:
    thread.daemon = True
    thread.start()
waiting = "wait", "get", "acquire", "select", "serve_forever"
def innermost():
    import sys
    return [sys._current_frames()[thread.ident].f_code.co_name for thread in threads]
while not set(innermost()) <= {*waiting, "run"}:
    time.sleep(0.001)
import vthreads
print(vthreads.spawn(lambda: 3).result())
plain.put(1), simple.put(1), event.set(), semaphore.release(), server.shutdown(), listener.stop(), threads[-1].cancel()
for thread in threads:
    thread.join()
pool.terminate(), used.shutdown(), server.server_close()
"""
    assert "3\n" == run_script(script)


def test_the_objects_of_a_new_process_need_no_search_for_leftovers(run_script):
    """The search begins with a collection of all generations, which a small program would pay for at each start."""
    assert "[]\n" == run_script(
        """
        import gc
        from vthreads import ThreadGroup
        gc.disable()
        collected = []
        gc.callbacks.append(lambda phase, info: collected.append(info["generation"]))
        with ThreadGroup():
            pass
        gc.callbacks.clear()
        print(collected)
        """
    )
