"""Collects lines of logs over TCP, counts them by level, and answers questions about them. It tests itself."""

import collections
import concurrent.futures
import json
import signal
import socket
import threading
import time

import vthreads
from vthreads import Event, Queue, ThreadGroup, fail_after, move_on_after, serve

LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR")


class Collector:
    """Senders put lines into a queue; workers parse them; a reporter prints the counts now and then."""

    def __init__(self, workers=4, idle=2):
        self.lines = Queue(maxsize=1000)
        self.counts = collections.Counter()
        self.idle = idle
        self.stopped = Event()
        self.first_error = concurrent.futures.Future()
        self.context = threading.local()
        self.workers = workers

    def receive(self, connection):
        """One sender; it is cut off when it sends nothing for a while."""
        sender = connection.getpeername()[1]
        try:
            with connection.makefile("r") as stream:
                while True:
                    with move_on_after(self.idle):
                        line = stream.readline()
                        if not line:
                            return
                        self.lines.put((sender, line.strip()))
                        continue
                    print("a sender was idle")
                    return
        except ConnectionError:
            pass

    def keep_working(self):
        while True:
            try:
                self.work()
            except ValueError as error:
                print("a worker failed:", error)

    def work(self):
        self.context.parsed = 0
        while True:
            _sender, line = self.lines.get()
            try:
                level, _, text = line.partition(" ")
                if level not in LEVELS:
                    raise ValueError(f"no level in {line!r}")
                self.counts[level] += 1
                self.context.parsed += 1
                if level == "ERROR" and not self.first_error.done():
                    self.first_error.set_result(text)
            finally:
                self.lines.task_done()

    def answer(self, connection):
        """A question is a name; the answer is JSON."""
        try:
            with fail_after(5):
                question = connection.recv(100).decode().strip()
                if question == "counts":
                    answer = dict(self.counts)
                elif question == "first error":
                    answer = self.first_error.result(timeout=0.5)
                else:
                    answer = f"no question {question}"
        except TimeoutError:
            answer = None
        connection.sendall(json.dumps(answer, sort_keys=True).encode())

    def report(self):
        try:
            while True:
                time.sleep(60)
                print("counts:", json.dumps(self.counts, sort_keys=True))
        finally:
            print("at the end:", json.dumps(self.counts, sort_keys=True))

    def stop(self):
        self.stopped.set()

    def serve(self, ready):
        with ThreadGroup("collector") as group:
            for _ in range(self.workers):
                group.spawn(self.keep_working)
            started = Queue()
            limits = {"max_connections": 100, "drain": 2}
            receiving = group.spawn(serve.tcp, self.receive, "127.0.0.1", 0, ready=started.put, **limits)
            server = started.get()
            group.spawn(serve.tcp, self.answer, "127.0.0.1", 0, ready=started.put)
            questions = started.get()
            group.spawn(self.report)
            ready.put((server.addresses[0][1], questions.addresses[0][1]))
            self.stopped.wait()
            server.stop()
            receiving.result()
            self.lines.join()
            group.cancel()


def send(port, number):
    with socket.create_connection(("127.0.0.1", port)) as connection:
        for index in range(50):
            level = LEVELS[(number + index) % 4]
            connection.sendall(f"{level} message {index} of {number}\n".encode())
            if index % 10 == 0:
                time.sleep(0.001)


def ask(port, question):
    with socket.create_connection(("127.0.0.1", port)) as connection:
        connection.sendall(question.encode())
        return json.loads(connection.recv(1000))


def main():
    collector = Collector()
    signal.signal(signal.SIGTERM, lambda number, frame: collector.stop())
    with ThreadGroup() as group:
        ready = Queue()
        group.spawn(collector.serve, ready)
        port, questions = ready.get()

        assert ask(questions, "first error") is None
        with ThreadGroup() as sending:
            senders = [sending.spawn(send, port, number) for number in range(20)]
        with socket.create_connection(("127.0.0.1", port)) as idle:
            idle.sendall(b"nonsense\n")
            assert idle.recv(1) == b""  # cut off
        collector.lines.join()
        print("senders:", sum(sender.exception() is None for sender in senders))
        print("first error known:", isinstance(ask(questions, "first error"), str))
        answers = vthreads.map(lambda name: ask(questions, name), ["counts", "age"], max_concurrency=5)
        print("questions:", *answers)
        collector.stop()


if __name__ == "__main__":
    main()
