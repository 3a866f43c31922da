"""Looking up names: a stuck resolver holds up nobody but those who asked, and nobody beyond a cancellation.

No name is really looked up: the original of the standard library is replaced by one that answers when it is told to.
"""

from __future__ import annotations

import socket
import subprocess
import sys
import threading
import time

import pytest

import vthreads
from vthreads import ThreadGroup
from vthreads._calls.net import dns, hosts
from vthreads._os_threads.calls import calls_under_way
from vthreads.testing import VirtualClock

ANSWERS = {
    "getaddrinfo": [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", 80))],
    "gethostbyname": "127.0.0.1",
    "gethostbyname_ex": ("name.test", ["alias.test"], ["127.0.0.1"]),
    "gethostbyaddr": ("name.test", ["alias.test"], ["127.0.0.1"]),
    "getnameinfo": ("name.test", "http"),
}

QUESTIONS = {
    "getaddrinfo": ("name.test", 80),
    "gethostbyname": ("name.test",),
    "gethostbyname_ex": ("name.test",),
    "gethostbyaddr": ("127.0.0.1",),
    "getnameinfo": (("127.0.0.1", 80), 0),
}


class Resolver:
    """A stand-in for one of the originals."""

    def __init__(self, answer):
        self.answer = answer
        self.asked = []
        self.idents = []
        self.begun = threading.Event()
        self.open = threading.Event()

    def __call__(self, *arguments):
        self.asked.append(arguments)
        self.idents.append(threading.get_ident())
        self.begun.set()
        assert self.open.wait(20)
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


@pytest.fixture
def resolver(request, monkeypatch):
    name = getattr(request, "param", "getaddrinfo")
    resolver = Resolver(ANSWERS[name])
    resolver.look_up = lambda: getattr(dns, name)(*QUESTIONS[name])
    monkeypatch.setattr(dns, f"original_{name}", resolver)
    yield resolver
    resolver.open.set()
    deadline = time.monotonic() + 100
    while calls_under_way():
        assert time.monotonic() < deadline
        time.sleep(0.001)


each = pytest.mark.parametrize("resolver", list(ANSWERS), indirect=True)


def run(root):
    return vthreads.run(root, clock=VirtualClock(outside_patience=0.01), patch=False)


@each
def test_the_answer_comes_from_another_os_thread(resolver):
    resolver.open.set()
    assert resolver.answer == run(resolver.look_up)
    assert [threading.get_ident()] != resolver.idents


@each
def test_only_those_who_asked_wait(resolver):
    def root():
        with ThreadGroup() as group:
            future = group.spawn(resolver.look_up)
            vthreads.sleep(60)
            resolver.open.set()
        return future.result(), vthreads.now()

    assert (resolver.answer, 60) == run(root)


@each
def test_on_a_plain_os_thread_the_original_is_called_in_place(resolver):
    resolver.open.set()
    assert resolver.answer == resolver.look_up()
    assert [threading.get_ident()] == resolver.idents


@each
def test_cancelled_a_look_up_is_abandoned_at_once(resolver):
    def root():
        with vthreads.move_on_after(1) as scope:
            resolver.look_up()
        return scope.cancelled_caught, vthreads.now(), [(call.kind, call.abandoned) for call in calls_under_way()]

    assert (True, 1, [("dns", True)]) == run(root)


@each
def test_cancelled_before_nothing_is_looked_up(resolver):
    def root():
        with vthreads.CancelScope() as scope:
            scope.cancel()
            resolver.look_up()
        return scope.cancelled_caught

    assert run(root)
    assert [] == resolver.asked


@each
def test_an_interrupt_abandons_the_look_up(resolver):
    def root():
        with ThreadGroup(on_failure="continue") as group:
            future = group.spawn(resolver.look_up)
            future.thread.interrupt(KeyError)
            return type(future.exception())

    assert KeyError is run(root)


@each
def test_equal_look_ups_share_one_call(resolver):
    def root():
        with ThreadGroup() as group:
            futures = [group.spawn(resolver.look_up) for _ in range(5)]
            assert resolver.begun.wait(20)
            resolver.open.set()
        return [future.result() for future in futures]

    assert [resolver.answer] * 5 == run(root)
    assert 1 == len(resolver.asked)


def test_answers_are_not_shared(resolver):
    def root():
        with ThreadGroup() as group:
            futures = [group.spawn(resolver.look_up) for _ in range(2)]
            resolver.open.set()
        futures[0].result().clear()
        return futures[1].result()

    assert ANSWERS["getaddrinfo"] == run(root)


def test_failures_are_not_shared(resolver):
    resolver.answer = socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    def root():
        with ThreadGroup(on_failure="continue") as group:
            futures = [group.spawn(resolver.look_up) for _ in range(2)]
            resolver.open.set()
            return [future.exception() for future in futures]

    one, other = run(root)
    assert one is not other
    assert type(one) is type(other) is socket.gaierror
    assert resolver.answer.args == one.args == other.args
    assert 1 == len(resolver.asked)


def test_the_shared_call_goes_on_while_anybody_waits(resolver):
    def root():
        with ThreadGroup() as group:
            first = group.spawn(resolver.look_up)
            second = group.spawn(resolver.look_up)
            first.cancel()
            first.thread.join()
            assert [False] == [call.abandoned for call in calls_under_way()]
            third = group.spawn(resolver.look_up)
            resolver.open.set()
        return first.cancelled(), second.result() == third.result() == resolver.answer

    assert (True, True) == run(root)
    assert 1 == len(resolver.asked)


def test_an_abandoned_call_is_not_shared(resolver):
    def root():
        with vthreads.move_on_after(1):
            resolver.look_up()
        assert resolver.begun.wait(20)
        with ThreadGroup() as group:
            future = group.spawn(resolver.look_up)
            resolver.open.set()
        return future.result()

    assert resolver.answer == run(root)
    assert 2 == len(resolver.asked)


def test_an_answer_is_not_kept(resolver):
    resolver.open.set()
    run(lambda: [resolver.look_up() for _ in range(3)])
    assert 3 == len(resolver.asked)


def test_different_look_ups_run_at_the_same_time_up_to_a_limit(resolver):
    def root():
        with ThreadGroup() as group:
            for number in range(20):
                group.spawn(dns.getaddrinfo, "name.test", number)
            vthreads.sleep(1)
            under_way = len(calls_under_way())
            resolver.open.set()
        return under_way

    assert 16 == run(root)
    assert 20 == len(resolver.asked)


def test_a_look_up_without_a_token_is_cancelled_and_never_made(resolver):
    def root():
        with ThreadGroup() as group:
            for number in range(16):
                group.spawn(dns.getaddrinfo, "name.test", number)
            late = [group.spawn(dns.getaddrinfo, "late.test", 80) for _ in range(2)]
            late[0].cancel()
            late[0].thread.join()
            # The call is still wanted by the other one.
            late[1].cancel()
            late[1].thread.join()
            resolver.open.set()

    run(root)
    assert not any("late.test" in arguments for arguments in resolver.asked)


def test_types_that_compare_equal_are_different_look_ups(resolver):
    def root():
        with ThreadGroup() as group:
            group.spawn(dns.getaddrinfo, "name.test", 80)
            group.spawn(dns.getaddrinfo, "name.test", 80.0)
            group.spawn(dns.getaddrinfo, b"name.test", 80)
            group.spawn(dns.getaddrinfo, "name.test", 80, socket.AF_INET, socket.SOCK_STREAM)
            group.spawn(dns.getaddrinfo, "name.test", 80, int(socket.AF_INET), int(socket.SOCK_STREAM))
            resolver.open.set()

    run(root)
    assert 4 == len(resolver.asked)


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("getaddrinfo", ("127.0.0.1", 80)),
        ("getaddrinfo", (b"127.0.0.1", "80")),
        ("getaddrinfo", ("127.1", None)),
        ("getaddrinfo", ("::1", 80)),
        ("getaddrinfo", ("fe80::1%1", 80)),
        ("getaddrinfo", (None, 80)),
        ("getaddrinfo", (None, b"80", socket.AF_INET, socket.SOCK_STREAM, 0, socket.AI_PASSIVE)),
        ("getaddrinfo", ("127.0.0.1", 80, socket.AF_INET6)),
        ("getaddrinfo", (None, None)),
        ("getaddrinfo", (7, 80)),
        ("getaddrinfo", ("127.0.0.1", 80, "no family")),
        ("gethostbyname", ("127.0.0.1",)),
        ("gethostbyname", ("127.1",)),
        ("gethostbyname", ("::1",)),
        ("gethostbyname", (None,)),
        ("gethostbyname_ex", ("127.0.0.1",)),
        ("getnameinfo", (("127.0.0.1", 80), socket.NI_NUMERICHOST | socket.NI_NUMERICSERV)),
        ("getnameinfo", (("name.test",), socket.NI_NUMERICHOST | socket.NI_NUMERICSERV)),
    ],
)
def test_what_needs_no_look_up_is_answered_in_place_as_by_the_original(name, arguments, monkeypatch):
    original = getattr(dns, f"original_{name}")
    idents = []

    def spy(*arguments):
        idents.append(threading.get_ident())
        return original(*arguments)

    def outcome(function):
        try:
            return function(*arguments)
        except Exception as error:
            return type(error), error.args

    expected = outcome(original)
    monkeypatch.setattr(dns, f"original_{name}", spy)
    assert expected == run(lambda: outcome(getattr(dns, name)))
    assert [threading.get_ident()] == idents


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("getaddrinfo", ("", 80)),
        ("getaddrinfo", ("127.0.0.1 ", 80)),
        ("getaddrinfo", ("127.0.0.1", "http")),
        ("getaddrinfo", ("name.test", [])),
        ("gethostbyname", (bytearray(b"name.test"),)),
        ("getnameinfo", (("127.0.0.1", 80), socket.NI_NUMERICHOST)),
    ],
)
def test_what_may_block_is_not_asked_in_place(name, arguments, monkeypatch):
    idents = []
    monkeypatch.setattr(dns, f"original_{name}", lambda *_: idents.append(threading.get_ident()))
    run(lambda: getattr(dns, name)(*arguments))
    assert 1 == len(idents)
    assert [threading.get_ident()] != idents


HOSTS = "127.0.0.1 localhost # loopback.test\n10.0.0.1\tName.test alias\n::1 six.test\nnonsense broken.test\n"


class HostsFiles:
    """The two files that decide whether a name is found without the network."""

    def __init__(self, folder, monkeypatch):
        self.hosts, self.sources = folder / "hosts", folder / "nsswitch.conf"
        self.hosts.write_text(HOSTS)
        self.sources.write_text("# hosts: dns\npasswd: files\nhosts: files dns\n")
        monkeypatch.setattr(hosts, "HOSTS", str(self.hosts))
        monkeypatch.setattr(hosts, "SOURCES", str(self.sources))
        monkeypatch.setattr(hosts, "CACHE_DAEMON", str(folder / "socket"))
        monkeypatch.setattr(hosts, "SECONDS", 0)
        monkeypatch.setattr(hosts, "_is_gnu", lambda: True)
        monkeypatch.setattr(hosts, "_table", hosts._Table())


@pytest.fixture
def hosts_files(tmp_path, monkeypatch):
    return HostsFiles(tmp_path, monkeypatch)


def looks_up_in_place(monkeypatch, name, *arguments):
    idents = []
    monkeypatch.setattr(dns, f"original_{name}", lambda *_: idents.append(threading.get_ident()))
    run(lambda: getattr(dns, name)(*arguments))
    assert 1 == len(idents)
    return [threading.get_ident()] == idents


@pytest.mark.parametrize(
    ("in_place", "name", "arguments"),
    [
        (True, "getaddrinfo", ("localhost", 80)),
        (True, "getaddrinfo", ("LOCALHOST", b"80", socket.AF_INET, 0, 0, socket.AI_PASSIVE)),
        (True, "getaddrinfo", ("name.test", 80)),
        (True, "getaddrinfo", ("alias", None, 0)),
        (True, "getaddrinfo", ("six.test", 80, socket.AF_INET6)),
        (True, "gethostbyname", ("alias",)),
        (True, "gethostbyname_ex", ("alias",)),
        # There may be another address elsewhere.
        (False, "getaddrinfo", ("six.test", 80)),
        (False, "getaddrinfo", ("localhost", 80, socket.AF_INET6)),
        (False, "gethostbyname", ("six.test",)),
        # The name may be looked up elsewhere with these arguments.
        (False, "getaddrinfo", ("localhost", "http")),
        (False, "getaddrinfo", ("localhost", 80, 0, 0, 0, socket.AI_ADDRCONFIG)),
        (False, "getaddrinfo", ("localhost", 80, 77)),
        (False, "getaddrinfo", ("localhost", 80, "no family")),
        (False, "getaddrinfo", (b"localhost", 80)),
        (False, "getaddrinfo", ("localhost.", 80)),
        (False, "getaddrinfo", ("loopback.test", 80)),
        (False, "getaddrinfo", ("broken.test", 80)),
        (False, "getaddrinfo", ("other.test", 80)),
    ],
)
def test_a_name_in_the_file_of_hosts_is_asked_in_place(in_place, name, arguments, monkeypatch, hosts_files):
    assert in_place == looks_up_in_place(monkeypatch, name, *arguments)


@pytest.mark.parametrize(
    ("in_place", "sources"),
    [
        (True, "hosts: files"),
        (True, "hosts:files mdns4_minimal [NOTFOUND=return] dns # comment"),
        (False, "hosts: dns files"),
        (False, "hosts: files [SUCCESS=continue] dns"),
        (False, "hosts:"),
        (False, "passwd: files"),
        (False, ""),
    ],
)
def test_the_file_of_hosts_counts_if_it_is_the_first_source(in_place, sources, monkeypatch, hosts_files):
    hosts_files.sources.write_text(sources)
    assert in_place == looks_up_in_place(monkeypatch, "getaddrinfo", "localhost", 80)


def test_a_changed_file_of_hosts_is_read_again(monkeypatch, hosts_files):
    def replace(text):
        new = hosts_files.hosts.with_name("new")
        new.write_text(text)
        new.replace(hosts_files.hosts)

    assert looks_up_in_place(monkeypatch, "getaddrinfo", "name.test", 80)
    replace("127.0.0.1 localhost\n")
    assert not looks_up_in_place(monkeypatch, "getaddrinfo", "name.test", 80)
    hosts_files.hosts.unlink()
    assert not looks_up_in_place(monkeypatch, "getaddrinfo", "localhost", 80)
    replace("127.0.0.1 localhost\n")
    assert looks_up_in_place(monkeypatch, "getaddrinfo", "localhost", 80)


def test_a_large_file_of_hosts_is_left_to_an_os_thread(monkeypatch, hosts_files):
    hosts_files.hosts.write_text(HOSTS + "#" * hosts.LARGEST)
    assert not looks_up_in_place(monkeypatch, "getaddrinfo", "localhost", 80)


def test_a_daemon_that_keeps_names_is_asked_on_an_os_thread(monkeypatch, hosts_files):
    (hosts_files.hosts.parent / "socket").touch()
    assert not looks_up_in_place(monkeypatch, "getaddrinfo", "localhost", 80)


def test_a_c_library_that_is_not_known_is_asked_on_an_os_thread(monkeypatch, hosts_files):
    monkeypatch.setattr(hosts, "_is_gnu", lambda: False)
    monkeypatch.setattr(hosts, "_table", hosts._Table())
    assert not looks_up_in_place(monkeypatch, "getaddrinfo", "localhost", 80)


def test_in_place_is_a_checkpoint():
    def root():
        with vthreads.CancelScope() as scope:
            scope.cancel()
            dns.getaddrinfo("127.0.0.1", 80)
        return scope.cancelled_caught

    assert run(root)


def test_names_are_looked_up_from_several_carriers(resolver):
    answers = []

    def carrier():
        answers.append(vthreads.run(resolver.look_up, patch=False))

    os_threads = [threading.Thread(target=carrier) for _ in range(3)]
    for os_thread in os_threads:
        os_thread.start()
    assert resolver.begun.wait(20)
    resolver.open.set()
    for os_thread in os_threads:
        os_thread.join()
    assert [resolver.answer] * 3 == answers


@pytest.mark.real
def test_a_process_ends_with_a_stuck_look_up():
    script = """
import socket, threading, vthreads
from vthreads._calls.net import dns, hosts
dns.original_getaddrinfo = lambda *_: threading.Event().wait()
try:
    with vthreads.fail_after(0.05):
        socket.create_connection(("name.test", 80))
except TimeoutError:
    print("in time")
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=200, check=False)
    assert ("in time\n", "", 0) == (done.stdout, done.stderr, done.returncode)
