"""Starlette and FastAPI: plain `def` endpoints on virtual threads, as guests of the server's event loop.

The frameworks make blocking calls by `anyio.to_thread.run_sync`, which the modules that call it get replaced. A call
that is an endpoint is cancelled when its client leaves. All other calls (background tasks, exits of dependencies,
handlers) are shielded, as they are in a pool of OS threads.
"""

from __future__ import annotations

import asyncio
import functools
import sys
from asyncio import CancelledError as TaskCancelled
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine, Generator, MutableMapping
from contextvars import ContextVar
from types import ModuleType, coroutine
from typing import Any

from ..aio import to_vthread
from ._imports import watch_imports

__all__ = ["install"]

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Undo = Callable[[], None]

# Modules that make blocking calls, each by its global `anyio`.
CALLERS = ("starlette.concurrency", "fastapi.concurrency")

# The status of the response that middleware sees in place of that of a cancelled endpoint; nginx logs it for the same.
CLIENT_HAS_LEFT = 499

# Key in the scope of a request whose client is watched.
IS_WATCHED = "vthreads.client_is_watched"


def install() -> Undo:
    """Run plain `def` endpoints, and the other blocking calls of Starlette and FastAPI, on virtual threads.

    The number of calls at the same time has no limit. If its client leaves before the endpoint has returned, the
    endpoint is cancelled: `Cancelled` is raised at its next checkpoint. Background tasks and the exits of dependencies
    are not cancelled by that.

    To be called before the first request, also inside the running loop, or before the frameworks are imported. Not a
    checkpoint; starts no runtime: the first call does.

    Returns:
        The function that undoes it.
    """
    undo: list[Undo] = []

    def fit(module: ModuleType) -> None:
        undo.extend(_FITS[module.__name__](module))

    watch = watch_imports(_FITS.keys(), fit)
    undo.append(watch.end)
    for module in watch.present:
        fit(module)

    def undo_all() -> None:
        while undo:
            undo.pop()()

    return undo_all


# --- what is replaced


def _replace(owner: Any, name: str, new: Any) -> list[Undo]:
    old = getattr(owner, name)
    setattr(owner, name, new)
    return [lambda: setattr(owner, name, old)]


def _fit_caller(module: ModuleType) -> list[Undo]:
    return _replace(module, "anyio", _Anyio(module.anyio))


def _fit_application(module: ModuleType) -> list[Undo]:
    original = module.Starlette.__call__

    @functools.wraps(original)
    async def call(self: Any, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http" or IS_WATCHED in scope:
            # A mounted application has the scope of the outer one, and its client. One that code calls for a request
            # which it makes itself has another scope, and that code is its client.
            await original(self, scope, receive, send)
            return
        client = _Client(receive, send)
        token = _client.set(client)
        scope[IS_WATCHED] = True
        try:
            await original(self, scope, client.receive, client.send)
        finally:
            del scope[IS_WATCHED]
            client.uncancel()
            client.end()
            _client.reset(token)

    return _replace(module.Starlette, "__call__", call)


def _fit_ends(module: ModuleType) -> list[Undo]:
    original = module.wrap_app_handling_exceptions

    @functools.wraps(original)
    def wrap(app: Any, connection: Any) -> Any:
        async def call(scope: Any, receive: Any, send: Any) -> None:
            try:
                await app(scope, receive, send)
            except TaskCancelled:
                client = _client.get()
                if client is None or not client.uncancel():
                    raise
                # Middleware that calls the application in another task reports an error if there is no response.
                await send({"type": "http.response.start", "status": CLIENT_HAS_LEFT, "headers": []})
                await send({"type": "http.response.body"})

        return original(call, connection)

    return _replace(module, "wrap_app_handling_exceptions", wrap)


def _fit_routing_of_fastapi(module: ModuleType) -> list[Undo]:
    return [*_fit_ends(module), *_fit_endpoints(module)]


def _fit_endpoints(module: ModuleType) -> list[Undo]:
    original = module.run_endpoint_function

    @functools.wraps(original)
    async def run_endpoint_function(**keywords: Any) -> Any:
        if keywords.get("is_coroutine"):
            return await original(**keywords)
        token = _is_endpoint.set(True)
        try:
            return await original(**keywords)
        finally:
            _is_endpoint.reset(token)

    return _replace(module, "run_endpoint_function", run_endpoint_function)


_FITS: dict[str, Callable[[ModuleType], list[Undo]]] = {
    **dict.fromkeys(CALLERS, _fit_caller),
    "starlette.applications": _fit_application,
    # A route, and what is around all routes: for middleware of a route, and for endpoints that are classes.
    "starlette.routing": _fit_ends,
    "starlette.middleware.exceptions": _fit_ends,
    "fastapi.routing": _fit_routing_of_fastapi,
}


class _Anyio:
    """Stands for the package `anyio` in one module: its threads are virtual ones."""

    def __init__(self, anyio: Any) -> None:
        self._anyio = anyio
        self.to_thread = self

    def __getattr__(self, name: str) -> Any:
        return getattr(self._anyio, name)

    async def run_sync(self, function: Callable[..., Any], *args: Any, limiter: Any = None, **_: Any) -> Any:
        """`anyio.to_thread.run_sync`, without a limit."""
        client = _client.get()
        if client is not None and not client.is_answered and _is_call_of_endpoint(function):
            if _is_endpoint.get():
                # Not for the calls that the endpoint makes.
                _is_endpoint.set(False)
            return await client.call(function, args)
        if getattr(function, "__name__", "") == "_next":
            # One step of a response that is sent: its task is cancelled when the client leaves.
            return await to_vthread(function, *args)
        with self._anyio.CancelScope(shield=True):
            return await to_vthread(function, *args)


def _is_call_of_endpoint(function: Any) -> bool:
    if _is_endpoint.get():
        return True
    if type(function) is not functools.partial or function.keywords or len(function.args) != 1:
        return False
    # Starlette has made the call, so the module is there. An import statement would take a microsecond.
    return isinstance(function.args[0], sys.modules["starlette.requests"].Request)


# --- the client of a request


class _Client:
    """The messages from the client of one request: read ahead while an endpoint runs, to notice that the client leaves.

    The server reports that as a message after the body. A body that the application has not read yet is not read ahead,
    beyond one part, because it may be large.
    """

    def __init__(self, receive: Receive, send: Send) -> None:
        self.has_left = False
        # Whether the response has been sent. The calls after it are those of background tasks.
        self.is_answered = False
        self._receive = receive
        self._send = send
        self._messages: deque[Message] = deque()
        self._taking: asyncio.Task[None] | None = None
        # The task that waits for the endpoint.
        self._task: asyncio.Task[Any] | None = None
        # The task that was cancelled because the client has left.
        self._cancelled: asyncio.Task[Any] | None = None

    async def receive(self) -> Message:
        """Return the next message, which may have been read ahead."""
        while not self._messages:
            await asyncio.shield(self._take())
        return self._messages.popleft()

    async def send(self, message: Message) -> None:
        """Send a part of the response."""
        await self._send(message)
        if message["type"] == "http.response.body" and not message.get("more_body"):
            self.is_answered = True

    def _take(self) -> asyncio.Task[None]:
        """Return the task that reads the next message; one at a time, because a server supports one reader."""
        if self._taking is None:
            self._taking = asyncio.get_running_loop().create_task(self._take_one())
        return self._taking

    async def _take_one(self) -> None:
        try:
            message = await self._receive()
        finally:
            self._taking = None
        self._messages.append(message)
        if message["type"] == "http.disconnect":
            self.has_left = True
            self._cancel(self._task)
        elif self._task is not None:
            self._read_ahead()

    def _cancel(self, task: asyncio.Task[Any] | None) -> None:
        if task is not None:
            self._cancelled = task
            task.cancel("the client has left")

    def _read_ahead(self) -> None:
        if not self._messages or not self._messages[-1].get("more_body"):
            self._take()

    @coroutine
    def call(self, function: Callable[..., Any], args: tuple[Any, ...]) -> Generator[Any, Any, Any]:
        """Call an endpoint on a virtual thread, which is cancelled if the client leaves."""
        if self.has_left:
            self._cancel(asyncio.current_task())
            # The cancellation is raised here.
            yield
        call = to_vthread(function, *args)
        try:
            # The thread runs up to its first wait. Most endpoints that do not wait are over then.
            waiter = call.send(None)
        except StopIteration as ended:
            return ended.value
        self._task = asyncio.current_task()
        self._read_ahead()
        try:
            return (yield from _resume(call, waiter))
        finally:
            self._task = None

    def uncancel(self) -> bool:
        """Undo a cancellation that came because the client has left; return whether the task has no other one."""
        task, self._cancelled = self._cancelled, None
        return task is not None and task.uncancel() == 0

    def end(self) -> None:
        """Read nothing more: the request has ended."""
        if self._taking is not None:
            self._taking.cancel()


_client: ContextVar[_Client | None] = ContextVar("client", default=None)
# Whether FastAPI calls an endpoint at present.
_is_endpoint: ContextVar[bool] = ContextVar("is_endpoint", default=False)


def _resume(call: Coroutine[Any, Any, Any], yielded: Any) -> Generator[Any, Any, Any]:
    """Continue a coroutine that has made its first step by hand: `yield from`, beginning with what it has yielded."""
    try:
        while True:
            try:
                # The future must be yielded as it came: asyncio marks it as awaited.
                sent = yield yielded
            except BaseException as thrown:  # noqa: BLE001  # passed on to the coroutine
                yielded = call.throw(thrown)
            else:
                yielded = call.send(sent)
    except StopIteration as ended:
        return ended.value
