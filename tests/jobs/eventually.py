"""Wait for workers, and for what other tasks and threads do."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sized
from typing import Any, TypeVar

import pytest

from hasten.errors import JobFailed
from hasten.jobs import Job, Queue, State, Worker
from tests.patience import DEADLINE_SECONDS

T = TypeVar("T")


async def until(condition: Callable[[], object]) -> None:
    """Return once a condition holds, by polling."""
    async with asyncio.timeout(DEADLINE_SECONDS):
        while not condition():
            await asyncio.sleep(0.002)


async def until_longer(what: Sized, count: int) -> None:
    """Return once there are more than count items."""
    await until(lambda: len(what) > count)


async def until_true(condition: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(DEADLINE_SECONDS):
        while not await condition():
            await asyncio.sleep(0.002)


async def until_state(job: Job[object], state: State) -> None:
    """Return once the job has this state in the store. Its attributes are refreshed."""

    async def is_there() -> bool:
        return (await job.refresh()).state is state

    await until_true(is_there)


async def result_of(queue: Queue, job: Job[T], **options: Any) -> T:
    """Run a worker with these options until the job has finished, and return its result."""
    async with Worker(queue, **options):
        return await job.result(timeout=30)


async def fails(result: Awaitable[object], match: str | None = None) -> str:
    """Await the result of a job that fails, and return its error."""
    with pytest.raises(JobFailed, match=match) as caught:
        await result
    return caught.value.error
