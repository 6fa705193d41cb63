"""The way from code without an event loop to code that needs one.

One event loop on a thread of its own, for the whole process, made when it is first needed. The
`.sync` twins are thin calls through it.
"""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Coroutine
from typing import Any, TypeVar

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

    def call(self, coroutine: Coroutine[Any, Any, T]) -> T:
        loop = self.loop()
        if threading.current_thread() is self._thread:
            coroutine.close()
            raise RuntimeError("a .sync call cannot be made from inside another one: await instead")
        return asyncio.run_coroutine_threadsafe(coroutine, loop).result()


_portal = _Portal()


def call(coroutine: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine to its end from any thread, and return what it returned.

    Inside a running event loop this works, too, and blocks that loop meanwhile.
    """
    return _portal.call(coroutine)


def _renew_after_fork() -> None:
    global _portal  # noqa: PLW0603  # one for the process is the point of it
    _portal = _Portal()  # the thread of the old one is the parent's


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew_after_fork)
