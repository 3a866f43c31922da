"""Known races, each with a correct version: `explore` must report the first and must not report the second.

The code is ordinary threaded code and does not use `vthreads`. Races of libraries are models of the faulty code,
written from the cited descriptions.
"""

import threading
from collections import OrderedDict
from contextlib import nullcontext


def run_threads(*functions):
    """Run each function in a thread, and join all threads."""
    threads = [threading.Thread(target=function) for function in functions]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


# --- lost update: a thread reads, changes and writes back a value, and another one writes in between


class Account:
    def __init__(self, lock):
        self.balance = 0
        self.lock = lock

    def deposit(self, amount):
        with self.lock:
            self.balance += amount


def two_deposits(lock):
    account = Account(lock)
    run_threads(lambda: account.deposit(10), lambda: account.deposit(20))
    assert account.balance == 30, f"the balance is {account.balance}"


def lost_update():
    two_deposits(nullcontext())


def no_lost_update():
    two_deposits(threading.Lock())


# --- check, then act: two threads find that a value is missing, and both create it


class Cache:
    def __init__(self, lock):
        self.values = {}
        self.made = 0
        self.lock = lock

    def get(self, key):
        with self.lock:
            if key not in self.values:
                self.made += 1
                self.values[key] = object()
            return self.values[key]


def two_look_ups(lock):
    cache, found = Cache(lock), []
    run_threads(lambda: found.append(cache.get("key")), lambda: found.append(cache.get("key")))
    assert found[0] is found[1], f"the value was made {cache.made} times"


def check_then_act():
    two_look_ups(nullcontext())


def no_check_then_act():
    two_look_ups(threading.Lock())


# --- double-checked locking: the object is visible before it is initialised


class Settings:
    instance = None

    def __init__(self):
        self.lock = threading.Lock()
        self.settings = None

    def get_early(self):
        if self.settings is None:
            with self.lock:
                if self.settings is None:
                    self.settings = {}
                    self.settings["host"] = "localhost"
        return self.settings["host"]

    def get(self):
        if self.settings is None:
            with self.lock:
                if self.settings is None:
                    settings = {"host": "localhost"}
                    self.settings = settings
        return self.settings["host"]


def double_checked_locking():
    settings = Settings()
    run_threads(settings.get_early, settings.get_early)


def no_double_checked_locking():
    settings = Settings()
    run_threads(settings.get, settings.get)


# --- dining philosophers: each holds one fork and waits for the other


def dine(order):
    forks = [threading.Lock() for _ in range(3)]

    def philosopher(first, second):
        with forks[first], forks[second]:
            pass

    run_threads(*(lambda pair=pair: philosopher(*pair) for pair in order))


def dining_philosophers():
    dine([(0, 1), (1, 2), (2, 0)])


def no_dining_philosophers():
    dine([(0, 1), (1, 2), (0, 2)])


# --- a bounded buffer with `if` instead of `while`: another thread may take the item first


class Buffer:
    def __init__(self, patient):
        self.items = []
        self.changed = threading.Condition()
        self.patient = patient

    def put(self, item):
        with self.changed:
            self.items.append(item)
            self.changed.notify()

    def get(self):
        with self.changed:
            if self.patient:
                while not self.items:
                    self.changed.wait()
            elif not self.items:
                self.changed.wait()
            return self.items.pop()


def three_users(patient):
    buffer, got = Buffer(patient), []

    def take():
        got.append(buffer.get())

    def put():
        buffer.put(1)
        buffer.put(2)

    run_threads(take, take, put)
    assert sorted(got) == [1, 2]


def bounded_buffer():
    three_users(patient=False)


def no_bounded_buffer():
    three_users(patient=True)


# --- ABA: the head of a list has its old value again, but the list has changed


class Node:
    def __init__(self, name, after):
        self.name = name
        self.after = after


class Pool:
    """A lock-free stack of free nodes, by compare-and-swap; `version` distinguishes an A from a later A."""

    def __init__(self, versioned):
        self.head = Node("a", Node("b", Node("c", None))), 0
        self.versioned = versioned
        self.swapping = threading.Lock()

    def swap(self, old, new):
        with self.swapping:
            same = self.head == old if self.versioned else self.head[0] is old[0]
            if same:
                self.head = new, self.head[1] + 1
            return same

    def take(self):
        while True:
            old = self.head
            after = old[0].after
            if self.swap(old, after):
                return old[0]

    def give_back(self, node):
        while True:
            old = self.head
            node.after = old[0]
            if self.swap(old, node):
                return


def two_takers(versioned):
    pool = Pool(versioned)
    taken = []

    def take_one():
        taken.append(pool.take())

    def take_two_give_one_back():
        first = pool.take()
        taken.append(pool.take())
        pool.give_back(first)

    run_threads(take_one, take_two_give_one_back)
    free, node = [], pool.head[0]
    while node is not None:
        free.append(node.name)
        node = node.after
    names = free + [node.name for node in taken]
    assert len(names) == len(set(names)), f"free {free}, taken {[node.name for node in taken]}"


def aba():
    two_takers(versioned=False)


def no_aba():
    two_takers(versioned=True)


# --- threading.Event.wait, https://bugs.python.org/issue13502: it returned the value of the flag after the wait, so it
# returned False to a thread that a `set` had unparked, if a `clear` followed at once


class Event:
    def __init__(self, returns_the_flag):
        self.changed = threading.Condition(threading.Lock())
        self.flag = False
        self.returns_the_flag = returns_the_flag

    def set(self):
        with self.changed:
            self.flag = True
            self.changed.notify_all()

    def clear(self):
        with self.changed:
            self.flag = False

    def wait(self, timeout, begun):
        with self.changed:
            begun()
            woken = self.flag or self.changed.wait(timeout)
            return self.flag if self.returns_the_flag else woken


def set_and_clear(returns_the_flag):
    event, begun, answers = Event(returns_the_flag), threading.Semaphore(0), []

    def waiter():
        answers.append(event.wait(60, begun.release))

    def setter():
        begun.acquire()
        event.set()
        event.clear()

    run_threads(waiter, setter)
    assert answers == [True]


def event_wait():
    set_and_clear(returns_the_flag=True)


def no_event_wait():
    set_and_clear(returns_the_flag=False)


# --- urllib3.PoolManager, https://github.com/urllib3/urllib3/pull/204: two threads created a pool for the same host,
# and storing the second one closed the first, which its thread was about to use


class HostPool:
    def __init__(self):
        self.open = True

    def request(self):
        if not self.open:
            raise RuntimeError("the pool is closed")


class RecentlyUsed:
    """A container that disposes of the items that it replaces."""

    def __init__(self):
        self.lock = threading.RLock()
        self.values = OrderedDict()

    def get(self, key):
        with self.lock:
            return self.values.get(key)

    def set(self, key, value):
        with self.lock:
            replaced = self.values.get(key)
            self.values[key] = value
        if replaced is not None:
            replaced.open = False


class PoolManager:
    def __init__(self, together):
        self.pools = RecentlyUsed()
        self.making = self.pools.lock if together else nullcontext()

    def pool_of(self, host):
        with self.making:
            pool = self.pools.get(host)
            if pool is None:
                pool = HostPool()
                self.pools.set(host, pool)
        return pool


def two_requests(together):
    manager = PoolManager(together)
    errors = []

    def request():
        try:
            manager.pool_of("example.org").request()
        except RuntimeError as error:
            errors.append(error)

    run_threads(request, request)
    assert errors == []


def pool_manager():
    two_requests(together=False)


def no_pool_manager():
    two_requests(together=True)


# --- redis-py's ConnectionPool, https://github.com/redis/redis-py/issues/906: finding a free connection and counting a
# new one were two steps, so there could be more connections than `max_connections`


class ConnectionPool:
    def __init__(self, most, lock):
        self.most = most
        self.created = 0
        self.free = []
        self.lock = lock

    def get_connection(self):
        with self.lock:
            if self.free:
                return self.free.pop()
            if self.created >= self.most:
                return None
            self.created += 1
            return object()

    def release(self, connection):
        self.free.append(connection)


def three_clients(lock):
    pool = ConnectionPool(2, lock)
    in_use = []

    def client():
        connection = pool.get_connection()
        if connection is not None:
            in_use.append(connection)

    run_threads(client, client, client)
    assert len(in_use) <= pool.most, f"{len(in_use)} connections of at most {pool.most}"


def connection_pool():
    three_clients(nullcontext())


def no_connection_pool():
    three_clients(threading.Lock())


# By name: the program that fails in some schedules, and the correct one.
RACES = {
    "lost update": (lost_update, no_lost_update),
    "check, then act": (check_then_act, no_check_then_act),
    "double-checked locking": (double_checked_locking, no_double_checked_locking),
    "dining philosophers": (dining_philosophers, no_dining_philosophers),
    "bounded buffer, `if` for `while`": (bounded_buffer, no_bounded_buffer),
    "ABA in a pool": (aba, no_aba),
    "`threading.Event.wait` (bpo-13502)": (event_wait, no_event_wait),
    "urllib3 `PoolManager` (#204)": (pool_manager, no_pool_manager),
    "redis-py `ConnectionPool` (#906)": (connection_pool, no_connection_pool),
}
