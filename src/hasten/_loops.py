"""Functions for the event loop that serves a request: asyncio or trio.

Hypercorn and Starlette can run an application on trio. hasten is written for asyncio; this module
has the few functions that its middlewares need on either loop. There are no timers on trio.

This module never imports trio: where trio runs, it is already imported. The functions raise
`AsyncioRequired` where neither runs.
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
    """Return whether asyncio runs in this thread."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


def require_asyncio(what: str, instead: str) -> None:
    """Raise `AsyncioRequired` unless asyncio runs in this thread. instead is the remedy."""
    if not is_asyncio():
        raise AsyncioRequired(what, instead)


def is_running() -> bool:
    """Return whether an event loop runs in this thread."""
    return is_asyncio() or _running_trio() is not None


def trio_token() -> Any:
    """Return the token of the running trio loop, for calls from other threads."""
    return _trio().lowlevel.current_trio_token()


def make_lock() -> asyncio.Lock | Any:
    """Return a lock for tasks of the running loop."""
    return asyncio.Lock() if is_asyncio() else _trio().Lock()


def call_next_turn(function: Callable[[], object]) -> None:
    """Call a function in the next turn of the running loop."""
    if is_asyncio():
        # Not call_soon, which may run in this turn.
        asyncio.get_running_loop().call_later(0, function)
    else:
        trio_token().run_sync_soon(function)


async def in_thread(work: Callable[..., T], *args: object) -> T:
    """Call a function in a thread of the running loop."""
    if is_asyncio():
        return await asyncio.to_thread(work, *args)
    result: T = await _trio().to_thread.run_sync(work, *args)
    return result


async def result_of(future: Future[T]) -> T:
    """Wait for the result of a thread. Cancelling the wait does not stop the thread."""
    done: asyncio.Event | Any
    wake: Callable[[Callable[[], object]], object]
    if is_asyncio():
        done = asyncio.Event()
        wake = asyncio.get_running_loop().call_soon_threadsafe
    else:
        done = _trio().Event()
        wake = trio_token().run_sync_soon

    def on_done(_: Future[T]) -> None:
        with suppress(RuntimeError):  # the event loop has ended
            wake(done.set)

    future.add_done_callback(on_done)
    await done.wait()
    return future.result()


def run_on(loop: asyncio.AbstractEventLoop | Any, work: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine on the loop of another thread, and wait for its result.

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
