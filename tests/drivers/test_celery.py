"""Celery: the pool of a worker, alone on a virtual clock, and in real workers with Redis, RabbitMQ and a folder."""

import gc
import os
import signal
import subprocess
import sys
import threading
import uuid

import pytest

celery = pytest.importorskip("celery", reason="celery is not installed")
redis = pytest.importorskip("redis", reason="redis is not installed")

import kombu.pools  # noqa: E402
from billiard.exceptions import SoftTimeLimitExceeded, Terminated, TimeLimitExceeded  # noqa: E402
from celery.exceptions import TaskRevokedError  # noqa: E402

import vthreads  # noqa: E402  a skipped module needs none of it
from tests.test_documentation import DOCS, blocks  # noqa: E402
from vthreads import Cancelled, Event  # noqa: E402
from vthreads.testing import VirtualClock  # noqa: E402

from ..servers import server_or_skip  # noqa: E402

pytestmark = pytest.mark.real

LIMIT = 100  # seconds: against a hang


@pytest.fixture(scope="module", autouse=True)
def pool_class():
    """The import patches the standard library, so it must not happen when the tests are collected."""
    global TaskPool
    from vthreads.integrations.celery import TaskPool


# --- the pool alone


class Reports:
    """Call a function through a pool, and record what the pool reports."""

    def __init__(self, pool, function, *args, accept=None, report=None, **options):
        self.made = []
        self.ended = Event()
        self.number = None
        self._accept = accept
        self._report = report
        self.job = pool.apply_async(
            function,
            args,
            accept_callback=self._accepted,
            callback=lambda value: self._end("value", value),
            error_callback=lambda info: self._end("error", getattr(info.exception, "exc", info.exception)),
            timeout_callback=self._timed_out,
            **options,
        )

    def _accepted(self, number, _):
        self.number = number
        self.made.append("accepted")
        if self._accept is not None:
            self._accept(number)

    def _timed_out(self, soft, seconds):
        if soft:
            self.made.append(("soft", seconds))
        else:
            self._end("hard", seconds)

    def _end(self, kind, what):
        if self._report is not None:
            self._report()
        self.made.append((kind, what))
        self.ended.set()

    def wait(self):
        self.ended.wait()
        return self.made


@pytest.fixture
def with_pool():
    """Call `fn(pool)` on a virtual clock, with a pool that is stopped afterwards."""

    def with_pool(fn, limit=10, **options):
        def root():
            pool = TaskPool(limit, **options)
            pool.start()
            result = fn(pool)
            pool.stop()
            assert {"running": 0, "waiting": 0}.items() <= pool.info.items()
            return result

        return vthreads.run(root, clock=VirtualClock())

    return with_pool


def test_a_value_and_an_error_are_reported(with_pool):
    def root(pool):
        return Reports(pool, divmod, 7, 2).wait(), Reports(pool, int, "x").wait()

    (value, error) = with_pool(root)
    assert ["accepted", ("value", (3, 1))] == value
    assert isinstance(error[1][1], ValueError)


def test_a_function_gets_arguments_by_name(with_pool):
    def root(pool):
        values = vthreads.Queue()
        pool.apply_async(int, ("11",), {"base": 2}, callback=values.put)
        return values.get()

    assert 3 == with_pool(root)


def test_a_task_that_leaves_python_is_an_error(with_pool):
    def leave():
        raise SystemExit(3)

    (_, (kind, error)) = with_pool(lambda pool: Reports(pool, leave).wait())
    assert ("error", 3) == (kind, error.code)


def test_the_limit_bounds_the_tasks_at_once_and_no_call_waits(with_pool):
    def root(pool):
        release = [Event() for _ in range(4)]
        reports = [Reports(pool, event.wait) for event in release]
        seen = [[len(one.made) for one in reports]]
        assert {"running": 2, "waiting": 2}.items() <= pool.info.items()
        for event, one in zip(release, reports, strict=True):
            event.set()
            one.wait()
            vthreads.sleep(1)
            seen.append([len(one.made) for one in reports])
        return seen

    assert [[1, 1, 0, 0], [2, 1, 1, 0], [2, 2, 1, 1], [2, 2, 2, 1], [2, 2, 2, 2]] == with_pool(root, 2)


def test_the_pool_grows_and_shrinks_from_any_os_thread(with_pool):
    def root(pool):
        end = Event()
        reports = [Reports(pool, end.wait) for _ in range(4)]
        os_thread = threading.Thread(target=pool.grow, args=(2,))
        os_thread.start()
        os_thread.join()
        vthreads.sleep(1)
        grown = [len(one.made) for one in reports]
        pool.shrink(5)
        late = Reports(pool, int)
        end.set()
        for one in [*reports, late]:
            one.wait()
        return grown, pool.num_processes

    assert ([1, 1, 1, 0], 1) == with_pool(root, 1)


def test_a_soft_limit_interrupts_the_wait_and_the_task_may_go_on(with_pool):
    def work():
        try:
            vthreads.sleep(60)
        except SoftTimeLimitExceeded:
            vthreads.sleep(10)
            return vthreads.now()

    assert ["accepted", ("soft", 3), ("value", 13)] == with_pool(
        lambda pool: Reports(pool, work, soft_timeout=3).wait()
    )


def test_a_soft_limit_that_is_not_reached_leaves_no_thread(with_pool):
    def root(pool):
        Reports(pool, int, soft_timeout=3600).wait()
        vthreads.checkpoint()
        return list(vthreads.ThreadGroup.current)

    assert [] == with_pool(root)


def test_the_limits_begin_after_the_report_that_the_task_is_accepted(with_pool):
    def root(pool):
        options = {"accept": lambda _: vthreads.sleep(2), "timeout": 3, "soft_timeout": 3}
        return Reports(pool, vthreads.sleep, 2, **options).wait()

    assert ["accepted", ("value", None)] == with_pool(root)


def test_a_hard_limit_of_the_worker_holds_for_tasks_without_their_own(with_pool):
    assert ["accepted", ("hard", 5)] == with_pool(lambda pool: Reports(pool, vthreads.sleep, 60).wait(), timeout=5)


def test_limits_of_the_worker_hold_for_tasks_without_their_own(with_pool):
    def root(pool):
        return [Reports(pool, vthreads.sleep, 60, **own).wait() for own in ({}, {"timeout": 1}, {"soft_timeout": 1})]

    options = {"timeout": 5, "soft_timeout": 3}
    (soft, hard, own_soft) = with_pool(root, **options)
    assert ["accepted", ("soft", 1)] == own_soft[:2]
    assert ["accepted", ("soft", 3)] == soft[:2]
    assert isinstance(soft[2][1], SoftTimeLimitExceeded)
    assert ["accepted", ("hard", 1)] == hard


def test_an_interrupt_that_no_checkpoint_of_the_task_has_raised_is_dropped(with_pool):
    """The limit passes right after the wait of the task has succeeded; the report of its value has checkpoints."""

    def work():
        vthreads.sleep(3)
        return "value"

    def root(pool):
        return Reports(pool, work, soft_timeout=3, report=lambda: vthreads.sleep(1)).wait()

    assert ["accepted", ("soft", 3), ("value", "value")] == with_pool(root)


def test_a_soft_limit_that_passes_while_the_task_ends_does_nothing(with_pool):
    """Both limits pass at once. The hard one ends the wait of the task, which returns before the soft one runs."""

    def work():
        try:
            vthreads.sleep(60)
        except Cancelled:
            return "value"

    def root(pool):
        return Reports(pool, work, timeout=3, soft_timeout=3, report=lambda: vthreads.sleep(1)).wait()

    assert ["accepted", ("value", "value")] == with_pool(root)


def test_a_value_counts_though_both_a_soft_limit_and_a_termination_came_too_late(with_pool):
    def work():
        vthreads.sleep(3)
        return "value"

    def root(pool):
        def terminate():
            vthreads.sleep(3)
            pool.terminate_job(reports.number, signal.SIGTERM)

        vthreads.spawn(terminate)
        reports = Reports(pool, work, soft_timeout=3, report=lambda: vthreads.sleep(1))
        return reports.wait()

    assert ["accepted", ("soft", 3), ("value", "value")] == with_pool(root)


def test_a_hard_limit_is_reported_after_the_cleanup_of_the_task(with_pool):
    def work(events):
        try:
            vthreads.sleep(60)
        finally:
            vthreads.sleep(1)
            events.append(vthreads.now())

    def root(pool):
        events = []
        reports = Reports(pool, work, events, timeout=3, soft_timeout=None).wait()
        return reports, events, vthreads.now()

    assert (["accepted", ("hard", 3)], [4], 4) == with_pool(root)


def test_cleanup_has_no_more_than_its_grace(with_pool):
    def work():
        try:
            vthreads.sleep(60)
        finally:
            vthreads.sleep(60)

    def root(pool):
        return Reports(pool, work, timeout=3).wait(), vthreads.now()

    assert (["accepted", ("hard", 3)], 5) == with_pool(root)


def test_a_task_that_swallows_the_hard_limit_has_ended_in_time(with_pool):
    def work():
        try:
            vthreads.sleep(60)
        except Cancelled:
            return "value"

    assert ["accepted", ("value", "value")] == with_pool(lambda pool: Reports(pool, work, timeout=3).wait())


@pytest.mark.parametrize("signals", [(signal.SIGTERM,), ()])
def test_a_terminated_task_is_cancelled(with_pool, signals):
    def root(pool):
        reports = Reports(pool, vthreads.sleep, 60)
        pool.terminate_job(reports.number, *signals)
        pool.terminate_job(12345678, signal.SIGTERM)
        return reports.wait()

    (_, (kind, error)) = with_pool(root)
    assert ("error", Terminated) == (kind, type(error))


def test_a_task_that_is_terminated_while_it_is_accepted_does_not_begin(with_pool):
    def root(pool):
        begun = []
        reports = Reports(pool, begun.append, 1, accept=lambda number: pool.terminate_job(number, 15))
        return reports.wait()[-1][0], begun

    assert ("error", []) == with_pool(root)


def test_a_task_that_waits_in_the_pool_is_terminated_at_once(with_pool):
    def root(pool):
        end = Event()
        first = Reports(pool, end.wait)
        begun = []
        second = Reports(pool, begun.append, 1, accept=lambda number: pool.terminate_job(number, 15))
        third = Reports(pool, int)
        second.job.terminate(signal.SIGTERM)
        reports = second.wait()
        assert [] == third.made
        end.set()
        first.wait()
        third.wait()
        (accepted, (kind, _)) = reports
        return accepted, kind, begun

    assert ("accepted", "error", []) == with_pool(root, 1)


def test_a_report_that_fails_does_not_end_the_pool(with_pool, caplog):
    def root(pool):
        def fail(_):
            raise OSError("the broker is gone")

        pool.apply_async(int, callback=fail)
        return Reports(pool, int).wait()

    assert ["accepted", ("value", 0)] == with_pool(root)
    assert "the broker is gone" in caplog.text


def test_a_warm_stop_waits_for_what_has_begun_and_forgets_the_rest(with_pool):
    def root(pool):
        first = Reports(pool, vthreads.sleep, 60)
        second = Reports(pool, vthreads.sleep, 60)
        pool.close()
        pool.stop()
        return first.made, second.made, vthreads.now()

    assert (["accepted", ("value", None)], [], 60) == with_pool(root, 1)


def test_a_warm_stop_is_over_with_its_last_task(with_pool):
    def root(pool):
        for seconds in (0.1, 0.2, 0.3):
            Reports(pool, vthreads.sleep, seconds)
        pool.stop()
        return vthreads.now()

    assert 0.3 == with_pool(root)


@pytest.mark.parametrize("end", ["close", "terminate"])
def test_a_closed_pool_begins_nothing(with_pool, end):
    """The worker closes its pool before it asks the broker to send no more messages."""

    def root(pool):
        getattr(pool, end)()
        late = Reports(pool, int)
        late.job.terminate(signal.SIGTERM)
        pool.stop()
        return late.made

    assert [] == with_pool(root)


def test_a_cold_stop_cancels_and_waits_for_the_cleanup(with_pool):
    def work(cleaned):
        try:
            vthreads.sleep(60)
        finally:
            vthreads.sleep(1)
            cleaned.append(vthreads.now())

    def root(pool):
        cleaned = []
        reports = [Reports(pool, work, cleaned) for _ in range(4)]
        pool.terminate()
        return list(cleaned), [one.made for one in reports]

    # The last one waits for a slot, and is left to the broker.
    assert ([1, 1, 1], [["accepted"], ["accepted"], ["accepted"], []]) == with_pool(root, 3)


def test_a_cold_stop_reports_no_outcome_and_waits_no_longer_than_its_limit(with_pool):
    def work(end):
        try:
            vthreads.sleep(60)
        finally:
            with vthreads.shield(None):
                vthreads.sleep(60)
            end()

    def root(pool):
        reports = [Reports(pool, work, end) for end in (int, lambda: 1 / 0)]
        pool.terminate()
        stopped = vthreads.now()
        vthreads.sleep(120)
        return stopped, [one.made for one in reports]

    assert (5, [["accepted"], ["accepted"]]) == with_pool(root)


def test_the_heartbeats_of_a_loop_go_on_while_tasks_end(with_pool):
    class Loop:
        fired = 0

        def fire_timers(self):
            self.fired += 1

    def root(pool):
        loop = Loop()
        pool.register_with_event_loop(loop)
        Reports(pool, vthreads.sleep, 10)
        pool.stop()
        return loop.fired

    assert 20 <= with_pool(root)


def test_a_cancellation_of_the_program_goes_through(with_pool):
    def root(pool):
        with vthreads.ThreadGroup() as group:
            pool.start()
            reports = Reports(pool, vthreads.sleep, 60)
            group.cancel()
        return reports.made

    assert ["accepted"] == with_pool(root)


# --- results that tasks wait for


def drainer():
    return celery.backends.asynchronous.drainers["default"](None)


def test_one_task_at_a_time_reads_results_and_its_reading_is_for_all():
    def root():
        def read(timeout):
            reading.append(vthreads.current_thread())
            at_once.append(len(reading))
            vthreads.sleep(timeout)
            reading.remove(vthreads.current_thread())

        shared = drainer()
        began = vthreads.now()
        with vthreads.ThreadGroup() as group:
            for _ in range(3):
                group.spawn(shared.wait_for, None, read, 5)
        shared.wait_for(None, read, 5)
        return vthreads.now() - began

    reading, at_once = [], []
    assert 10 == vthreads.run(root, clock=VirtualClock())
    assert [1, 1] == at_once


def test_a_task_waits_for_the_reading_of_another_one_no_longer_than_its_limit():
    def root():
        def read(timeout):
            vthreads.sleep(3600)

        shared = drainer()
        with vthreads.ThreadGroup() as group:
            group.spawn(shared.wait_for, None, read)
            began = vthreads.now()
            shared.wait_for(None, read, 5)
            waited = vthreads.now() - began
            group.cancel()
        return waited

    assert 5 == vthreads.run(root, clock=VirtualClock())


def test_a_reading_that_fails_unparks_the_others_and_one_of_them_reads_next():
    def root():
        def fails(timeout):
            vthreads.sleep(timeout)
            raise OSError("the connection is lost")

        def reads_once(timeout):
            read.append(timeout)

        def reads():
            with pytest.raises(OSError, match="is lost"):
                shared.wait_for(None, fails, 5)

        shared = drainer()
        with vthreads.ThreadGroup() as group:
            group.spawn(reads)
            shared.wait_for(None, fails)
        shared.wait_for(None, reads_once, 7)

    read = []
    vthreads.run(root, clock=VirtualClock())
    assert [7] == read


def test_the_import_of_the_integration_patches(run_script):
    script = """
import time
import vthreads.integrations.celery
import vthreads
from vthreads.testing import VirtualClock

# Without the patch this would take an hour.
vthreads.run(time.sleep, 3600, clock=VirtualClock())
print("slept")
"""
    assert "slept\n" == run_script(script)


def test_the_timer_of_a_worker_without_a_loop_is_a_virtual_thread():
    def root():
        timer, called = TaskPool.Timer(max_interval=0.05), vthreads.Queue()
        timer.start()
        timer.start()
        timer.call_after(0.01, lambda: called.put(vthreads.current_thread() in vthreads_here()), ())
        timer.call_repeatedly(0.01, called.put, ("again",))
        seen = [called.get() for _ in range(4)]
        assert 1 == len(vthreads_here())
        timer.stop()
        assert [] == vthreads_here()
        return sorted(map(str, seen))

    def vthreads_here():
        return list(vthreads.ThreadGroup.current)

    assert ["True", "again", "again", "again"] == vthreads.run(root)


# --- real workers


TASKS = '''
import os
import threading
import time

import redis
from celery import Celery, bootsteps
from celery.exceptions import SoftTimeLimitExceeded

app = Celery("tasks", broker=os.environ["BROKER"], backend="redis://127.0.0.1:6379/6")
app.conf.task_default_queue = os.environ["QUEUE"]
app.conf.worker_prefetch_multiplier = 1
app.conf.broker_connection_retry_on_startup = True
app.conf.control_exchange = os.environ["QUEUE"]
app.conf.result_expires = 600
app.conf.task_track_started = True
if os.environ["BROKER"] == "filesystem://":
    app.conf.broker_transport_options = {
        "data_folder_in": "messages", "data_folder_out": "messages", "control_folder": "control"
    }

TOGETHER = threading.Barrier(int(os.environ["TOGETHER"]))
signs = redis.Redis(db=7)


def sign(name):
    """Tell the test that a task has come this far."""
    signs.rpush(os.environ["QUEUE"] + name, "here")


class Closing(bootsteps.StartStopStep):
    """Tells the test that the worker takes no more messages."""

    requires = {"celery.worker.components:Pool"}

    def close(self, worker):
        sign("closing")


app.steps["worker"].add(Closing)


@app.task
def meet():
    TOGETHER.wait()
    return len(os.listdir("/proc/self/task"))


@app.task
def add(left, right):
    return left + right


@app.task
def ask_another(number):
    return add.delay(number, number).get()


@app.task
def wait_for(name):
    sign(name)
    return signs.blpop(os.environ["QUEUE"] + "go", 200) is not None


@app.task(acks_late=True)
def wait_late(name):
    return wait_for(name)


@app.task(soft_time_limit=0.2)
def softly(catch):
    try:
        time.sleep(300)
    except SoftTimeLimitExceeded:
        if not catch:
            raise
        time.sleep(0.01)
        return "caught"


@app.task(time_limit=0.2)
def hard(name):
    try:
        time.sleep(300)
    finally:
        sign(name)


@app.task
def hang(name):
    try:
        # The cancellation may come while it waits for the answer.
        sign(name)
        time.sleep(300)
    finally:
        sign(name + "-cleaned")
'''

BROKERS = {
    "Redis": "redis://127.0.0.1:6379/5",
    "RabbitMQ": "amqp://guest:guest@127.0.0.1:5672//",
    "folder": "filesystem://",
}
FOLDERS = {"data_folder_in": "messages", "data_folder_out": "messages", "control_folder": "control"}


class Worker:
    """A worker in a process, and a client that sends it tasks."""

    def __init__(self, folder, broker, monkeypatch, *options, together=2):
        self.queue = f"vthreads-{uuid.uuid4().hex}"
        for name, value in {"BROKER": BROKERS[broker], "QUEUE": self.queue, "TOGETHER": str(together)}.items():
            monkeypatch.setenv(name, value)
        monkeypatch.chdir(folder)
        for name in ("messages", "control"):
            (folder / name).mkdir()
        (folder / "tasks.py").write_text(TASKS)
        self.app = celery.Celery(broker=BROKERS[broker], backend="redis://127.0.0.1:6379/6", set_as_current=False)
        self.app.conf.task_default_queue = self.app.conf.control_exchange = self.queue
        if broker == "folder":
            self.app.conf.broker_transport_options = FOLDERS
        self._signs = redis.Redis(db=7)
        self._logs = []
        self.start(*options)

    def start(self, *options):
        environment = {**os.environ, "CELERY_CUSTOM_WORKER_POOL": "vthreads.integrations.celery:TaskPool"}
        name = f"{self.queue}@here"
        command = ["celery", "-A", "tasks", "worker", "-P", "custom", "-l", "INFO", "-n", name, *options]
        self._logs.append(open(f"{len(self._logs)}.log", "w+"))  # noqa: SIM115  # closed by `close`
        out = {"stdout": self._logs[-1], "stderr": self._logs[-1]}
        self.process = subprocess.Popen([sys.executable, "-m", *command], env=environment, **out)
        # Only a worker that consumes answers.
        assert 2 == self.send("add", 1, 1).get(timeout=LIMIT), self.said()

    def send(self, name, *args, **options):
        return self.app.send_task(f"tasks.{name}", args, **options)

    def said(self):
        self._logs[-1].seek(0)
        return self._logs[-1].read()

    def sign(self, name):
        """Wait until a task has given this sign."""
        assert self._signs.blpop(self.queue + name, LIMIT), self.said()

    def given(self, name):
        return self._signs.llen(self.queue + name)

    def go(self, count=1):
        self._signs.rpush(self.queue + "go", *["go"] * count)

    def end(self, how=signal.SIGTERM):
        self.process.send_signal(how)
        return self.process.wait(LIMIT)

    def close(self):
        self.process.kill()
        self.process.wait()
        with self.app.connection_for_write() as connection:
            connection.default_channel.queue_delete(self.queue)
        for key in self._signs.scan_iter(self.queue + "*"):
            self._signs.delete(key)
        self._signs.close()
        self.app.backend.result_consumer.stop()
        self.app.backend.client.connection_pool.disconnect()
        kombu.pools.reset()
        self.app.close()
        del self.app
        # Transports of kombu refer to their channels and pollers in cycles.
        gc.collect()
        for log in self._logs:
            log.close()


@pytest.fixture
def start(tmp_path, monkeypatch):
    started = []

    def start(broker, *options, **keywords):
        for server in {"Redis", broker} - {"folder"}:
            server_or_skip(server)
        started.append(Worker(tmp_path, broker, monkeypatch, *options, **keywords))
        return started[-1]

    yield start
    for worker in started:
        worker.close()


@pytest.mark.parametrize(("broker", "number"), [("Redis", 300), ("RabbitMQ", 100)])
def test_all_tasks_run_at_once_on_few_os_threads_and_limits_hold(start, broker, number):
    worker = start(broker, "-c", str(number), together=number)
    results = [worker.send("meet") for _ in range(number)]
    assert max(result.get(timeout=LIMIT) for result in results) < 30

    assert "caught" == worker.send("softly", True).get(timeout=LIMIT)
    with pytest.raises(SoftTimeLimitExceeded):
        worker.send("softly", False).get(timeout=LIMIT)
    with pytest.raises(TimeLimitExceeded):
        worker.send("hard", "hard").get(timeout=LIMIT)
    assert 1 == worker.given("hard")

    hanging = worker.send("hang", "hang")
    worker.sign("hang")
    hanging.revoke(terminate=True)
    with pytest.raises(TaskRevokedError):
        hanging.get(timeout=LIMIT)
    worker.sign("hang-cleaned")

    asking = [worker.send("ask_another", number) for number in range(10)]
    assert list(range(0, 20, 2)) == [result.get(timeout=LIMIT) for result in asking]
    assert 0 == worker.end(), worker.said()


@pytest.mark.parametrize("broker", ["Redis", "RabbitMQ"])
def test_a_warm_shutdown_ends_what_has_begun_and_leaves_the_rest_to_the_broker(start, broker):
    worker = start(broker, "-c", "2", "--prefetch-multiplier", "2")
    begun = [worker.send("wait_for", "early"), worker.send("wait_late", "late")]
    worker.sign("early")
    worker.sign("late")
    later = [worker.send("add", number, 1) for number in range(4)]
    worker.process.send_signal(signal.SIGTERM)
    worker.sign("closing")
    worker.go(2)
    assert [True, True] == [result.get(timeout=LIMIT) for result in begun]
    assert 0 == worker.end(), worker.said()
    assert {"PENDING"} == {result.state for result in later}

    worker.start("-c", "2")
    assert [1, 2, 3, 4] == [result.get(timeout=LIMIT) for result in later]
    # The acknowledgement of the late one has reached the broker, or it would run again and wait.
    assert 0 == worker.given("late")


def test_what_waits_in_the_pool_is_revoked_at_once_and_the_pool_grows(start):
    worker = start("Redis", "-c", "1", "--prefetch-multiplier", "4")
    first = worker.send("wait_for", "first")
    worker.sign("first")
    second, third = worker.send("hang", "second"), worker.send("wait_for", "third")
    second.revoke(terminate=True)
    with pytest.raises(TaskRevokedError):
        second.get(timeout=LIMIT)
    assert 0 == worker.given("third") + worker.given("second")

    worker.app.control.pool_grow(1)
    worker.sign("third")
    worker.go(2)
    assert [True, True] == [first.get(timeout=LIMIT), third.get(timeout=LIMIT)]


def test_a_cold_shutdown_cancels_the_tasks(start):
    worker = start("Redis", "-c", "4")
    worker.send("hang", "hang")
    worker.sign("hang")
    worker.end(signal.SIGQUIT)
    assert 1 == worker.given("hang-cleaned"), worker.said()


def test_a_worker_without_an_event_loop(start):
    worker = start("folder", "-c", "4")
    later = worker.send("add", 1, 2, countdown=0.5)
    results = [worker.send("meet") for _ in range(2)]
    assert max(result.get(timeout=LIMIT) for result in results) < 30
    assert 3 == later.get(timeout=LIMIT)
    with pytest.raises(TimeLimitExceeded):
        worker.send("hard", "hard").get(timeout=LIMIT)
    hanging = worker.send("hang", "hang")
    worker.sign("hang")
    hanging.revoke(terminate=True)
    worker.sign("hang-cleaned")
    assert 0 == worker.end(), worker.said()


# --- the page


@pytest.mark.server("Redis")
def test_the_python_of_the_page_runs(tmp_path):
    (tmp_path / "program.py").write_text(blocks(DOCS / "how-to" / "use-celery.md"))
    done = subprocess.run(
        [sys.executable, "program.py"], cwd=tmp_path, timeout=2 * LIMIT, capture_output=True, text=True, check=False
    )
    assert 0 == done.returncode, done.stdout + done.stderr
