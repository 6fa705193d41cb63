from __future__ import annotations

from collections.abc import Iterator

import pytest

from hasten.jobs import Queue
from hasten.jobs._store_substitution import registered_queues
from hasten.testing import JobsTester
from tests.kit import application as app


@pytest.fixture(autouse=True)
def clean_application() -> None:
    app.sent.clear()
    app.failures.clear()
    app.gateway.charges.clear()


@pytest.fixture(autouse=True)
def no_other_schedules(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave out the schedules that modules of other tests have declared."""
    for queue in registered_queues():
        if isinstance(queue, Queue) and queue.schedules.declared:
            monkeypatch.setattr(queue.schedules, "declared", {})


@pytest.fixture
def jobs() -> Iterator[JobsTester]:
    with JobsTester() as jobs:
        yield jobs
