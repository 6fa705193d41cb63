"""Calls of one tick of the event loop leave as one.

Two hundred requests that enqueue at the same moment are one transaction, not two hundred; each
waits for that one answer. Nobody waits for a timer: what has gathered leaves at the end of the
tick.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Generic, TypeVar

from hasten.errors import StoreError, StoreRejected

Item = TypeVar("Item")
Answer = TypeVar("Answer")


class Coalescer(Generic[Item, Answer]):
    """Gathers items for `send`, which returns as many answers in the same order.

    unheard is given the answers whose callers were cancelled meanwhile. Of more than at_most items
    several sends are made, one after the other in their order, without waiting for the answers: so
    the store works on the first while the next is written. Belongs to one event loop.
    """

    def __init__(
        self,
        send: Callable[[Sequence[Item]], Awaitable[Sequence[Answer]]],
        *,
        unheard: Callable[[Answer], None] | None = None,
        at_most: int | None = None,
    ) -> None:
        self._send = send
        self._at_most = at_most
        self._unheard = unheard
        self._loop = asyncio.get_running_loop()
        self._items: list[Item] = []
        self._futures: list[asyncio.Future[Answer]] = []
        self._sending: set[asyncio.Task[None]] = set()

    def put(self, item: Item) -> asyncio.Future[Answer]:
        future: asyncio.Future[Answer] = self._loop.create_future()
        if not self._items:
            self._loop.call_soon(self._flush)
        self._items.append(item)
        self._futures.append(future)
        return future

    def _flush(self) -> None:
        items, self._items = self._items, []
        futures, self._futures = self._futures, []
        size = self._at_most or len(items)
        for start in range(0, len(items), size):
            part = slice(start, start + size)
            task = self._loop.create_task(self._deliver(items[part], futures[part]))
            self._sending.add(task)
            task.add_done_callback(partial(self._sent, futures[part]))

    def _sent(self, futures: list[asyncio.Future[Answer]], task: asyncio.Task[None]) -> None:
        self._sending.discard(task)
        if task.cancelled():  # by somebody who cancels all tasks: no caller may wait in vain
            for future in futures:
                future.cancel()

    async def _deliver(self, items: list[Item], futures: list[asyncio.Future[Answer]]) -> None:
        try:
            answers = await self._send(items)
        except Exception as error:  # noqa: BLE001  # whatever it is, its caller is told
            concerns_all = isinstance(error, StoreError) and not isinstance(error, StoreRejected)
            if concerns_all or len(items) == 1:
                for future in futures:
                    _fail(future, error)
            else:  # one of them is at fault: it must not take the others with it
                for item, future in zip(items, futures, strict=True):
                    await self._deliver([item], [future])
        else:
            for future, answer in zip(futures, answers, strict=True):
                if not future.done():
                    future.set_result(answer)
                elif self._unheard is not None:  # its caller was cancelled
                    self._unheard(answer)


def _fail(future: asyncio.Future[Answer], error: Exception) -> None:
    if not future.done():
        future.set_exception(error)
