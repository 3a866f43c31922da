"""dnspython: its own questions over UDP, answered by a server of the test."""

import socket
import threading
from contextlib import contextmanager

import pytest

pytest.importorskip("dns", reason="dnspython is not installed")

import dns.message
import dns.resolver
import dns.rrset

import vthreads
from vthreads import ThreadGroup

pytestmark = pytest.mark.real

COUNT = 50


@contextmanager
def name_server():
    """Answer, on an OS thread, when all of COUNT questions have come; say nothing to those for `silent.test`."""
    asked = threading.Semaphore(0)

    def serve():
        held = []
        while (received := sock.recvfrom(1_000))[0] != b"over":
            question = dns.message.from_wire(received[0])
            if str(question.question[0].name) == "silent.test.":
                asked.release()
            else:
                held.append((question, received[1]))
            if len(held) == COUNT:
                for each, address in held:
                    answer = dns.message.make_response(each)
                    answer.answer.append(dns.rrset.from_text(each.question[0].name, 60, "IN", "A", "192.0.2.1"))
                    sock.sendto(answer.to_wire(), address)
                held.clear()

    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind(("127.0.0.1", 0))
        os_thread = threading.Thread(target=serve)
        os_thread.start()
        resolver = dns.resolver.Resolver(configure=False)
        resolver.nameservers, resolver.port, resolver.lifetime = ["127.0.0.1"], sock.getsockname()[1], 60
        resolver.timeout = 60
        try:
            yield resolver, asked
        finally:
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as last:
                last.sendto(b"over", sock.getsockname())
            os_thread.join()


def test_many_questions_wait_at_once(run):
    def root():
        with name_server() as (resolver, _), ThreadGroup() as group:
            answers = [group.spawn(resolver.resolve, f"host-{number}.test.", "A") for number in range(COUNT)]
        return {answer.result()[0].address for answer in answers}

    assert {"192.0.2.1"} == run(root)


def test_a_question_that_nobody_answers_is_cancelled(run):
    def root():
        with name_server() as (resolver, asked), ThreadGroup() as group:
            questions = [group.spawn(resolver.resolve, "silent.test.", "A") for _ in range(COUNT)]
            for _ in questions:
                asked.acquire()
            group.cancel()
        return all(question.cancelled() for question in questions)

    assert run(root)


def test_a_deadline_ends_a_question(run):
    def root():
        with name_server() as (resolver, asked), vthreads.move_on_after(60) as scope, ThreadGroup() as group:
            group.spawn(resolver.resolve, "silent.test.", "A")
            asked.acquire()
            scope.deadline = vthreads.now()
        return scope.cancelled_caught

    assert run(root)
