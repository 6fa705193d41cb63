from __future__ import annotations

import uuid
from collections.abc import AsyncIterator

import pytest

from hasten.jobs import Queue
from hasten.testing import ManualClock
from tests.servers.redis import shared_redis


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture(params=["sqlite", "redis"])
def url(request: pytest.FixtureRequest) -> str:
    """A store that shares nothing with any other test."""
    if request.param == "redis":
        return f"{shared_redis().url}?prefix=test-{uuid.uuid4().hex[:12]}"
    return "sqlite://"


@pytest.fixture
async def queue(url: str, clock: ManualClock) -> AsyncIterator[Queue]:
    """A queue whose time stands still."""
    queue = Queue("mail", url, clock=clock)
    yield queue
    await queue.close()
