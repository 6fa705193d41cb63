"""The plug-in of pytest: the fixture `hasten_jobs`.

pytest imports this module in every project that has hasten installed. So it imports nothing else of
hasten until a test uses the fixture.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Final

import pytest

if TYPE_CHECKING:
    from hasten.testing import JobsTester

MARKER: Final = "hasten_jobs"


def pytest_configure(config: pytest.Config) -> None:
    """Describe the marker."""
    config.addinivalue_line(
        "markers",
        f"{MARKER}(inline=False, workers=False, start=...): options of the JobsTester of this test",
    )


@pytest.fixture
def hasten_jobs(request: pytest.FixtureRequest) -> Iterator[JobsTester]:
    """Isolate all queues in memory, and return the `hasten.testing.JobsTester` of the test."""
    from hasten.testing import JobsTester  # noqa: PLC0415  # only for tests that use the fixture

    options: dict[str, Any] = {}
    for marker in reversed(list(request.node.iter_markers(MARKER))):
        options.update(marker.kwargs)
    with JobsTester(**options) as jobs:
        yield jobs
