"""Combine the calls that are made in one tick of the event loop into one call.

If two hundred requests enqueue a job in the same tick, all jobs are added in one transaction, and
each caller gets its own result. The calls are sent at the end of the tick, without a timer. If they
are more than the store should process at once, they are sent in several batches.
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
    """Collects the items of one tick of the event loop and passes them to send in one call.

    A coalescer belongs to one event loop. Its parameters are:

    - send: called with the items; returns one result for each item, in the same order.
    - on_unclaimed: called with each result whose caller was cancelled before it arrived.
    - max_weight: the maximum total weight of the items of one call. More items are split into
      batches, in their order. An item weighs 1 unless weight_of is given.
    - sequential: send each batch only after the previous one has returned, and items of later ticks
      after the last batch. If the store fails, the remaining batches are not sent and fail with the
      same error. By default, all batches are sent at once, so that the driver writes one while the
      store processes another.
    """

    def __init__(
        self,
        send: Callable[[Sequence[Item]], Awaitable[Sequence[Result]]],
        *,
        on_unclaimed: Callable[[Result], None] | None = None,
        max_weight: int | None = None,
        weight_of: Callable[[Item], int] | None = None,
        sequential: bool = False,
    ) -> None:
        self._send = send
        self._max_weight = max_weight
        self._weight_of = weight_of
        self._sequential = sequential
        self._on_unclaimed = on_unclaimed
        self._loop = asyncio.get_running_loop()
        self._items: list[Item] = []
        self._futures: list[asyncio.Future[Result]] = []
        self._sending: set[asyncio.Task[Any]] = set()
        # Sends batches one after the other. Items that are put meanwhile wait until it has ended.
        self._sequence: asyncio.Task[None] | None = None

    def put(self, item: Item) -> asyncio.Future[Result]:
        """Send an item at the end of this tick. Return a future for its result."""
        future: asyncio.Future[Result] = self._loop.create_future()
        if not self._items:
            self._loop.call_soon(self._send_collected)
        self._items.append(item)
        self._futures.append(future)
        return future

    def _send_collected(self) -> None:
        if self._sequence is not None or not self._items:
            return
        items, self._items = self._items, []
        futures, self._futures = self._futures, []
        parts = split_by_weight(items, self._max_weight, self._weight_of)
        if len(parts) > 1 and self._sequential:
            self._sequence = self._loop.create_task(self._send_in_sequence(items, futures, parts))
            self._sequence.add_done_callback(partial(self._on_send_done, futures))
            return
        for part in parts:
            task = self._loop.create_task(self._send_batch(items[part], futures[part]))
            self._sending.add(task)
            task.add_done_callback(partial(self._on_send_done, futures[part]))

    def _on_send_done(self, futures: list[asyncio.Future[Result]], task: asyncio.Task[Any]) -> None:
        self._sending.discard(task)
        was_sequence = task is self._sequence
        if was_sequence:
            self._sequence = None
        if task.cancelled():  # the loop is ending, for example: callers must not wait forever
            if was_sequence:
                futures = futures + self._futures
                self._items, self._futures = [], []
            for future in futures:
                future.cancel()
        if was_sequence:
            self._send_collected()

    async def _send_in_sequence(
        self,
        items: list[Item],
        futures: list[asyncio.Future[Result]],
        parts: Sequence[slice],
    ) -> None:
        for part in parts:
            failure = await self._send_batch(items[part], futures[part])
            if failure is not None:  # each further batch would wait just as long for this error
                for future in futures[part.stop :]:
                    _set_exception(future, failure)
                return

    async def _send_batch(
        self, items: list[Item], futures: list[asyncio.Future[Result]]
    ) -> StoreError | None:
        """Send items, and set the result or the error of each future.

        Returns the error if the store itself has failed. Returns None if all went well, or if only
        single items have caused errors.
        """
        try:
            results = await self._send(items)
        except Exception as error:  # noqa: BLE001  # delivered to the callers
            concerns_all = not isinstance(error, StoreRejected)
            failure = error if concerns_all and isinstance(error, StoreError) else None
            if failure is not None or len(items) == 1:
                for future in futures:
                    _set_exception(future, error)
                return failure
            # One item may have caused the error. Send each by itself, so that only this one fails.
            for item, future in zip(items, futures, strict=True):
                await self._send_batch([item], [future])
            return None
        for future, result in zip(futures, results, strict=True):
            if not future.done():
                future.set_result(result)
            elif self._on_unclaimed is not None:  # its caller was cancelled
                self._on_unclaimed(result)
        return None


def _set_exception(future: asyncio.Future[Result], error: Exception) -> None:
    if not future.done():
        future.set_exception(error)


def split_by_weight(
    items: Sequence[Item], max_weight: int | None, weight_of: Callable[[Item], int] | None = None
) -> list[slice]:
    """Return slices that split items into batches with a total weight of at most max_weight.

    An item weighs 1 unless weight_of is given. An item that is heavier than max_weight is a batch
    of its own. Without max_weight, all items are one batch.
    """
    if max_weight is None or len(items) <= 1:
        return [slice(0, len(items))]
    if weight_of is None:
        return [slice(start, start + max_weight) for start in range(0, len(items), max_weight)]
    parts: list[slice] = []
    start = total = 0
    for index, item in enumerate(items):
        weight = weight_of(item)
        total += weight
        if total > max_weight and index > start:
            parts.append(slice(start, index))
            start, total = index, weight
    parts.append(slice(start, len(items)))
    return parts
