"""`hasten workers`: what it prints to a terminal and to programs."""

from __future__ import annotations

import asyncio
import json
import re
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from hasten._cli import main
from hasten.jobs import Queue, Worker
from tests.patience import DEADLINE_SECONDS

APP = """
from hasten.jobs import Queue

mail = Queue("mail")
other = Queue("other")

@mail.task
async def send() -> None: ...
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "app.py").write_text(APP)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    monkeypatch.setenv("HASTEN_URL", f"sqlite:///{tmp_path}/hasten.db")
    return tmp_path


@asynccontextmanager
async def running(folder: Path) -> AsyncIterator[Queue]:
    """A worker that has reported."""
    async with Queue("mail", f"sqlite:///{folder}/hasten.db") as mail:

        @mail.task
        async def send() -> None: ...

        async with Worker(mail, name="w1", concurrency=7, release="2026.12"):
            async with asyncio.timeout(DEADLINE_SECONDS):
                while not await mail.workers():
                    await asyncio.sleep(0.01)
            yield mail


Show = Callable[..., Awaitable[tuple[object, str, str]]]


@pytest.fixture
def show(folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Show:
    def call() -> object:
        sys.modules.pop("app", None)
        with pytest.raises(SystemExit) as ended:
            main()
        return ended.value.code

    async def show(*arguments: str) -> tuple[object, str, str]:
        monkeypatch.setattr(sys, "argv", ["hasten", "workers", *arguments])
        status = await asyncio.to_thread(call)
        out, err = capsys.readouterr()
        return status, out, err

    return show


async def test_each_worker_of_each_queue_is_a_line(folder: Path, show: Show) -> None:
    async with running(folder):
        status, out, _ = await show("app")
    assert not status
    assert re.fullmatch(
        r"mail\tw1\t[^\t]+\t\d+\t2026\.12\t0\t0\t7\t\d+\.\d{3}\t\d*\t"
        r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}\+00:00\n",
        out,
    )


async def test_json_has_all_facts(folder: Path, show: Show) -> None:
    async with running(folder) as mail:
        _, out, _ = await show("app:mail", "--json")
        (info,) = await mail.workers()
    (shown,) = json.loads(out)
    assert shown.keys() == set(info.__struct_fields__)
    for fact in ("queue", "name", "id", "host", "pid", "version", "release", "tasks", "slots"):
        assert shown[fact] == getattr(info, fact)
    assert shown["started_at"] == info.started_at.isoformat(timespec="milliseconds")


async def test_no_workers_are_no_lines(folder: Path, show: Show) -> None:
    async with running(folder):
        pass
    assert await show("app") == (0, "", "")
    _, out, _ = await show("app", "--json")
    assert out == "[]\n"


async def test_a_terminal_gets_a_table(
    folder: Path, show: Show, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hasten._cli.workers.is_stdout_terminal", lambda: True)
    monkeypatch.setenv("COLUMNS", "120")
    async with running(folder):
        _, out, _ = await show("app")
    assert re.search(r" w1 +│ mail +│ 2026\.12 +│ 0 +│ 0 of 7 +│ \d+\.\d\d s +│", out)
    _, out, err = await show("app")
    assert (out, err) == ("", "no worker of hasten takes jobs of mail, other\n")


async def test_a_missing_store_is_reported(show: Show) -> None:
    status, out, _ = await show("app:mail")
    assert "no such file" in str(status)
    assert out == ""
