"""The way from code without an event loop to code that needs one.

One event loop on a thread of its own, for the whole process, made when it is first needed. The
`.sync` twins are thin calls through it.
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
            raise UsageError("a .sync call cannot be made from inside another one: await instead")
        return asyncio.run_coroutine_threadsafe(coroutine, loop).result()


_portal = _Portal()


def call(coroutine: Coroutine[Any, Any, T], *, waits: bool = False) -> T:
    """Run the coroutine of a user's `.sync` call from any thread, and return what it returned.

    In a thread that runs an event loop this blocks the loop. A short call warns there, a call that
    waits raises `UsageError`: what it waits for may need that very loop.
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
        return  # a thread without a running loop: what `.sync` is for
    # Every coroutine of an `async def` has a name; the protocol does not say so.
    owner, _, method = coroutine.__qualname__.rpartition(".")  # type: ignore[attr-defined]
    owner = "task" if owner == "Enqueuer" else owner.lower()
    instead = f"use 'await {owner}.{method}(…)', or call it from a thread (asyncio.to_thread)"
    if waits:
        raise UsageError(f"a .sync call that waits would block the running event loop: {instead}")
    # Shown once for each line of the caller's, which is three frames above this one.
    warnings.warn(
        f"a .sync call blocks the running event loop: {instead}", RuntimeWarning, stacklevel=4
    )


def run(coroutine: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine of hasten's own to its end, from a thread that may block."""
    return _portal.run(coroutine)


def start(coroutine: Coroutine[Any, Any, T]) -> Future[T]:
    """Start a coroutine from any thread, and return at once."""
    return asyncio.run_coroutine_threadsafe(coroutine, _portal.loop())


def _renew_after_fork() -> None:
    global _portal  # noqa: PLW0603  # one for the process is the point of it
    _portal = _Portal()  # the thread of the old one is the parent's


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew_after_fork)
