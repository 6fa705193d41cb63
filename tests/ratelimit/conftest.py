from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from hasten.ratelimit._counter_store import CounterStore
from tests.ratelimit.stores import KINDS, Clock, open_for_test


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
async def store(kind: str, tmp_path: Path, clock: Clock) -> AsyncIterator[CounterStore]:
    async with open_for_test(kind, tmp_path, clock) as store:
        yield store
