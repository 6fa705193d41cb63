"""Run coroutines from code without an event loop.

The process has one event loop for this, in its own thread, created on first use. The `.sync` twins
are thin calls through it.
"""

from __future__ import annotations

import asyncio
import os
import threading
import warnings
from collections.abc import Coroutine
from concurrent.futures import Future
from typing import Any, TypeVar

from hasten.errors import UsageError

T = TypeVar("T")


class _Portal:
    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None

    def loop(self) -> asyncio.AbstractEventLoop:
        with self._lock:
            if self._loop is None:
                self._loop = asyncio.new_event_loop()
                self._thread = threading.Thread(
                    target=self._loop.run_forever, name="hasten sync", daemon=True
                )
                self._thread.start()
            return self._loop

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        loop = self.loop()
        if threading.current_thread() is self._thread:
            coroutine.close()
            raise UsageError("a .sync call cannot be made inside another one: use await")
        return asyncio.run_coroutine_threadsafe(coroutine, loop).result()


_portal = _Portal()


def call(coroutine: Coroutine[Any, Any, T], *, waits: bool = False) -> T:
    """Run the coroutine of a `.sync` call from any thread, and return its result.

    In a thread that runs an event loop this blocks the loop. There a short call warns, and a call
    that waits raises `UsageError`, because it may wait for a task of that loop.
    """
    try:
        _check_thread(coroutine, waits=waits)
    except BaseException:
        coroutine.close()
        raise
    return _portal.run(coroutine)


def _check_thread(coroutine: Coroutine[Any, Any, Any], *, waits: bool) -> None:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return  # no running loop: the purpose of `.sync`
    # The protocol lacks __qualname__, but coroutines of an `async def` have it.
    owner, _, method = coroutine.__qualname__.rpartition(".")  # type: ignore[attr-defined]
    owner = "task" if owner == "Enqueuer" else owner.lower()
    instead = f"use 'await {owner}.{method}(…)', or call it from a thread (asyncio.to_thread)"
    if waits:
        raise UsageError(f"a .sync call that waits would block the running event loop: {instead}")
    # Shown once per line of the caller, which is three frames above.
    warnings.warn(
        f"a .sync call blocks the running event loop: {instead}", RuntimeWarning, stacklevel=4
    )


def run(coroutine: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine from a thread that may block, and return its result."""
    return _portal.run(coroutine)


def start(coroutine: Coroutine[Any, Any, T]) -> Future[T]:
    """Start a coroutine from any thread, without waiting."""
    return asyncio.run_coroutine_threadsafe(coroutine, _portal.loop())


def _renew_after_fork() -> None:
    global _portal  # noqa: PLW0603  # there is one per process
    _portal = _Portal()  # the old thread only exists in the parent


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew_after_fork)
