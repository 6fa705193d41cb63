"""Run coroutines for code that has no event loop, such as `queue.sync.add(…)`.

The process has one event loop for these coroutines, in a thread of its own. Both are created on
first use.
"""

from __future__ import annotations

import asyncio
import os
import threading
import warnings
from collections.abc import Callable, Coroutine
from concurrent.futures import Future
from typing import Any, TypeVar, cast

from hasten.errors import UsageError

T = TypeVar("T")


class _Portal:
    """An event loop in a background thread, and a way to run coroutines on it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None

    def loop(self) -> asyncio.AbstractEventLoop:
        """Return the event loop, and start its thread on the first call."""
        with self._lock:
            if self._loop is None:
                self._loop = asyncio.new_event_loop()
                self._thread = threading.Thread(
                    target=self._loop.run_forever, name="hasten sync", daemon=True
                )
                self._thread.start()
            return self._loop

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine on the event loop, wait for it, and return its result."""
        __tracebackhide__ = True  # in tests that wait for jobs, pytest shows the handlers only
        loop = self.loop()
        if threading.current_thread() is self._thread:
            coroutine.close()
            raise UsageError("a .sync call cannot be made inside another one: use await")
        if wait_for is not None:
            return cast("T", wait_for(coroutine, loop))
        return asyncio.run_coroutine_threadsafe(coroutine, loop).result()


WaitFor = Callable[[Coroutine[Any, Any, Any], asyncio.AbstractEventLoop], Any]
"""Runs a coroutine on the event loop of another thread, waits for it, and returns its result."""

# Replaces the waiting thread's default way to wait. Set by `hasten.testing`.
wait_for: WaitFor | None = None

_portal = _Portal()


def run_for_sync_method(coroutine: Coroutine[Any, Any, T], *, may_deadlock: bool = False) -> T:
    """Run the coroutine of a `.sync` method, wait for it, and return its result.

    In a thread with a running event loop, the call blocks that loop and issues a `RuntimeWarning`.
    may_deadlock: the coroutine may have to wait for an asyncio task of that loop, which could take
    forever. So the call raises `UsageError` there, and does not run the coroutine.
    """
    __tracebackhide__ = True
    try:
        _warn_or_raise_in_running_loop(coroutine, may_deadlock=may_deadlock)
    except BaseException:
        coroutine.close()
        raise
    return _portal.run(coroutine)


def _warn_or_raise_in_running_loop(
    coroutine: Coroutine[Any, Any, Any], *, may_deadlock: bool
) -> None:
    """Check for a running event loop in this thread; see `run_for_sync_method`."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return  # no running event loop, as there should be
    # Every coroutine of an `async def` has a __qualname__, but the type Coroutine does not.
    owner, _, method = coroutine.__qualname__.rpartition(".")  # type: ignore[attr-defined]
    owner = "task" if owner == "Enqueuer" else owner.lower()
    instead = f"use 'await {owner}.{method}(…)', or call it from a thread (asyncio.to_thread)"
    if may_deadlock:
        raise UsageError(f"a .sync call that waits would block the running event loop: {instead}")
    # stacklevel: the warning names the line that has called the `.sync` method.
    warnings.warn(
        f"a .sync call blocks the running event loop: {instead}", RuntimeWarning, stacklevel=4
    )


def run_without_loop_check(coroutine: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine, wait for it, and return its result.

    Unlike `run_for_sync_method`, this does not check that the thread has no running event loop. The
    caller must ensure that, because the loop would be blocked.
    """
    return _portal.run(coroutine)


def start(coroutine: Coroutine[Any, Any, T]) -> Future[T]:
    """Start a coroutine without waiting for it. Return the future of its result."""
    return asyncio.run_coroutine_threadsafe(coroutine, _portal.loop())


def _reset_after_fork() -> None:
    global _portal  # noqa: PLW0603  # there is one per process
    _portal = _Portal()  # a forked process does not have the threads of its parent


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_reset_after_fork)
