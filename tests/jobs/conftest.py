from __future__ import annotations

import sys
import uuid
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from hasten import Store
from hasten.jobs import Queue
from hasten.testing import ManualClock
from tests.jobs.modules import Modules
from tests.servers.redis import shared_redis


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture(params=["sqlite", "redis"])
def url(request: pytest.FixtureRequest) -> str:
    """A store that shares nothing with any other test."""
    if request.param == "redis":
        return f"{shared_redis().url}?prefix=test-{uuid.uuid4().hex[:12]}"
    return "memory://"


@pytest.fixture
async def store(url: str, clock: ManualClock) -> AsyncIterator[Store]:
    """A store with a manual clock."""
    async with Store(url, clock=clock) as store:
        yield store


@pytest.fixture
def queue(store: Store) -> Queue:
    return Queue("mail", store)


@pytest.fixture
async def memory() -> AsyncIterator[Queue]:
    """A queue in memory, for tests that do not depend on the store."""
    async with Queue("memory", "memory://") as queue:
        yield queue


@pytest.fixture
def elsewhere(store: Store) -> Queue:
    """The same queue in another program, which has no tasks and so cannot check data."""
    return Queue("mail", store)


@pytest.fixture
def modules(tmp_path: Path, queue: Queue, monkeypatch: pytest.MonkeyPatch) -> Iterator[Modules]:
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)  # two versions within a second
    known = set(sys.modules)
    yield Modules(tmp_path, queue)
    for name in set(sys.modules) - known:
        del sys.modules[name]
