from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from hasten.jobs._engine import Engine
from tests.contract.engines import KINDS, open_for_test


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
async def engine(kind: str, tmp_path: Path) -> AsyncIterator[Engine]:
    async with open_for_test(kind, tmp_path) as engine:
        yield engine
