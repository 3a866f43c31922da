"""Collects lines of logs over TCP, counts them by level, and answers questions about them. It tests itself."""

from gevent import monkey

monkey.patch_all()

import collections  # noqa: E402  the patch comes first
import json  # noqa: E402
import signal  # noqa: E402
import socket  # noqa: E402
import threading  # noqa: E402
import time  # noqa: E402

import gevent  # noqa: E402
import gevent.event  # noqa: E402
import gevent.pool  # noqa: E402
import gevent.queue  # noqa: E402
import gevent.server  # noqa: E402

LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR")


class Collector:
    """Senders put lines into a queue; workers parse them; a reporter prints the counts now and then."""

    def __init__(self, workers=4, idle=2):
        self.lines = gevent.queue.JoinableQueue(maxsize=1000)
        self.counts = collections.Counter()
        self.idle = idle
        self.stopped = gevent.event.Event()
        self.first_error = gevent.event.AsyncResult()
        self.context = threading.local()
        self.workers = [gevent.spawn(self.work) for _ in range(workers)]
        self.senders = gevent.pool.Pool(100)
        self.server = gevent.server.StreamServer(("127.0.0.1", 0), self.receive, spawn=self.senders)
        self.questions = gevent.server.StreamServer(("127.0.0.1", 0), self.answer)
        self.reporter = None

    def start(self):
        self.server.start()
        self.questions.start()
        self.reporter = gevent.spawn(self.report)
        for worker in self.workers:
            worker.link_exception(self.worker_failed)

    def worker_failed(self, worker):
        print("a worker failed:", worker.exception)
        self.workers.remove(worker)
        replacement = gevent.spawn(self.work)
        replacement.link_exception(self.worker_failed)
        self.workers.append(replacement)

    def receive(self, connection, address):
        """One sender; it is cut off when it sends nothing for a while."""
        stream = connection.makefile("r")
        try:
            while True:
                with gevent.Timeout(self.idle, False):
                    line = stream.readline()
                    if not line:
                        return
                    self.lines.put((address[1], line.strip()))
                    continue
                print("a sender was idle")
                return
        except ConnectionError:
            pass
        finally:
            stream.close()
            connection.close()

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
                if level == "ERROR" and not self.first_error.ready():
                    self.first_error.set(text)
            finally:
                self.lines.task_done()

    def answer(self, connection, _address):
        """A question is a name; the answer is JSON."""
        try:
            with gevent.Timeout(5):
                question = connection.recv(100).decode().strip()
                if question == "counts":
                    answer = dict(self.counts)
                elif question == "first error":
                    answer = self.first_error.get(timeout=0.5)
                else:
                    answer = f"no question {question}"
        except gevent.Timeout:
            answer = None
        connection.sendall(json.dumps(answer, sort_keys=True).encode())
        connection.close()

    def report(self):
        try:
            while True:
                gevent.sleep(60)
                print("counts:", json.dumps(self.counts, sort_keys=True))
        except gevent.GreenletExit:
            print("at the end:", json.dumps(self.counts, sort_keys=True))

    def stop(self):
        self.stopped.set()

    def serve(self):
        self.start()
        self.stopped.wait()
        self.server.stop(timeout=2)
        self.lines.join()
        self.questions.stop()
        gevent.killall([*self.workers, self.reporter])


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
    gevent.signal_handler(signal.SIGTERM, collector.stop)
    service = gevent.spawn(collector.serve)
    gevent.sleep(0)
    port, questions = collector.server.server_port, collector.questions.server_port

    assert ask(questions, "first error") is None
    senders = [gevent.spawn(send, port, number) for number in range(20)]
    gevent.joinall(senders, raise_error=True)
    with socket.create_connection(("127.0.0.1", port)) as idle:
        idle.sendall(b"nonsense\n")
        assert idle.recv(1) == b""  # cut off
    collector.lines.join()
    print("senders:", sum(sender.successful() for sender in senders))
    print("first error known:", isinstance(ask(questions, "first error"), str))
    print("questions:", *gevent.pool.Pool(5).map(lambda name: ask(questions, name), ["counts", "age"]))
    collector.stop()
    service.get()


if __name__ == "__main__":
    main()
