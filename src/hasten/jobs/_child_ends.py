"""Waiting, in any process, for the moments of a job's children: first failure, all ended."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Collection
from typing import Final, Protocol, TypeVar

from hasten._durations import Duration, to_seconds
from hasten.errors import JobNotFound, ResultTimeout
from hasten.jobs._engine import Engine
from hasten.jobs._family import Child, to_child
from hasten.jobs._record import WhyFacts
from hasten.jobs._states import State
from hasten.jobs._watching import CHECK_SECONDS, Watches

T = TypeVar("T")

# Jobs of a queue may end at a high rate, and each end may be that of a child. So the children are
# read at most this often, and reading them takes at most a fifth of the time.
MIN_INTERVAL_SECONDS: Final = 0.02
PAUSE_PER_READING: Final = 4


class WatchedQueue(Protocol):
    """What this module uses of a `Queue`."""

    name: str

    @property
    def engine(self) -> Engine: ...
    @property
    def watches(self) -> Watches: ...


def to_timeout(timeout: Duration | None) -> float | None:
    """Return a time-out in seconds, None for none. Raises `InvalidOption`."""
    return None if timeout is None else to_seconds("timeout", timeout)


async def wait_for(
    queue: WatchedQueue,
    find_queue: Callable[[str], WatchedQueue],
    id: str,
    read: Callable[[WhyFacts], Awaitable[T | None]],
    timeout: float | None,
) -> T:
    """Return what read returns, as soon as that is not None.

    read is called with the facts about the job, at first and whenever a job of its queue or of
    those of its children has ended. find_queue returns a queue of the store by name. timeout is in
    seconds. Raises `ResultTimeout`, `JobNotFound` if the job does not exist, and `StoreError`.
    """
    try:
        async with asyncio.timeout(timeout):
            return await _wait(queue, find_queue, id, read)
    except TimeoutError as exc:
        if timeout is None:
            raise
        raise ResultTimeout(id, timeout) from exc


async def _wait(
    queue: WatchedQueue,
    find_queue: Callable[[str], WatchedQueue],
    id: str,
    read: Callable[[WhyFacts], Awaitable[T | None]],
) -> T:
    loop = asyncio.get_running_loop()
    async with contextlib.AsyncExitStack() as stack:
        changed = asyncio.Event()
        listening = {queue.name}
        await stack.enter_async_context(queue.watches.listen(changed))
        while True:
            changed.clear()
            began = loop.time()
            facts = await queue.engine.get_why_facts(queue.name, id, now_ms=0)
            if facts is None:
                raise JobNotFound(queue.name, id)
            new = {child.queue for child in facts.children} - listening
            if new:  # their jobs may have ended before they are listened to
                await _listen(stack, find_queue, new, changed)
                listening |= new
                continue
            found = await read(facts)
            if found is not None:
                return found
            now = loop.time()
            earliest = now + max(MIN_INTERVAL_SECONDS, PAUSE_PER_READING * (now - began))
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(CHECK_SECONDS):
                    await changed.wait()
            await asyncio.sleep(earliest - loop.time())


async def _listen(
    stack: contextlib.AsyncExitStack,
    find_queue: Callable[[str], WatchedQueue],
    names: Collection[str],
    changed: asyncio.Event,
) -> None:
    for name in names:
        await stack.enter_async_context(find_queue(name).watches.listen(changed))


async def find_failed_child(engine: Engine, facts: WhyFacts) -> Child | None:
    """Return a child that has failed for good, None if there is none."""
    for child in facts.children:
        if child.state is State.FAILED:  # with on_failure="wait": it is still pending
            return to_child(child, None)
    found = await engine.failed_children(facts.job.queue, facts.job.id, limit=1)
    return to_child(found[0], None) if found else None
