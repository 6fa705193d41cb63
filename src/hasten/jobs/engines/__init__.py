"""Engines by URL, and one engine per URL in a process.

Queues that name the same store share its engine, so that all they do at one moment is one
transaction.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import threading
from typing import Final

from hasten._urls import without_password
from hasten.errors import InvalidOption
from hasten.jobs.engine import Engine
from hasten.jobs.engines.sqlite import SqliteEngine

__all__ = ["acquire", "open_engine", "release"]


def open_engine(url: str) -> Engine:
    """Make an engine of one's own for a URL. Nothing is opened before it is first used."""
    scheme = url.partition(":")[0]
    if scheme == "sqlite":
        return SqliteEngine(url)
    if scheme.startswith(("redis", "unix")):
        # Imported late: who stays with SQLite needs neither the package nor the time to load it.
        from hasten.jobs.engines.redis import RedisEngine  # noqa: PLC0415

        return RedisEngine(url)
    raise InvalidOption(
        "url",
        without_password(url),
        "sqlite:///path/to/file.db, sqlite:// for one in memory, or redis://host:6379/0",
    )


class _Registry:
    """The engines in use, each with the number of its users."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._engines: dict[str, tuple[Engine, int]] = {}

    def acquire(self, url: str) -> Engine:
        with self._lock:
            made = open_engine(url)  # opens nothing, and tells the place that the URL stands for
            engine, users = self._engines.get(made.url, (made, 0))
            self._engines[made.url] = engine, users + 1
            return engine

    def release(self, engine: Engine) -> bool:
        """Returns whether that was its last user, who has to close it."""
        with self._lock:
            held, users = self._engines.get(engine.url, (None, 0))
            if held is not engine:
                return False
            if users > 1:
                self._engines[engine.url] = engine, users - 1
                return False
            del self._engines[engine.url]
            return True

    def close_all(self) -> None:
        with self._lock:
            engines, self._engines = self._engines, {}
        for engine, _ in engines.values():
            with contextlib.suppress(Exception):
                engine.close_now()

    def after_fork_in_child(self) -> None:
        self._lock = threading.Lock()  # another thread may have held it at the fork


_registry: Final = _Registry()


def acquire(url: str) -> Engine:
    """The process's engine for a URL. Each acquire wants a `release`."""
    return _registry.acquire(url)


async def release(engine: Engine) -> None:
    """Give an engine back; the last one to do so closes it."""
    if _registry.release(engine):
        await engine.close()


atexit.register(_registry.close_all)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_registry.after_fork_in_child)
