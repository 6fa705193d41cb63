"""Each example runs as a process and does what it shows."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import httpx
import pytest

from tests.docs.markdown import ROOT
from tests.docs.programs import TIME_LIMIT_SECONDS, environment, running, wait_until_served
from tests.jobs.eventually import until_true
from tests.servers.redis import free_port

EXAMPLES: Final = ROOT / "examples"


def output_of(example: str, folder: Path) -> str:
    done = subprocess.run(
        [sys.executable, str(EXAMPLES / example)],
        cwd=folder,
        env=environment(PYTHONWARNINGS="error"),
        capture_output=True,
        text=True,
        timeout=TIME_LIMIT_SECONDS,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@contextmanager
def serving(example: str, folder: Path) -> Iterator[httpx.Client]:
    port = free_port()
    env = environment(PORT=str(port), PYTHONWARNINGS="error")
    url = f"http://127.0.0.1:{port}"
    with (
        running(sys.executable, str(EXAMPLES / example), folder=folder, env=env) as process,
        httpx.Client(base_url=url) as client,
    ):
        wait_until_served(process, url)
        yield client


def test_quickstart_runs_one_job(tmp_path: Path) -> None:
    assert output_of("quickstart.py", tmp_path).splitlines() == [
        "queued as job 1",
        "sent to ada@example.org",
    ]
    assert (tmp_path / "hasten.db").is_file()


def test_jobs_are_retried_postponed_rejected_and_cancelled(tmp_path: Path) -> None:
    assert output_of("jobs.py", tmp_path).splitlines() == [
        "sent to ada@example.org in attempt 1",
        "sent to busy@example.org in attempt 1",
        "sent to flaky@example.org in attempt 3",
        "failed: Unrecoverable: 'nobody' is not an address",
        "cancelled: True",
        "{'delayed': 2, 'completed': 3, 'failed': 2}",
    ]
    assert list(tmp_path.iterdir()) == []


def test_responses_are_compressed(tmp_path: Path) -> None:
    with serving("compress.py", tmp_path) as client:
        compressed = client.get("/numbers", headers={"accept-encoding": "gzip"})
        assert compressed.headers["content-encoding"] == "gzip"
        assert len(compressed.json()) == 10_000
        assert "content-encoding" not in client.get("/token").headers
        with client.stream("GET", "/events", headers={"accept-encoding": "gzip"}) as events:
            assert events.headers["content-encoding"] == "gzip"
            assert next(events.iter_lines()) == "data: 0"


def test_pages_and_fields_are_selected(tmp_path: Path) -> None:
    with serving("pages.py", tmp_path) as client:
        page = client.get("/api/posts?page=2&limit=3&sort=-title").json()
        assert page["pagination"] == {"page": 2, "limit": 3, "total": 1000}
        assert [post["title"] for post in page["data"]] == ["Post 996", "Post 995", "Post 994"]
        assert client.get("/api/users/1?fields=id,name").json() == {"id": 1, "name": "Ada"}
        assert client.get("/api/users/1?fields=password_hash").status_code == 422
        assert client.get(f"/api/users/{'9' * 23}").status_code == 422


def test_limits_hold(tmp_path: Path) -> None:
    with serving("limits.py", tmp_path) as client:
        login = "/api/auth/login?password="
        right = [client.post(f"{login}correct horse").status_code for _ in range(10)]
        wrong = [client.post(f"{login}wrong").status_code for _ in range(6)]
        assert (right, wrong) == ([200] * 10, [401] * 5 + [429])
        assert [client.get("/report").status_code for _ in range(4)] == [200] * 3 + [429]
        assert "ratelimit" in client.get("/api/posts").headers
        assert "ratelimit" not in client.get("/health").headers


async def test_all_in_one_serves_all_capabilities_on_one_store(tmp_path: Path) -> None:
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    command = [sys.executable, "-m", "uvicorn", "examples.all_in_one:app", "--port", str(port)]
    env = environment(HASTEN_URL=f"sqlite:///{tmp_path / 'all.db'}", PYTHONWARNINGS="error")
    with running(*command, env=env) as process, httpx.Client(base_url=url) as client:
        wait_until_served(process, url)
        registered = client.post("/users?email=ada@example.org")
        assert registered.status_code == 202
        job = f"/jobs/{registered.json()['job']}"

        async def is_done() -> bool:
            return bool(client.get(job).json()["state"] == "completed")

        await until_true(is_done)
        assert client.get(job).json()["value"] == "sent to ada@example.org"

        page = client.get("/posts?page=2&limit=10&sort=-title&fields=id,title")
        assert set(page.json()["data"][0]) == {"id", "title"}
        whole = client.get("/posts?limit=50", headers={"accept-encoding": "gzip"})
        assert whole.headers["content-encoding"] == "gzip"
        assert "ratelimit" in whole.headers

        statuses = [client.post("/users?email=a@b").status_code for _ in range(5)]
        assert statuses == [202, 202, 202, 202, 429]


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.py")), ids=lambda path: path.name)
def test_an_example_says_how_to_run_it(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert f"python examples/{path.name}" in text or f"uvicorn examples.{path.stem}:app" in text
