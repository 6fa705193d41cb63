"""The examples run as they are."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.jobs.eventually import until_true


@pytest.fixture
def store_url(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HASTEN_URL", f"sqlite:///{tmp_path / 'all.db'}")


async def test_all_in_one(store_url: None) -> None:
    example: Any = importlib.reload(importlib.import_module("examples.all_in_one"))
    app = example.app
    transport = httpx.ASGITransport(app=app)
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=transport, base_url="http://test") as client,
    ):
        registered = await client.post("/users?email=ada@example.org")
        assert registered.status_code == 202
        job = registered.json()["job"]

        async def is_done() -> bool:
            return bool((await client.get(f"/jobs/{job}")).json()["state"] == "completed")

        await until_true(is_done)
        assert (await client.get(f"/jobs/{job}")).json()["value"] == "sent to ada@example.org"

        page = await client.get("/posts?page=2&limit=10&sort=-title&fields=id,title")
        assert set(page.json()["data"][0]) == {"id", "title"}
        whole = await client.get("/posts?limit=50", headers={"accept-encoding": "gzip"})
        assert whole.headers["content-encoding"] == "gzip"
        assert "ratelimit" in whole.headers

        statuses = [(await client.post("/users?email=a@b")).status_code for _ in range(5)]
        assert statuses == [202, 202, 202, 202, 429]


def test_the_readme_shows_parts_of_it() -> None:
    root = Path(__file__).parents[2]
    section = (root / "README.md").read_text().partition("## All of it in one application")[2]
    shown = section.partition("```python\n")[2].partition("```")[0]
    whole = (root / "examples" / "all_in_one.py").read_text()
    for part in shown.strip().split("\n\n\n"):
        assert part in whole
