"""Waiting for what other tasks and threads do."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sized

from hasten.jobs import Job, State
from tests.patience import DEADLINE_SECONDS


async def until(condition: Callable[[], object]) -> None:
    """Return once a condition holds, by polling."""
    async with asyncio.timeout(DEADLINE_SECONDS):
        while not condition():
            await asyncio.sleep(0.002)


async def until_longer(what: Sized, count: int) -> None:
    """Return once there is more of it than that."""
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
