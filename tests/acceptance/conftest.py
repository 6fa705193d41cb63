from __future__ import annotations

import os
import shutil
import tempfile
import uuid
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.acceptance.figures import Figures
from tests.acceptance.site import Site
from tests.servers.redis import shared_redis


@pytest.fixture(params=["sqlite", "redis"])
async def site(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Site]:
    site = Site(tmp_path)
    if request.param == "redis":
        site.use(f"{shared_redis().url}?prefix=test-{uuid.uuid4().hex[:12]}")
    yield site
    await site.close()


_figures = pytest.StashKey[Figures]()


def pytest_configure(config: pytest.Config) -> None:
    config.stash[_figures] = Figures(config)


@pytest.fixture
def figures(request: pytest.FixtureRequest) -> Figures:
    """Records the progress of scenarios and their measurements."""
    return request.config.stash[_figures]


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    for line in config.stash[_figures].table():
        terminalreporter.write_line(line)


@pytest.fixture
async def open_site() -> AsyncIterator[Site]:
    """A site that other users can read. Only its owner can read pytest's folders."""
    folder = Path(tempfile.mkdtemp(prefix="hasten-"))
    folder.chmod(0o777)
    site = Site(folder)
    yield site
    await site.close()
    shutil.rmtree(folder)


@pytest.fixture
def plain_user() -> tuple[str, ...]:
    """Options that run a program as a user without root's permissions."""
    return ("--uid", "65534") if os.geteuid() == 0 else ()
