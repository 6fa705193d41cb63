from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from hasten.jobs import Queue
from hasten.testing import ManualClock


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
async def queue(clock: ManualClock) -> AsyncIterator[Queue]:
    """A queue in memory whose time stands still."""
    queue = Queue("mail", "sqlite://", clock=clock)
    yield queue
    await queue.close()
