"""Wait for a server or another task."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from tests.patience import DEADLINE_SECONDS


async def until(condition: Callable[[], Awaitable[object]]) -> None:
    """Return when the condition is true."""
    async with asyncio.timeout(DEADLINE_SECONDS):
        while not await condition():
            await asyncio.sleep(0.005)
