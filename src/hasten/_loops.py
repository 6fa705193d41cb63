"""Functions of the event loop that work on asyncio and on trio.

hasten is written for asyncio. But Hypercorn and Starlette can run an application on trio, so this
module contains the few functions that middlewares need on either event loop. There is no
function for timers.

This module never imports trio: if trio is running, it is imported already. The functions raise
`AsyncioRequired` if neither event loop is running.
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


def is_asyncio_running() -> bool:
    """Return whether an asyncio event loop is running in this thread."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


def require_asyncio(what: str, instead: str) -> None:
    """Raise `AsyncioRequired` unless an asyncio event loop is running in this thread.

    what names the feature that needs asyncio, and instead says what to do. Both are for the error
    message.
    """
    if not is_asyncio_running():
        raise AsyncioRequired(what, instead)


def is_running() -> bool:
    """Return whether an event loop, asyncio's or trio's, is running in this thread."""
    return is_asyncio_running() or _find_running_trio() is not None


def current_trio_token() -> Any:
    """Return the trio token, with which other threads can run functions on this event loop."""
    return _require_running_trio().lowlevel.current_trio_token()


def make_lock() -> asyncio.Lock | Any:
    """Return a lock of the running event loop: an `asyncio.Lock` or a `trio.Lock`."""
    return asyncio.Lock() if is_asyncio_running() else _require_running_trio().Lock()


def call_next_turn(function: Callable[[], object]) -> None:
    """Call a function in the next iteration of the running event loop."""
    if is_asyncio_running():
        # Not call_soon, which may still call the function in this iteration.
        asyncio.get_running_loop().call_later(0, function)
    else:
        current_trio_token().run_sync_soon(function)


async def run_in_thread(work: Callable[..., T], *args: object) -> T:
    """Call a function in a worker thread of the running event loop, and return its result."""
    if is_asyncio_running():
        return await asyncio.to_thread(work, *args)
    result: T = await _require_running_trio().to_thread.run_sync(work, *args)
    return result


async def wait_for_concurrent_future(future: Future[T]) -> T:
    """Wait for a future of `concurrent.futures`, and return its result.

    Cancelling the waiting task does not cancel the future.
    """
    done: asyncio.Event | Any
    wake: Callable[[Callable[[], object]], object]
    if is_asyncio_running():
        done = asyncio.Event()
        wake = asyncio.get_running_loop().call_soon_threadsafe
    else:
        done = _require_running_trio().Event()
        wake = current_trio_token().run_sync_soon

    def on_done(_: Future[T]) -> None:
        with suppress(RuntimeError):  # raised if the event loop is closed
            wake(done.set)

    future.add_done_callback(on_done)
    await done.wait()
    return future.result()


def run_on_loop_of_other_thread(
    loop: asyncio.AbstractEventLoop | Any, work: Coroutine[Any, Any, T]
) -> T:
    """Run a coroutine on the event loop of another thread, wait for it, and return its result.

    loop is an asyncio event loop, or the trio token of a trio event loop.
    """
    if isinstance(loop, asyncio.AbstractEventLoop):
        return asyncio.run_coroutine_threadsafe(work, loop).result()

    async def run() -> T:
        return await work

    result: T = sys.modules["trio"].from_thread.run(run, trio_token=loop)
    return result


def _find_running_trio() -> Any | None:
    """Return the module trio if its event loop is running in this thread, else None."""
    trio = sys.modules.get("trio")
    if trio is None:
        return None
    try:
        trio.lowlevel.current_trio_token()
    except RuntimeError:
        return None
    return trio


def _require_running_trio() -> Any:
    """Return the module trio if trio runs the caller. Raises `AsyncioRequired` otherwise."""
    trio = _find_running_trio()
    if trio is None:
        raise AsyncioRequired(
            "a middleware of hasten", "run the application on asyncio, or on trio"
        )
    return trio
