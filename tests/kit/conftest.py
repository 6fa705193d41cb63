from __future__ import annotations

from collections.abc import Iterator

import pytest

from hasten.testing import JobsTester
from tests.kit import application as app


@pytest.fixture(autouse=True)
def clean_application() -> None:
    app.sent.clear()
    app.failures.clear()
    app.gateway.charges.clear()


@pytest.fixture
def jobs() -> Iterator[JobsTester]:
    with JobsTester() as jobs:
        yield jobs
