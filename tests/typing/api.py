"""Types of the public names: checked by `make types`, never run."""

from __future__ import annotations

import concurrent.futures
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import FIRST_COMPLETED
from contextlib import AbstractAsyncContextManager
from typing import Any, assert_type

import vthreads
from vthreads import CancelScope, Channel, Future, Mutex, Queue, RwLock, ThreadGroup, aio, serve


def length(text: str) -> int:
    return len(text)


def repeat(text: str, times: int) -> list[str]:
    return [text] * times


def add(a: int, b: int, c: int) -> int:
    return a + b + c


def number() -> int:
    return 1


def word() -> str:
    return "one"


def fraction() -> float:
    return 0.5


# --- blocks: what never swallows an exception needs no `return` behind it, and leaves no name unbound


def returns_within_a_deadline() -> int:
    with vthreads.fail_after(1):
        return 3


def returns_before_a_time() -> int:
    with vthreads.fail_at(vthreads.now() + 1) as scope:
        scope.deadline += 1
        return 3


def returns_behind_a_shield() -> int:
    with vthreads.shield(1):
        return 3


def returns_out_of_a_group() -> int:
    with ThreadGroup() as group:
        return group.spawn(number).result()


def returns_with_a_lock() -> int:
    with vthreads.Lock(), vthreads.RLock(), vthreads.Condition(), vthreads.Semaphore():
        return 3


def returns_with_a_value() -> int:
    with Mutex([1]).lock() as numbers, RwLock("one").read() as text, Mutex(1.5).guard() as guard:
        assert_type(numbers, list[int])
        assert_type(text, str)
        assert_type(guard.value, float)
        return numbers[0]


def returns_with_a_channel() -> int:
    with Channel[int](1) as channel:
        return channel.receive()


def lengths(texts: list[str]) -> dict[str, int]:
    """The first example of the README."""
    with ThreadGroup(max_concurrency=8) as group:
        futures = {text: group.spawn(length, text) for text in texts}
    return {text: future.result() for text, future in futures.items()}


def may_be_cut_short() -> int | None:
    with vthreads.move_on_after(1) as scope:
        return 3
    assert_type(scope.cancelled_caught, bool)
    return None


def may_be_cancelled() -> int | None:
    with CancelScope() as scope:
        scope.cancel("enough")
        return 3
    assert_type(vthreads.standard_threads(), list[vthreads.VirtualThread])
    return None


# --- threads


def spawns() -> None:
    with ThreadGroup(on_failure="continue", errors="first") as group:
        assert_type(group.spawn(length, "text"), Future[int])
        assert_type(group.try_spawn(repeat, "text", times=2), Future[list[str]] | None)
        assert_type(ThreadGroup.current.spawn(word).result(), str)
        assert_type(vthreads.spawn(word), Future[str])
        group.spawn(length)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
        group.spawn(length, 3)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
        group.spawn(3)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType, reportCallIssue]
    ThreadGroup(8)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    ThreadGroup(placement="everywhere")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    with ThreadGroup(on_failure="report", placement="spread"):
        pass
    ThreadGroup(on_failure="ignore")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    ThreadGroup(errors="last")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


def runs() -> None:
    assert_type(vthreads.run(length, "text", poller="epoll"), int)
    assert_type(vthreads.run(length, "text", carriers=4), int)
    assert_type(vthreads.offload(length, "text", on_cancel="abandon"), int)
    vthreads.run(word, poller="fastest")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    vthreads.offload(word, on_cancel="ignore")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


def shows() -> None:
    assert_type(vthreads.dump("json"), str)
    vthreads.dump("xml")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


def serves(app: Callable[[dict[str, Any], Callable[..., Any]], list[bytes]]) -> None:
    serve.wsgi(app, forwarded_fields="forwarded", access_log_format="common")
    serve.wsgi(app, forwarded_fields="x-real-ip")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    serve.wsgi(app, access_log_format="combined")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


# --- combinators


def gathers() -> None:
    assert_type(vthreads.gather(number, number), list[int])
    assert_type(vthreads.gather(number, word), list[int | str])
    assert_type(vthreads.gather(number, word, fraction), list[int | str | float])
    assert_type(vthreads.gather(*[number] * 9), list[int])
    assert_type(vthreads.gather(number, word, return_exceptions=True), list[int | str | Exception])
    assert_type(vthreads.gather(*[number] * 9, return_exceptions=True), list[int | Exception])
    vthreads.gather([number, word])  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType]
    assert_type(vthreads.race(number, number), int)
    assert_type(vthreads.first_completed(number, number), int)


def maps(texts: list[str], counts: Iterator[int]) -> None:
    for found in vthreads.map(length, texts, max_concurrency=3):
        assert_type(found, int)
    for several in vthreads.map(repeat, texts, counts):
        assert_type(several, list[str])
    for outcome in vthreads.map(length, texts, return_exceptions=True):
        assert_type(outcome, int | Exception)
    for total in vthreads.map(add, counts, counts, counts):
        assert_type(total, int)
    iterator = vthreads.map(length, texts)
    iterator.close()
    vthreads.map(length, counts)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


def waits(futures: list[Future[int]]) -> None:
    assert_type(vthreads.wait(futures, return_when=FIRST_COMPLETED).done, set[concurrent.futures.Future[int]])
    vthreads.wait(futures, return_when="SOME")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


def receives(channels: list[Channel[int]], queue: Queue[str]) -> None:
    assert_type(vthreads.receive_any(*channels)[0], Channel[int])
    assert_type(queue.get(), str)
    for item in channels[0]:
        assert_type(item, int)


async def measured(text: str) -> int:
    return len(text)


async def numbers() -> AsyncIterator[int]:
    yield 1


def bridges(manager: AbstractAsyncContextManager[str]) -> None:
    assert_type(aio.run(measured("four")), int)
    assert_type(vthreads.aio.run(measured("four")), int)
    assert_type(aio.await_(measured("four")), int)
    aio.run(measured)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    for number in aio.iterate(numbers()):
        assert_type(number, int)
    with aio.enter(manager) as value:
        assert_type(value, str)


async def awaits(future: Future[int]) -> None:
    assert_type(await aio.to_vthread(repeat, "a", times=2), list[str])
    await aio.to_vthread(repeat, "a")  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    assert_type(await aio.wrap_future(future), int)
