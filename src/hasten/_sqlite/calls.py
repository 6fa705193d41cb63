"""The items in the inbox of a database, calls and watches, and the delivery of their results."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import sqlite3
from collections.abc import Callable, Sequence
from typing import Any, Generic, TypeAlias, TypeVar

T = TypeVar("T")

Work: TypeAlias = Callable[[sqlite3.Connection], T]

Deliver: TypeAlias = Callable[[T | None, Exception | None], None]
"""A callback that receives (result, None) on success and (None, error) on failure."""


class TransactionCall(Generic[T]):
    """Work to run in a transaction, and the callback that receives its result.

    write: the work writes. durable: its commit is flushed to the disk. weight: its cost in rows,
    roughly. topic: the part of the data that it may change, None for any part; a set of such parts
    may be extended by the work. loop: the event loop in which deliver is called, None to call it in
    the database's thread.
    """

    __slots__ = ("deliver", "durable", "loop", "topic", "weight", "work", "write")

    def __init__(
        self,
        work: Work[T],
        write: bool,
        durable: bool,
        weight: int,
        topic: str | set[str] | None,
        loop: asyncio.AbstractEventLoop | None,
        deliver: Deliver[T],
    ) -> None:
        self.work = work
        self.write = write
        self.durable = durable
        self.weight = weight
        self.topic = topic
        self.loop = loop
        self.deliver = deliver


class ConditionWatch(Generic[T]):
    """A condition that a caller waits for. It is met when probe returns something but None.

    Only a commit that names the topic can change what probe returns. deliver is called in loop.
    is_done returns whether the caller no longer waits, because it was cancelled.
    """

    __slots__ = ("deliver", "is_done", "loop", "probe", "topic")

    def __init__(
        self,
        topic: str,
        probe: Work[T | None],
        loop: asyncio.AbstractEventLoop,
        deliver: Deliver[T],
        is_done: Callable[[], bool],
    ) -> None:
        self.topic = topic
        self.probe = probe
        self.loop = loop
        self.deliver = deliver
        self.is_done = is_done


Delivery: TypeAlias = tuple[TransactionCall[Any] | ConditionWatch[Any], Any, Exception | None]
"""A call or a watch, with its result or its error."""


def deliver_results(deliveries: Sequence[Delivery]) -> None:
    """Deliver results and errors to their callers. Wakes each event loop only once."""
    for_loops: dict[asyncio.AbstractEventLoop, list[tuple[Deliver[Any], Any, Any]]] = {}
    for item, result, error in deliveries:
        if item.loop is None:
            item.deliver(result, error)
        else:
            for_loops.setdefault(item.loop, []).append((item.deliver, result, error))
    for loop, calls in for_loops.items():
        with contextlib.suppress(RuntimeError):  # the loop was closed, so no caller waits
            loop.call_soon_threadsafe(_deliver_in_loop, calls)


def _deliver_in_loop(calls: Sequence[tuple[Deliver[Any], Any, Exception | None]]) -> None:
    for deliver, result, error in calls:
        deliver(result, error)


def set_future_outcome(
    future: asyncio.Future[T] | concurrent.futures.Future[T],
    result: Any,
    error: Exception | None,
) -> None:
    """Set the result or the error of a future, unless it was cancelled by its caller."""
    if future.done():
        return
    if error is None:
        future.set_result(result)
    else:
        future.set_exception(error)
