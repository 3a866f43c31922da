"""FastAPI and Starlette in uvicorn: plain endpoints on virtual threads, and their end when the client leaves."""

import asyncio
import signal
import socket
import subprocess
import sys
import threading

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
    """Serve an application on an OS thread of its own; return its port."""
    started = []

    def serve(app, http="h11"):
        listener = socket.create_server(("127.0.0.1", 0))
        server = uvicorn.Server(uvicorn.Config(app, loop=request.param, http=http, log_level="error", lifespan="off"))
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

    undo = integration.install()
    yield serve
    for server, os_thread, listener in started:
        server.should_exit = True
        os_thread.join()
        listener.close()
    undo()


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
            app.seen.append(type(error).__name__)
            raise

    @app.post("/background")
    def background(tasks: BackgroundTasks):
        def later():
            app.begun.set()
            app.gate.wait()
            app.seen.append("background")
            app.ended.set()

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
    assert app.ended.wait(60)
    assert ["Cancelled", "exit"] == app.seen


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
