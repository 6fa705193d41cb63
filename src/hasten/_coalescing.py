"""Combine the calls of one tick of the event loop into one.

Two hundred requests that enqueue at the same moment become one transaction, and each gets its own
result. There is no timer: the gathered calls are sent at the end of the tick. If they are more than
the store should process in one step, they are sent in portions.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Any, Generic, TypeVar

from hasten.errors import StoreError, StoreRejected

Item = TypeVar("Item")
Result = TypeVar("Result")


class Coalescer(Generic[Item, Result]):
    """Gathers items for `send`, which returns one result per item, in the same order.

    on_unclaimed is called with the results whose callers were cancelled meanwhile. Belongs to one
    event loop.

    If the total weight of the items (1 each, unless weigh is given) exceeds at_most, they are sent
    in portions, in their order. By default a portion does not wait for the previous one: the store
    processes the first while the next is written. With in_turn each portion waits, items that are
    put meanwhile follow the last portion, and after an error of the store all further portions fail
    with the same error.
    """

    def __init__(
        self,
        send: Callable[[Sequence[Item]], Awaitable[Sequence[Result]]],
        *,
        on_unclaimed: Callable[[Result], None] | None = None,
        at_most: int | None = None,
        weigh: Callable[[Item], int] | None = None,
        in_turn: bool = False,
    ) -> None:
        self._send = send
        self._at_most = at_most
        self._weigh = weigh
        self._in_turn = in_turn
        self._on_unclaimed = on_unclaimed
        self._loop = asyncio.get_running_loop()
        self._items: list[Item] = []
        self._futures: list[asyncio.Future[Result]] = []
        self._sending: set[asyncio.Task[Any]] = set()
        self._ahead: asyncio.Task[None] | None = None  # gathered items wait for its end

    def put(self, item: Item) -> asyncio.Future[Result]:
        future: asyncio.Future[Result] = self._loop.create_future()
        if not self._items:
            self._loop.call_soon(self._flush)
        self._items.append(item)
        self._futures.append(future)
        return future

    def _flush(self) -> None:
        if self._ahead is not None or not self._items:
            return
        items, self._items = self._items, []
        futures, self._futures = self._futures, []
        parts = portions(items, self._at_most, self._weigh)
        if len(parts) > 1 and self._in_turn:
            self._ahead = self._loop.create_task(self._deliver_in_turn(items, futures, parts))
            self._ahead.add_done_callback(partial(self._sent, futures))
            return
        for part in parts:
            task = self._loop.create_task(self._deliver(items[part], futures[part]))
            self._sending.add(task)
            task.add_done_callback(partial(self._sent, futures[part]))

    def _sent(self, futures: list[asyncio.Future[Result]], task: asyncio.Task[Any]) -> None:
        self._sending.discard(task)
        was_ahead = task is self._ahead
        if was_ahead:
            self._ahead = None
        if task.cancelled():  # e.g. with all tasks of the loop: callers must not wait forever
            if was_ahead:
                futures = futures + self._futures
                self._items, self._futures = [], []
            for future in futures:
                future.cancel()
        if was_ahead:
            self._flush()

    async def _deliver_in_turn(
        self,
        items: list[Item],
        futures: list[asyncio.Future[Result]],
        parts: Sequence[slice],
    ) -> None:
        for part in parts:
            failure = await self._deliver(items[part], futures[part])
            if failure is not None:  # the others would wait as long for the same error
                for future in futures[part.stop :]:
                    _fail(future, failure)
                return

    async def _deliver(
        self, items: list[Item], futures: list[asyncio.Future[Result]]
    ) -> StoreError | None:
        """Return the error if it concerns the store and not single items, else None."""
        try:
            results = await self._send(items)
        except Exception as error:  # noqa: BLE001  # delivered to the callers
            concerns_all = not isinstance(error, StoreRejected)
            failure = error if concerns_all and isinstance(error, StoreError) else None
            if failure is not None or len(items) == 1:
                for future in futures:
                    _fail(future, error)
                return failure
            # One item may have caused the error: the others must not fail with it.
            for item, future in zip(items, futures, strict=True):
                await self._deliver([item], [future])
            return None
        for future, result in zip(futures, results, strict=True):
            if not future.done():
                future.set_result(result)
            elif self._on_unclaimed is not None:  # its caller was cancelled
                self._on_unclaimed(result)
        return None


def _fail(future: asyncio.Future[Result], error: Exception) -> None:
    if not future.done():
        future.set_exception(error)


def portions(
    items: Sequence[Item], at_most: int | None, weigh: Callable[[Item], int] | None = None
) -> list[slice]:
    """Return slices of items that weigh at most at_most; a heavier item is a slice by itself."""
    if at_most is None or len(items) <= 1:
        return [slice(0, len(items))]
    if weigh is None:
        return [slice(start, start + at_most) for start in range(0, len(items), at_most)]
    parts: list[slice] = []
    start = total = 0
    for index, item in enumerate(items):
        weight = weigh(item)
        total += weight
        if total > at_most and index > start:
            parts.append(slice(start, index))
            start, total = index, weight
    parts.append(slice(start, len(items)))
    return parts
