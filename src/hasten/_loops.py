"""The event loop that a request is served on: asyncio, or trio.

Hypercorn and Starlette can run an application on trio. hasten is written for asyncio; the few
things that its middlewares need of either loop are here. There are no timers on trio.

trio is not imported: where it runs, it has been. Raises `AsyncioRequired` where neither runs.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Coroutine
from concurrent.futures import Future
from contextlib import suppress
from typing import Any, TypeVar

from hasten.errors import AsyncioRequired

T = TypeVar("T")


def is_asyncio() -> bool:
    """Does asyncio run in this thread?"""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


def require_asyncio(what: str, instead: str) -> None:
    """Raises `AsyncioRequired` unless asyncio runs in this thread. instead is the remedy."""
    if not is_asyncio():
        raise AsyncioRequired(what, instead)


def is_running() -> bool:
    """Does an event loop run in this thread?"""
    return is_asyncio() or _running_trio() is not None


def trio_token() -> Any:
    """What stands for the running loop of trio in calls from other threads."""
    return _trio().lowlevel.current_trio_token()


def make_lock() -> asyncio.Lock | Any:
    """A lock for tasks of the running loop."""
    return asyncio.Lock() if is_asyncio() else _trio().Lock()


def call_next_turn(function: Callable[[], object]) -> None:
    """Call it in a later turn of the running loop, as soon as there is one."""
    if is_asyncio():
        # Not call_soon, which may still come into this turn.
        asyncio.get_running_loop().call_later(0, function)
    else:
        trio_token().run_sync_soon(function)


async def in_thread(work: Callable[..., T], *args: object) -> T:
    """Call it in a thread of the running loop."""
    if is_asyncio():
        return await asyncio.to_thread(work, *args)
    result: T = await _trio().to_thread.run_sync(work, *args)
    return result


async def result_of(future: Future[T]) -> T:
    """Wait for the result of a thread. Cancelled, this leaves the work alone."""
    done: asyncio.Event | Any
    wake: Callable[[Callable[[], object]], object]
    if is_asyncio():
        done = asyncio.Event()
        wake = asyncio.get_running_loop().call_soon_threadsafe
    else:
        done = _trio().Event()
        wake = trio_token().run_sync_soon

    def on_done(_: Future[T]) -> None:
        with suppress(RuntimeError):  # the event loop has ended meanwhile
            wake(done.set)

    future.add_done_callback(on_done)
    await done.wait()
    return future.result()


def run_on(loop: asyncio.AbstractEventLoop | Any, work: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine on a loop of another thread, and wait for its result.

    loop is the loop of asyncio, or a token of trio.
    """
    if isinstance(loop, asyncio.AbstractEventLoop):
        return asyncio.run_coroutine_threadsafe(work, loop).result()

    async def run() -> T:
        return await work

    result: T = sys.modules["trio"].from_thread.run(run, trio_token=loop)
    return result


def _running_trio() -> Any | None:
    trio = sys.modules.get("trio")
    if trio is None:
        return None
    try:
        trio.lowlevel.current_trio_token()
    except RuntimeError:
        return None
    return trio


def _trio() -> Any:
    trio = _running_trio()
    if trio is None:
        raise AsyncioRequired("a middleware of hasten", "run the application on asyncio or trio")
    return trio
