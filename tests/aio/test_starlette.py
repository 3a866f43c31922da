"""FastAPI and Starlette in uvicorn: plain endpoints on virtual threads, and their end when the client leaves."""

import asyncio
import queue
import signal
import socket
import subprocess
import sys
import threading
from ast import literal_eval

import pytest

import vthreads
import vthreads.aio
from vthreads import Event
from vthreads.integrations import starlette as integration

pytest.importorskip("fastapi", reason="FastAPI is not installed")
uvicorn = pytest.importorskip("uvicorn", reason="uvicorn is not installed")

pytestmark = pytest.mark.real


@pytest.fixture(params=["asyncio", "uvloop"])
def serve(request):
    """Serve an application on an OS thread of its own; return its port. `serve.outcomes` has the ends of requests."""
    started = []

    def serve(app, http="h11"):
        listener = socket.create_server(("127.0.0.1", 0))
        options = {"loop": request.param, "http": http, "log_level": "error", "lifespan": "off"}
        server = uvicorn.Server(uvicorn.Config(watched(app, serve.outcomes, serve.faults), **options))
        ready = threading.Event()

        def run():
            async def main():
                asyncio.get_running_loop().call_soon(ready.set)
                await server.serve(sockets=[listener])

            if request.param == "asyncio":
                asyncio.run(main())
            else:
                import uvloop

                uvloop.run(main())

        os_thread = threading.Thread(target=run)
        os_thread.start()
        ready.wait()
        started.append((server, os_thread, listener))
        return listener.getsockname()[1]

    serve.outcomes, serve.faults = queue.Queue(), []
    undo = integration.install()
    yield serve
    for server, os_thread, listener in started:
        server.should_exit = True
        os_thread.join()
        listener.close()
    undo()
    assert [] == serve.faults


def watched(app, outcomes, faults):
    """Record the exception with which `app` ends each request, as its server sees it, and what it may never do."""

    async def watching(scope, receive, send):
        reading = False

        async def receive_alone():
            nonlocal reading
            if reading:
                faults.append("two readers at the same time")
            reading = True
            try:
                return await receive()
            finally:
                reading = False

        outcome = None
        try:
            await app(scope, receive_alone, send)
        except BaseException as error:
            outcome = type(error)
            raise
        finally:
            if outcome is None and asyncio.current_task().cancelling():
                faults.append("a cancellation is left in the task")
            outcomes.put(outcome)

    return watching


def ask(port, path, *, leave=False, body=b""):
    client = socket.create_connection(("127.0.0.1", port))
    head = f"POST {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: {len(body)}\r\n\r\n"
    client.sendall(head.encode() + body)
    if leave:
        return client
    parts = []
    while part := client.recv(65536):
        parts.append(part)
    client.close()
    head, _, content = b"".join(parts).partition(b"\r\n\r\n")
    return int(head.split()[1]), content


def application():
    from fastapi import BackgroundTasks, Depends, FastAPI

    app = FastAPI()
    app.begun, app.seen, app.gate, app.ended = threading.Event(), [], Event(), threading.Event()

    def dependency():
        try:
            yield 7
        finally:
            vthreads.checkpoint()
            app.seen.append("exit")
            app.ended.set()

    app.dependency = dependency

    @app.post("/thread")
    def thread(value: int = Depends(dependency)):
        return [type(vthreads.current_thread()).__name__, value]

    @app.post("/fails")
    def fails():
        raise LookupError("in the endpoint")

    @app.post("/waits")
    def waits(value: int = Depends(dependency)):
        try:
            app.begun.set()
            app.gate.wait()
        except BaseException as error:
            vthreads.sleep(0.001)
            app.seen.append(type(error).__name__)
            raise

    @app.post("/background")
    def background(tasks: BackgroundTasks):
        def later():
            app.begun.set()
            app.gate.wait()
            app.seen.append("background")
            app.ended.set()

        # With a wait, so that the client is watched.
        vthreads.sleep(0.001)
        tasks.add_task(later)
        return "sent"

    @app.post("/meets")
    def meets():
        barrier.wait()
        return "met"

    barrier = vthreads.Barrier(100)
    return app


def test_an_endpoint_runs_on_a_virtual_thread(serve):
    app = application()
    assert (200, b'["VirtualThread",7]') == ask(serve(app), "/thread")
    assert ["exit"] == app.seen


def test_a_failure_is_an_error_of_the_server(serve):
    assert 500 == ask(serve(application()), "/fails")[0]


def test_a_hundred_endpoints_wait_at_the_same_time(serve):
    port = serve(application())
    clients = [threading.Thread(target=ask, args=(port, "/meets")) for _ in range(99)]
    for client in clients:
        client.start()
    assert (200, b'"met"') == ask(port, "/meets")
    for client in clients:
        client.join()


def test_an_endpoint_is_cancelled_when_its_client_leaves_and_its_dependency_is_left(serve):
    app = application()
    client = ask(serve(app), "/waits", leave=True)
    app.begun.wait()
    client.close()
    # The server has nothing to log.
    assert serve.outcomes.get(timeout=60) is None
    assert ["Cancelled", "exit"] == app.seen


def test_an_endpoint_may_return_in_spite_of_its_cancellation(serve):
    app = application()

    @app.post("/answers")
    def answers():
        try:
            app.begun.set()
            app.gate.wait()
        except vthreads.Cancelled:
            return "in spite of it"

    client = ask(serve(app), "/answers", leave=True)
    app.begun.wait()
    client.close()
    assert serve.outcomes.get(timeout=60) is None


@pytest.mark.parametrize("client_leaves", [False, True])
def test_a_cancellation_by_others_ends_the_request_with_it(serve, client_leaves):
    async def cancels(scope, receive, send):
        task, loop = asyncio.current_task(), asyncio.get_running_loop()

        async def receiving():
            message = await receive()
            if message["type"] == "http.disconnect":
                task.cancel()
            return message

        requests.append(lambda: loop.call_soon_threadsafe(task.cancel))
        await app(scope, receiving, send)

    app, requests = application(), []
    client = ask(serve(cancels), "/waits", leave=True)
    app.begun.wait()
    if client_leaves:
        client.close()
    else:
        requests[0]()
    assert asyncio.CancelledError is serve.outcomes.get(timeout=60)
    client.close()
    assert ["Cancelled", "exit"] == app.seen


def test_an_endpoint_whose_client_has_left_before_does_not_begin(serve):
    from fastapi import Depends, Request

    app = application()

    async def noticed(request: Request):
        app.begun.set()
        while not await request.is_disconnected():
            await asyncio.sleep(0.001)

    @app.post("/late")
    def late(value: int = Depends(app.dependency), noticed: None = Depends(noticed)):
        app.seen.append("endpoint")

    client = ask(serve(app), "/late", leave=True)
    app.begun.wait()
    client.close()
    assert serve.outcomes.get(timeout=60) is None
    assert ["exit"] == app.seen


def test_a_cancelled_endpoint_reads_the_body_that_came_before_its_client_left(serve):
    from starlette.applications import Starlette
    from starlette.responses import PlainTextResponse
    from starlette.routing import Route

    def endpoint(request):
        try:
            begun.set()
            gate.wait()
        except vthreads.Cancelled:
            seen.append(vthreads.aio.await_(request.body()))
        return PlainTextResponse("sent")

    begun, gate, seen = threading.Event(), Event(), []
    port = serve(Starlette(routes=[Route("/", endpoint, methods=["POST"])]))
    client = ask(port, "/", body=b"body", leave=True)
    begun.wait()
    client.close()
    assert serve.outcomes.get(timeout=60) is None
    assert [b"body"] == seen


def test_a_route_without_an_application_is_not_watched(serve):
    from starlette.responses import PlainTextResponse
    from starlette.routing import Route, Router

    def endpoint(request):
        try:
            begun.set()
            gate.wait()
        except BaseException as error:
            seen.append(type(error).__name__)
            raise
        return PlainTextResponse("sent")

    async def cancellable(scope, receive, send):
        task, loop = asyncio.current_task(), asyncio.get_running_loop()
        requests.append(lambda: loop.call_soon_threadsafe(task.cancel))
        await router(scope, receive, send)

    begun, gate, seen, requests = threading.Event(), Event(), [], []
    router = Router(routes=[Route("/", endpoint, methods=["POST"])])
    client = ask(serve(cancellable), "/", leave=True)
    begun.wait()
    # Its thread is shielded from scopes of anyio. But a cancellation of the task by asyncio comes through.
    requests[0]()
    assert asyncio.CancelledError is serve.outcomes.get(timeout=60)
    client.close()
    assert ["Cancelled"] == seen


def test_each_request_of_a_task_has_its_own_client(serve):
    async def twice(scope, receive, send):
        async def empty():
            return {"type": "http.request"}

        async def drop(message):
            pass

        await app({**scope, "path": "/thread"}, empty, drop)
        await app(scope, receive, send)

    app = application()
    client = ask(serve(twice), "/waits", leave=True)
    app.begun.wait()
    client.close()
    assert serve.outcomes.get(timeout=60) is None
    assert ["exit", "Cancelled", "exit"] == app.seen


def test_an_endpoint_of_a_mounted_application_is_cancelled(serve):
    from fastapi import FastAPI

    outer, app = FastAPI(), application()
    outer.mount("/inner", app)
    client = ask(serve(outer), "/inner/waits", leave=True)
    app.begun.wait()
    client.close()
    assert serve.outcomes.get(timeout=60) is None
    assert ["Cancelled", "exit"] == app.seen


@pytest.mark.parametrize("depth", [0, 1])
def test_a_body_that_was_read_ahead_is_there_for_middleware_after_the_endpoint(serve, depth):
    from starlette.applications import Starlette
    from starlette.middleware import Middleware
    from starlette.responses import PlainTextResponse
    from starlette.routing import Mount, Route

    class Reads:
        def __init__(self, app):
            self._app = app

        async def __call__(self, scope, receive, send):
            await self._app(scope, receive, send)
            seen.append((await receive())["body"])

    def endpoint(request):
        vthreads.sleep(0.001)
        return PlainTextResponse("sent")

    seen, routes = [], [Route("/", endpoint, methods=["POST"])]
    if depth:
        routes = [Mount("/", Starlette(routes=routes))]
    app = Starlette(routes=routes, middleware=[Middleware(Reads)])
    assert (200, b"sent") == ask(serve(app), "/", body=b"body")
    assert serve.outcomes.get(timeout=60) is None
    assert [b"body"] == seen


def test_code_that_calls_an_application_is_its_client(serve):
    """An asynchronous endpoint goes on when its client leaves, and so do the endpoints that it calls."""
    inner, outer = application(), application()
    replies = []

    @outer.post("/asks")
    async def asks():
        async def ask_inner():
            async def receive():
                if messages:
                    return messages.pop()
                return await asyncio.get_running_loop().create_future()

            async def send(message):
                replies.append(message.get("status"))

            messages = [{"type": "http.request"}]
            scope = {"type": "http", "method": "POST", "path": "/waits", "headers": [], "query_string": b""}
            await inner(scope, receive, send)

        await asyncio.gather(ask_inner(), ask_inner())

    port = serve(outer)
    client = ask(port, "/asks", leave=True)
    inner.begun.wait()
    client.close()
    # A request after it shows that the server has noticed the end of the connection.
    assert 404 == ask(port, "/other")[0]
    inner.gate.set()
    assert [None, None] == [serve.outcomes.get(timeout=60) for _ in range(2)]
    assert ["exit"] * 2 == inner.seen
    assert [200, 200] == [status for status in replies if status is not None]


def test_middleware_sees_a_response_in_place_of_that_of_a_cancelled_endpoint(serve):
    app = application()

    @app.middleware("http")
    async def sees(request, call_next):
        response = await call_next(request)
        app.seen.append(response.status_code)
        return response

    client = ask(serve(app), "/waits", leave=True)
    app.begun.wait()
    client.close()
    assert serve.outcomes.get(timeout=60) is None
    assert ["Cancelled", "exit", 499] == app.seen


@pytest.mark.parametrize("kind", ["function", "class", "router of FastAPI"])
def test_endpoints_of_starlette_end_without_an_error_under_any_middleware(serve, kind):
    from fastapi import APIRouter, FastAPI
    from starlette.applications import Starlette
    from starlette.endpoints import HTTPEndpoint
    from starlette.middleware import Middleware
    from starlette.middleware.base import BaseHTTPMiddleware
    from starlette.routing import Mount, Route

    async def sees(request, call_next):
        response = await call_next(request)
        seen.append(response.status_code)
        return response

    def waits(*_):
        begun.set()
        gate.wait()

    def waits_alone():
        waits()

    class Waits(HTTPEndpoint):
        post = waits

    begun, gate, seen = threading.Event(), Event(), []
    middleware = [Middleware(BaseHTTPMiddleware, dispatch=sees)]
    if kind == "class":
        app = Starlette(routes=[Route("/", Waits)], middleware=middleware)
    elif kind == "router of FastAPI":
        router = APIRouter()
        router.post("/")(waits_alone)
        app = FastAPI(routes=[Mount("/x", router, middleware=middleware)])
    else:
        app = Starlette(routes=[Route("/", waits, methods=["POST"], middleware=middleware)])
    client = ask(serve(app), "/x/" if kind == "router of FastAPI" else "/", leave=True)
    begun.wait()
    client.close()
    assert serve.outcomes.get(timeout=60) is None
    assert [499] == seen


def test_an_endpoint_that_has_called_coroutines_is_still_cancelled(serve):
    from fastapi import Request
    from starlette.concurrency import run_in_threadpool

    app = application()

    @app.post("/calls")
    def calls(request: Request):
        # Neither another call of the frameworks nor a reader that gives up ends the watch.
        vthreads.aio.await_(run_in_threadpool(vthreads.sleep, 0.001))
        with vthreads.move_on_after(0.001):
            vthreads.aio.await_(request.receive())
        app.begun.set()
        try:
            app.gate.wait()
        finally:
            app.seen.append("left")

    client = ask(serve(app), "/calls", leave=True)
    app.begun.wait()
    client.close()
    assert serve.outcomes.get(timeout=60) is None
    assert ["left"] == app.seen


def test_calls_of_an_asynchronous_endpoint_are_not_cancelled(serve):
    from fastapi import Request
    from starlette.concurrency import run_in_threadpool

    app = application()

    def work(*_, **__):
        app.begun.set()
        try:
            app.gate.wait()
        except BaseException as error:
            app.seen.append(type(error).__name__)
            raise

    @app.post("/asynchronous")
    async def asynchronous(request: Request):
        await asyncio.gather(
            run_in_threadpool(work),
            run_in_threadpool(work, "x"),
            run_in_threadpool(work, request, "x"),
            run_in_threadpool(work, request, key=1),
        )
        app.seen.append("over")

    port = serve(app)
    client = ask(port, "/asynchronous", leave=True)
    app.begun.wait()
    client.close()
    # A request after it shows that the server has noticed the end of the connection.
    assert 404 == ask(port, "/other")[0]
    app.gate.set()
    assert [None, None] == [serve.outcomes.get(timeout=60) for _ in range(2)]
    assert ["over"] == app.seen


def test_a_body_that_the_application_has_not_read_is_not_read_ahead(serve):
    from starlette.applications import Starlette
    from starlette.responses import PlainTextResponse
    from starlette.routing import Route

    def endpoint(request):
        for _ in range(20):
            vthreads.aio.await_(asyncio.sleep(0))
        return PlainTextResponse(str(len(parts)))

    async def endless(scope, receive, send):
        async def receiving():
            parts.append(b"x")
            return {"type": "http.request", "body": b"x", "more_body": True}

        await app(scope, receiving, send)

    parts, app = [], Starlette(routes=[Route("/", endpoint, methods=["POST"])])
    assert (200, b"1") == ask(serve(endless), "/")


def test_the_watch_ends_with_the_request(serve):
    from starlette.applications import Starlette
    from starlette.responses import PlainTextResponse
    from starlette.routing import Route

    def endpoint(request):
        vthreads.sleep(0.001)
        return PlainTextResponse("sent")

    async def silent(scope, receive, send):
        messages = [{"type": "http.request"}]

        async def receiving():
            if messages:
                return messages.pop()
            try:
                await asyncio.get_running_loop().create_future()
            finally:
                ended.set()

        await app(scope, receiving, send)

    ended, app = threading.Event(), Starlette(routes=[Route("/", endpoint, methods=["POST"])])
    assert (200, b"sent") == ask(serve(silent), "/")
    assert ended.wait(60)


def test_a_step_of_a_streamed_response_is_cancelled_when_its_client_leaves(serve):
    from starlette.responses import StreamingResponse

    app = application()

    def steps():
        yield b"first"
        try:
            app.begun.set()
            app.gate.wait()
        except BaseException as error:
            app.seen.append(type(error).__name__)
            raise

    @app.post("/stream")
    def stream():
        return StreamingResponse(steps())

    client = ask(serve(app), "/stream", leave=True)
    app.begun.wait()
    client.close()
    assert serve.outcomes.get(timeout=60) is None
    assert ["Cancelled"] == app.seen


def test_a_background_task_is_shielded_from_scopes_of_anyio(serve):
    import anyio

    async def bounded(scope, receive, send):
        with anyio.CancelScope() as limit:
            loop = asyncio.get_running_loop()
            cancel.append(lambda: loop.call_soon_threadsafe(limit.cancel))
            await app(scope, receive, send)

    app, cancel = application(), []
    port = serve(bounded)
    assert (200, b'"sent"') == ask(port, "/background")
    app.begun.wait()
    cancel[0]()
    # A request after it shows that the loop has done that.
    assert 404 == ask(port, "/other")[0]
    app.gate.set()
    assert app.ended.wait(60)
    assert ["background"] == app.seen


def test_a_client_that_sends_its_next_request_has_not_left(serve):
    app = application()
    port = serve(app)
    with socket.create_connection(("127.0.0.1", port)) as client:
        client.sendall(b"POST /waits HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n")
        app.begun.wait()
        client.sendall(b"POST /thread HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 0\r\n\r\n")
        # A request of another client, which the server reads later.
        assert 200 == ask(port, "/thread")[0]
        app.gate.set()
        answers = client.makefile("rb").read()
    assert 2 == answers.count(b"HTTP/1.1 200 ")
    assert ["exit"] * 3 == app.seen


@pytest.mark.parametrize("http", ["h11", "httptools"])
def test_uvicorn_closes_a_half_closed_connection_and_so_its_endpoint_is_cancelled(serve, http):
    app = application()
    client = ask(serve(app, http), "/waits", leave=True)
    app.begun.wait()
    client.shutdown(socket.SHUT_WR)
    assert b"" == client.recv(65536)
    client.close()
    assert serve.outcomes.get(timeout=60) is None
    assert ["Cancelled", "exit"] == app.seen


@pytest.mark.parametrize("keeps", [True, False])
def test_the_server_decides_whether_a_half_closed_connection_is_left(serve, keeps):
    from uvicorn.protocols.http.h11_impl import H11Protocol

    class Protocol(H11Protocol):
        def eof_received(self):
            loop.append(asyncio.get_running_loop())
            half_closed.set()
            # uvicorn itself returns None, which closes the connection.
            return keeps

    app, loop, half_closed = application(), [], threading.Event()
    port = serve(app, Protocol)
    client = ask(port, "/waits", leave=True)
    app.begun.wait()
    client.shutdown(socket.SHUT_WR)
    half_closed.wait()
    if keeps:
        # After an iteration of the loop, in which a message about it would come.
        asyncio.run_coroutine_threadsafe(asyncio.sleep(0), loop[0]).result()
        app.gate.set()
    answer = b"".join(iter(lambda: client.recv(65536), b""))
    client.close()
    app.ended.wait()
    assert (200 if keeps else None) == (int(answer.split()[1]) if answer else None)
    assert [*([] if keeps else ["Cancelled"]), "exit"] == app.seen


def test_a_background_task_goes_on_when_the_client_leaves(serve):
    app = application()
    port = serve(app)
    assert (200, b'"sent"') == ask(port, "/background")
    app.begun.wait()
    # Requests after it show that the server has noticed the end of the connection.
    assert 200 == ask(port, "/thread")[0]
    # The exit of its dependency runs after the response.
    assert app.ended.wait(60)
    assert ["exit"] == app.seen
    app.ended.clear()
    app.gate.set()
    assert app.ended.wait(60)
    assert ["exit", "background"] == app.seen


def test_a_background_task_that_has_the_request_is_no_endpoint(serve):
    from starlette.applications import Starlette
    from starlette.background import BackgroundTask
    from starlette.responses import PlainTextResponse
    from starlette.routing import Route

    def later(request):
        begun.set()
        gate.wait()
        ended.append(True)
        over.set()

    def endpoint(request):
        return PlainTextResponse("sent", background=BackgroundTask(later, request))

    begun, gate, ended, over = threading.Event(), Event(), [], threading.Event()
    port = serve(Starlette(routes=[Route("/", endpoint, methods=["POST"])]))
    assert (200, b"sent") == ask(port, "/")
    begun.wait()
    assert 404 == ask(port, "/other")[0]
    assert [] == ended
    gate.set()
    assert over.wait(60)


def test_a_plain_endpoint_of_starlette_reads_its_body_while_it_is_watched(serve):
    from starlette.applications import Starlette
    from starlette.responses import PlainTextResponse
    from starlette.routing import Route

    def endpoint(request):
        vthreads.sleep(0.01)
        return PlainTextResponse(vthreads.aio.await_(request.body()))

    app = Starlette(routes=[Route("/", endpoint, methods=["POST"])])
    body = b"x" * 300_000
    assert (200, body) == ask(serve(app), "/", body=body)


def test_the_undo_puts_the_pool_back():
    import starlette.concurrency

    before = starlette.concurrency.anyio
    integration.install()()
    assert before is starlette.concurrency.anyio


@pytest.mark.parametrize("first", ["import fastapi.concurrency", ""])
def test_the_frameworks_may_be_imported_before_and_after(run_script, first):
    script = f"""
    {first}
    import asyncio
    import threading
    import warnings
    from vthreads.integrations import starlette as integration

    async def kinds():
        import starlette.concurrency
        import fastapi.concurrency

        with warnings.catch_warnings(action="ignore"):
            # Calls anyio for something else.
            await starlette.concurrency.run_until_first_complete((asyncio.sleep, {{"delay": 0}}))
        seen = [await starlette.concurrency.run_in_threadpool(threading.current_thread)]
        async with fastapi.concurrency.contextmanager_in_threadpool(Manager()):
            pass
        return [type(one).__name__ for one in seen + entered]

    class Manager:
        def __enter__(self):
            entered[:] = [threading.current_thread()]

        def __exit__(self, *_):
            pass

    entered = []
    integration.install()()
    if {not first}:
        print(asyncio.run(kinds()))
        import sys
        for name in [name for name in sys.modules if name.startswith(("fastapi", "starlette"))]:
            del sys.modules[name]
    undo = integration.install()
    print(asyncio.run(kinds()))
    undo()
    print(asyncio.run(kinds()))
    """
    before = [] if first else [["WorkerThread"] * 2]
    assert [*before, ["VirtualThread"] * 2, ["WorkerThread"] * 2] == list(
        map(literal_eval, run_script(script).splitlines())
    )


@pytest.mark.parametrize("kind", ["asyncio", "uvloop"])
def test_an_installation_in_the_running_loop_holds_for_that_loop(run_script, kind):
    script = """
    import asyncio
    import sys
    import threading
    from vthreads.integrations import starlette as integration

    async def main():
        from starlette.concurrency import run_in_threadpool

        for install in (True, False):
            if install:
                undo = integration.install()
            else:
                undo()
            print(type(await run_in_threadpool(threading.current_thread)).__name__)

    if sys.argv[1] == "uvloop":
        import uvloop
        uvloop.run(main())
    else:
        asyncio.run(main())
    """
    assert ["VirtualThread", "WorkerThread"] == run_script(script, kind).splitlines()


@pytest.mark.thorough
@pytest.mark.parametrize("threads", [[], ["--threads"]])
def test_uvicorn_under_run_obeys_sigterm(tmp_path, threads):
    (tmp_path / "program.py").write_text(PROGRAM)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    command = [sys.executable, "-m", "vthreads", "run", *threads, "program.py", str(port)]
    with subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert "started\n" == process.stdout.readline()
            assert (200, b'"VirtualThread"') == ask(port, "/")
            process.terminate()
            assert "shut down\n" == process.stdout.readline()
            assert -signal.SIGTERM == process.wait(60)
        finally:
            process.kill()


PROGRAM = """
import sys
from contextlib import asynccontextmanager

import uvicorn
from fastapi import FastAPI

import vthreads
from vthreads.integrations import starlette


@asynccontextmanager
async def lifespan(app):
    yield
    print("shut down", flush=True)


starlette.install()
app = FastAPI(lifespan=lifespan)


@app.post("/")
def endpoint():
    vthreads.sleep(0.01)
    return type(vthreads.current_thread()).__name__


class Server(uvicorn.Server):
    async def startup(self, sockets=None):
        await super().startup(sockets)
        print("started", flush=True)


Server(uvicorn.Config(app, port=int(sys.argv[1]), log_level="error")).run()
"""
