"""asgiref alone, and real views of Django: plain code on virtual threads, as guests of the loop."""

import asyncio
import contextvars
import subprocess
import sys
import threading
from ast import literal_eval

import pytest

pytest.importorskip("django", reason="Django is not installed")
sync = pytest.importorskip("asgiref.sync", reason="asgiref is not installed")
uvloop = pytest.importorskip("uvloop", reason="uvloop is not installed")

import vthreads  # noqa: E402  a skipped module needs none of it
from tests.test_documentation import DOCS, blocks  # noqa: E402
from vthreads.integrations import asgiref as integration  # noqa: E402

pytestmark = pytest.mark.real

LIMIT = 100  # seconds: against a hang


@pytest.fixture(scope="module", autouse=True)
def kept():
    """The first loop of uvloop leaves a pipe for the whole process, and asgiref one OS thread."""
    uvloop.new_event_loop().close()
    sync.SyncToAsync.single_thread_executor.submit(int).result()


@pytest.fixture(params=["asyncio", "uvloop", "virtual thread"])
def run(request):
    """Call an asynchronous function in a loop on an OS thread of its own, with the integration; return its result.

    A loop that a virtual thread runs drives no other threads: it waits beside them.
    """

    def run(fn):
        outcome = []

        async def main():
            asyncio.get_running_loop().set_exception_handler(lambda _, context: reports.append(context))
            return await asyncio.wait_for(fn(), LIMIT)

        def call():
            if request.param == "asyncio":
                outcome.append(asyncio.run(main()))
            elif request.param == "uvloop":
                outcome.append(uvloop.run(main()))
            else:
                outcome.append(vthreads.spawn(asyncio.run, main()).result())

        os_thread = threading.Thread(target=call)
        os_thread.start()
        os_thread.join()
        return outcome[0]

    reports = []
    undo = integration.install()
    yield run
    undo()
    assert [] == reports


def on_virtual_thread():
    return isinstance(threading.current_thread(), vthreads.VirtualThread)


# --- asgiref alone


def test_calls_that_are_not_sensitive_have_no_limit(run):
    barrier = threading.Barrier(500)

    async def main():
        meet = sync.sync_to_async(barrier.wait, thread_sensitive=False)
        return sorted(await asyncio.gather(*(meet() for _ in range(500))))

    assert list(range(500)) == run(main)


def test_a_function_wrapped_before_the_installation_is_called_there_too():
    wrapped = sync.sync_to_async(on_virtual_thread, thread_sensitive=False)
    before = asyncio.run(wrapped())
    undo = integration.install()

    async def main():
        return await wrapped()

    os_thread_results = []
    os_thread = threading.Thread(target=lambda: os_thread_results.append(asyncio.run(main())))
    os_thread.start()
    os_thread.join()
    undo()
    assert [False, [True], False] == [before, os_thread_results, asyncio.run(wrapped())]


def test_sensitive_calls_of_a_context_share_a_thread_and_run_one_after_the_other(run):
    def step(number, log):
        log.append(("begin", number))
        vthreads.sleep(0.001)
        log.append(("end", number))
        return threading.current_thread(), on_virtual_thread()

    async def request():
        log = []
        async with sync.ThreadSensitiveContext():
            calls = [sync.sync_to_async(step)(number, log) for number in range(5)]
            threads = await asyncio.gather(*calls)
        assert [(kind, number) for number in range(5) for kind in ("begin", "end")] == log
        assert 1 == len(set(threads))
        return threads[0]

    async def main():
        return await asyncio.gather(*(request() for _ in range(20)))

    threads = run(main)
    assert 20 == len(set(threads))
    assert all(virtual for _, virtual in threads)


def test_sensitive_calls_outside_a_context_keep_their_os_thread(run):
    async def main():
        return [await sync.sync_to_async(threading.current_thread)() for _ in range(2)]

    first, second = run(main)
    assert first is second
    assert not isinstance(first, vthreads.VirtualThread)


def test_an_executor_that_the_caller_passes_is_used(run):
    from concurrent.futures import ThreadPoolExecutor

    async def main():
        with ThreadPoolExecutor(1) as pool:
            return await sync.sync_to_async(on_virtual_thread, thread_sensitive=False, executor=pool)()

    assert not run(main)


def test_an_executor_of_a_context_is_used_and_left_to_its_caller(run):
    from concurrent.futures import ThreadPoolExecutor

    async def main():
        with ThreadPoolExecutor(1) as pool:
            async with sync.ThreadSensitiveContext(executor=pool):
                seen = [await sync.sync_to_async(on_virtual_thread)()]
            return [*seen, pool.submit(on_virtual_thread).result()]

    assert [False, False] == run(main)


def test_the_undo_puts_the_pools_back():
    def found():
        context = sync.ThreadSensitiveContext
        return sync.ThreadPoolExecutor, context.__aexit__, "_executor" in vars(sync.SyncToAsync)

    before = found()
    undo = integration.install()
    during = found()
    # Parts of a program may each install it.
    integration.install()()
    assert during == found()
    undo()
    assert before == found()
    assert all(one != other for one, other in zip(before, during, strict=True))


@pytest.mark.parametrize("first", ["import asgiref.sync", ""])
def test_asgiref_may_be_imported_before_and_after(run_script, first):
    script = f"""
    {first}
    import asyncio
    import sys
    import threading
    from vthreads.integrations import asgiref as integration

    async def kinds():
        from asgiref.sync import ThreadSensitiveContext, sync_to_async

        seen = [await sync_to_async(threading.current_thread, thread_sensitive=False)()]
        async with ThreadSensitiveContext():
            seen.append(await sync_to_async(threading.current_thread)())
        return [type(one).__name__ for one in seen]

    integration.install()()
    if {not first}:
        print(asyncio.run(kinds()))
        del sys.modules["asgiref.sync"]
    undo = integration.install()
    print(asyncio.run(kinds()))
    undo()
    print(asyncio.run(kinds()))
    """
    before = [] if first else [["Thread"] * 2]
    assert [*before, ["VirtualThread"] * 2, ["Thread"] * 2] == list(map(literal_eval, run_script(script).splitlines()))


def test_a_context_that_was_left_starts_no_os_thread_and_is_over(run, monkeypatch):
    start, started = threading.Thread.start, []

    def start_thread(thread):
        started.append(thread)
        start(thread)

    async def main():
        monkeypatch.setattr(threading.Thread, "start", start_thread)
        seen = []
        for _ in range(2):
            async with sync.ThreadSensitiveContext():
                seen.append(await sync.sync_to_async(threading.current_thread)())
        assert isinstance(seen[0], vthreads.VirtualThread)
        assert seen[0] is not seen[1]
        assert not await sync.sync_to_async(on_virtual_thread)()
        return started

    assert [] == run(main)


@pytest.mark.parametrize("sensitive", [False, True])
def test_values_errors_and_context_variables_go_both_ways(run, sensitive):
    variable = contextvars.ContextVar("variable")

    def plain(number):
        seen = variable.get()
        variable.set(seen + number)
        if number < 0:
            raise ValueError(number)
        return seen

    async def main():
        variable.set(1)
        async with sync.ThreadSensitiveContext():
            call = sync.sync_to_async(plain, thread_sensitive=sensitive)
            values = [await call(10), await call(100), variable.get()]
            with pytest.raises(ValueError, match="-1"):
                await call(-1)
            return values

    assert [1, 11, 111] == run(main)


@pytest.mark.parametrize("sensitive", [False, True])
def test_a_cancelled_task_cancels_its_call_alone(run, sensitive):
    log = []

    def hang(begun):
        begun()
        try:
            vthreads.sleep(1000)
        finally:
            vthreads.sleep(0.001)
            log.append("cleaned")

    async def main():
        loop = asyncio.get_running_loop()
        begun, waiting = asyncio.Event(), []
        async with sync.ThreadSensitiveContext():
            call = sync.sync_to_async(hang, thread_sensitive=sensitive)
            task = asyncio.create_task(call(lambda: loop.call_soon_threadsafe(begun.set)))
            await begun.wait()
            if sensitive:
                waiting = [asyncio.create_task(sync.sync_to_async(log.append)("never"))]
                await asyncio.sleep(0)
            for one in (task, *waiting):
                one.cancel()
            for one in (task, *waiting):
                with pytest.raises(asyncio.CancelledError):
                    await one
            log.append("over")
            await sync.sync_to_async(log.append)("next")

    run(main)
    assert ["cleaned", "over", "next"] == log


@pytest.mark.parametrize("sensitive", [False, True])
def test_a_task_that_is_cancelled_again_waits_for_the_cleanup_all_the_same(run, sensitive):
    log = []

    def hang(begun, cleaning, end):
        begun()
        try:
            vthreads.sleep(1000)
        finally:
            cleaning()
            with vthreads.shield(None):
                end.wait()
            log.append("cleaned")

    async def main():
        loop = asyncio.get_running_loop()
        begun, cleaning, end = asyncio.Event(), asyncio.Event(), vthreads.Event()

        def tell(event):
            return lambda: loop.call_soon_threadsafe(event.set)

        async with sync.ThreadSensitiveContext():
            call = sync.sync_to_async(hang, thread_sensitive=sensitive)
            task = asyncio.create_task(call(tell(begun), tell(cleaning), end))
            await begun.wait()
            task.cancel()
            await cleaning.wait()
            task.cancel()
            end.set()
            with pytest.raises(asyncio.CancelledError):
                await task
            log.append("over")

    run(main)
    assert ["cleaned", "over"] == log


@pytest.mark.parametrize("times", [1, 2])
def test_a_call_that_has_an_answer_in_spite_of_its_cancellation_returns_it(run, times):
    def answer(begun, cleaning, end):
        begun()
        try:
            vthreads.sleep(1000)
        except vthreads.Cancelled:
            cleaning()
            with vthreads.shield(None):
                end.wait()
            return "answer"

    async def main():
        loop = asyncio.get_running_loop()
        begun, cleaning, end = asyncio.Event(), asyncio.Event(), vthreads.Event()

        def tell(event):
            return lambda: loop.call_soon_threadsafe(event.set)

        call = sync.sync_to_async(answer, thread_sensitive=False)
        task = asyncio.create_task(call(tell(begun), tell(cleaning), end))
        await begun.wait()
        task.cancel()
        await cleaning.wait()
        for _ in range(times - 1):
            task.cancel()
        end.set()
        return await task

    assert "answer" == run(main)


def test_a_cancellation_between_the_end_of_a_call_and_that_of_its_task_is_not_lost(run):
    def answer(begun, before_end):
        begun()
        try:
            vthreads.sleep(1000)
        except vthreads.Cancelled:
            before_end()
            return "answer"

    async def main():
        loop = asyncio.get_running_loop()
        begun = asyncio.Event()
        call = sync.sync_to_async(answer, thread_sensitive=False)
        task = asyncio.create_task(
            call(
                lambda: loop.call_soon_threadsafe(begun.set),
                # One iteration after the outcome of the call has come, and before the task goes on with that.
                lambda: loop.call_soon_threadsafe(loop.call_soon, task.cancel),
            )
        )
        await begun.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        return True

    assert run(main)


@pytest.mark.parametrize("sensitive", [False, True])
def test_a_stop_iteration_is_an_ordinary_error(run, sensitive):
    async def main():
        async with sync.ThreadSensitiveContext():
            with pytest.raises(RuntimeError, match="StopIteration") as raised:
                await sync.sync_to_async(next, thread_sensitive=sensitive)(iter(()))
            return raised.value.__cause__, await sync.sync_to_async(int, thread_sensitive=sensitive)()

    cause, number = run(main)
    assert isinstance(cause, StopIteration)
    assert 0 == number


def test_a_call_that_outlives_its_loop_ends_without_a_report(monkeypatch):
    reported, seen = [], []
    monkeypatch.setattr(threading, "excepthook", reported.append)
    undo = integration.install()

    def lives():
        end = vthreads.Event()
        call = sync.sync_to_async(lambda: seen.append(end.wait()), thread_sensitive=False)
        loop = asyncio.new_event_loop()
        loop.set_exception_handler(lambda *_: None)
        task = loop.create_task(call())
        loop.run_until_complete(asyncio.sleep(0.01))
        loop.close()
        end.set()
        vthreads.sleep(0.001)
        del task

    os_thread = threading.Thread(target=lives)
    os_thread.start()
    os_thread.join()
    undo()
    assert ([True], []) == (seen, reported)


def test_a_call_whose_thread_is_cancelled_is_cancelled(run):
    def cancels():
        vthreads.current_thread().cancel()
        vthreads.checkpoint()

    async def main():
        with pytest.raises(asyncio.CancelledError):
            await sync.sync_to_async(cancels, thread_sensitive=False)()
        return True

    assert run(main)


def test_a_timeout_of_asyncio_ends_a_call(run):
    async def main():
        try:
            async with asyncio.timeout(0.01):
                await sync.sync_to_async(vthreads.sleep, thread_sensitive=False)(1000)
        except TimeoutError:
            return True

    assert run(main)


def test_a_plain_function_calls_an_asynchronous_one_in_the_loop(run):
    async def inner(loop):
        await asyncio.sleep(0.001)
        return asyncio.get_running_loop() is loop, await sync.sync_to_async(on_virtual_thread)()

    def plain(loop):
        return sync.async_to_sync(inner)(loop)

    async def main():
        async with sync.ThreadSensitiveContext():
            return await sync.sync_to_async(plain)(asyncio.get_running_loop())

    assert (True, True) == run(main)


def test_a_plain_function_calls_an_asynchronous_one_outside_any_loop():
    async def inner():
        return await sync.sync_to_async(on_virtual_thread, thread_sensitive=False)()

    undo = integration.install()
    try:
        assert sync.async_to_sync(inner)()
    finally:
        undo()


def test_a_context_that_is_dropped_leaves_no_thread(run):
    async def main():
        # As a task that is destroyed: the context is never left.
        context = sync.ThreadSensitiveContext()
        await context.__aenter__()
        thread = await sync.sync_to_async(threading.current_thread)()
        sync.SyncToAsync.thread_sensitive_context.reset(context.token)
        del context
        while thread.is_alive():
            await asyncio.sleep(0.001)
        return True

    assert run(main)


# --- Django


PROGRAM = """
import asyncio
import threading
from ast import literal_eval

import django
from asgiref.sync import ThreadSensitiveContext
from django.conf import settings

settings.configure(
    DEBUG=False,
    ALLOWED_HOSTS=["*"],
    ROOT_URLCONF=__name__,
    MIDDLEWARE=["django.middleware.common.CommonMiddleware", "__main__.plain_middleware"],
    DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": "data.sqlite3", "OPTIONS": {"timeout": 60}}},
)
django.setup()

from django.core.handlers.asgi import ASGIHandler
from django.db import connection, models
from django.http import HttpResponse, JsonResponse
from django.test import AsyncClient
from django.urls import path

import vthreads
from vthreads.integrations import asgiref

together = threading.Barrier(100)


class Count(models.Model):
    value = models.IntegerField(default=0)

    class Meta:
        app_label = "program"


def plain_middleware(get_response):
    def middleware(request):
        request.before = threading.get_ident()
        return get_response(request)

    return middleware


def plain(request):
    together.wait()
    virtual = isinstance(threading.current_thread(), vthreads.VirtualThread)
    return JsonResponse({"virtual": virtual, "same": request.before == threading.get_ident()})


async def asynchronous(request):
    found = await Count.objects.aget(pk=1)
    return HttpResponse(str(found.value))


def increase(request):
    Count.objects.filter(pk=1).update(value=models.F("value") + 1)
    return HttpResponse("done")


urlpatterns = [path("plain", plain), path("asynchronous", asynchronous), path("increase", increase)]


async def get(url):
    async with ThreadSensitiveContext():  # as the handler of Django does for each request of a server
        return await AsyncClient().get(url)


async def main():
    replies = await asyncio.gather(*(get("/plain") for _ in range(100)))
    assert [{"virtual": True, "same": True}] * 100 == [reply.json() for reply in replies]
    replies = await asyncio.gather(*(get("/increase") for _ in range(10)))
    assert [200] * 10 == [reply.status_code for reply in replies]
    reply = await get("/asynchronous")
    assert b"10" == reply.content, reply.content


asgiref.install()
with connection.schema_editor() as editor:
    editor.create_model(Count)
Count.objects.create(pk=1)
connection.close()
asyncio.run(main())
"""


def run_program(folder, program):
    (folder / "program.py").write_text(program)
    done = subprocess.run(
        [sys.executable, "program.py"], cwd=folder, timeout=LIMIT, capture_output=True, text=True, check=False
    )
    assert 0 == done.returncode, done.stdout + done.stderr
    return done.stdout


def test_a_hundred_views_of_django_wait_at_once_and_its_database_works(tmp_path):
    run_program(tmp_path, PROGRAM)


def test_the_python_of_the_page_runs(tmp_path):
    assert "100 at once\n" == run_program(tmp_path, blocks(DOCS / "how-to" / "use-django.md"))
