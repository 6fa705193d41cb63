"""Calls of one tick of the event loop leave as one.

Two hundred requests that enqueue at the same moment are one transaction, not two hundred; each
waits for that one answer. Nobody waits for a timer: what has gathered leaves at the end of the
tick. Where that is more than the store should do in one step, it leaves in portions.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Any, Generic, TypeVar

from hasten.errors import StoreError, StoreRejected

Item = TypeVar("Item")
Answer = TypeVar("Answer")


class Coalescer(Generic[Item, Answer]):
    """Gathers items for `send`, which returns as many answers in the same order.

    unheard is given the answers whose callers were cancelled meanwhile. Belongs to one event loop.

    Items whose weights (1, unless weigh is given) exceed at_most together are sent in portions, in
    their order. Usually no portion waits for the answer to another: so the store works on the first
    while the next is written. With in_turn each one waits, and what is put in meanwhile comes
    behind the last one; if the store fails, all further portions fail with the same error.
    """

    def __init__(
        self,
        send: Callable[[Sequence[Item]], Awaitable[Sequence[Answer]]],
        *,
        unheard: Callable[[Answer], None] | None = None,
        at_most: int | None = None,
        weigh: Callable[[Item], int] | None = None,
        in_turn: bool = False,
    ) -> None:
        self._send = send
        self._at_most = at_most
        self._weigh = weigh
        self._in_turn = in_turn
        self._unheard = unheard
        self._loop = asyncio.get_running_loop()
        self._items: list[Item] = []
        self._futures: list[asyncio.Future[Answer]] = []
        self._sending: set[asyncio.Task[Any]] = set()
        self._ahead: asyncio.Task[None] | None = None  # what has gathered waits for its end

    def put(self, item: Item) -> asyncio.Future[Answer]:
        future: asyncio.Future[Answer] = self._loop.create_future()
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

    def _sent(self, futures: list[asyncio.Future[Answer]], task: asyncio.Task[Any]) -> None:
        self._sending.discard(task)
        was_ahead = task is self._ahead
        if was_ahead:
            self._ahead = None
        if task.cancelled():  # by somebody who cancels all tasks: no caller may wait in vain
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
        futures: list[asyncio.Future[Answer]],
        parts: Sequence[slice],
    ) -> None:
        for part in parts:
            failure = await self._deliver(items[part], futures[part])
            if failure is not None:  # each of the others would wait as long for the same
                for future in futures[part.stop :]:
                    _fail(future, failure)
                return

    async def _deliver(
        self, items: list[Item], futures: list[asyncio.Future[Answer]]
    ) -> StoreError | None:
        """Returns the error, if it is one of the store and not of the items."""
        try:
            answers = await self._send(items)
        except Exception as error:  # noqa: BLE001  # whatever it is, its caller is told
            concerns_all = not isinstance(error, StoreRejected)
            failure = error if concerns_all and isinstance(error, StoreError) else None
            if failure is not None or len(items) == 1:
                for future in futures:
                    _fail(future, error)
                return failure
            # One of them is at fault: it must not take the others with it.
            for item, future in zip(items, futures, strict=True):
                await self._deliver([item], [future])
            return None
        for future, answer in zip(futures, answers, strict=True):
            if not future.done():
                future.set_result(answer)
            elif self._unheard is not None:  # its caller was cancelled
                self._unheard(answer)
        return None


def _fail(future: asyncio.Future[Answer], error: Exception) -> None:
    if not future.done():
        future.set_exception(error)


def portions(
    items: Sequence[Item], at_most: int | None, weigh: Callable[[Item], int] | None = None
) -> list[slice]:
    """The places of items in portions that weigh at_most; a heavier item is one by itself."""
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
