from __future__ import annotations

import functools

import pytest

from hasten.compression._pool import CompressionThreads
from tests.http.codings import CODINGS
from tests.http.hosts import HOSTS
from tests.http.site import BEHAVIOURS, Site


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run each behaviour on every host that supports it."""
    behaviour = BEHAVIOURS.get(metafunc.function)
    if behaviour is None:
        return
    several = len(behaviour.codings) > 1
    cases = [
        pytest.param(
            (behaviour.subject, host.name, coding),
            id=f"{host.name}-{coding}" if several else host.name,
        )
        for host, coding in behaviour.cases()
    ]
    metafunc.parametrize("site", cases, indirect=True)


@pytest.fixture
def all_work_in_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    """Compress every body in a thread, however small it is."""
    monkeypatch.setattr(CompressionThreads, "offload_after", 0)


@pytest.fixture
def site(request: pytest.FixtureRequest) -> Site:
    from hasten import compression

    subject, name, coding = request.param
    host = next(host for host in HOSTS if host.name == name)
    middleware = getattr(compression, subject)
    if subject == "DecompressionMiddleware":  # all codings, not only the default ones
        middleware = functools.partial(middleware, encodings=CODINGS)
    return Site(host, middleware, coding)
