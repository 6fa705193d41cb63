from __future__ import annotations

from collections.abc import Iterator

import pytest
from sqlalchemy.orm import Session

from tests.pagination.databases import DATABASES, engine


@pytest.fixture(params=DATABASES)
def database(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def session(database: str) -> Iterator[Session]:
    """A session that is rolled back after the test."""
    with Session(engine(database)) as session:
        yield session
        session.rollback()
