from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.acceptance.site import Site


@pytest.fixture
async def site(tmp_path: Path) -> AsyncIterator[Site]:
    site = Site(tmp_path)
    yield site
    await site.close()


@pytest.fixture
async def open_site() -> AsyncIterator[Site]:
    """A site that another user can reach: pytest's own folders are closed to all others."""
    folder = Path(tempfile.mkdtemp(prefix="hasten-"))
    folder.chmod(0o777)
    site = Site(folder)
    yield site
    await site.close()
    shutil.rmtree(folder)


@pytest.fixture
def plain_user() -> tuple[str, ...]:
    """Options that make a program a user whom permissions bind: root may write everywhere."""
    return ("--uid", "65534") if os.geteuid() == 0 else ()
