"""A folder with an application, and the commands `hasten` that run there."""

from __future__ import annotations

import asyncio
import json
import subprocess
import uuid
from collections.abc import Callable
from contextlib import closing
from http.client import HTTPConnection
from pathlib import Path
from typing import Any, Final, NamedTuple

from prometheus_client.parser import text_string_to_metric_families

from hasten.jobs import Queue
from tests.acceptance.commands import Command, run
from tests.patience import DEADLINE_SECONDS
from tests.servers.redis import free_port, shared_redis

SERVING: Final = r"worker \S+ serves mail"


class Place:
    """A folder with `app.py`, whose queue is `mail`, its store, and the commands that run there.

    Without a url, the store is the file that the application uses by default.
    """

    def __init__(self, folder: Path, app: str, url: str | None = None) -> None:
        (folder / "app.py").write_text(app, encoding="utf-8")
        self.folder = folder
        self.variables: dict[str, str] = {}
        self.commands: list[Command] = []
        self.url = f"sqlite:///{folder}/hasten.db"
        self.mail = Queue("mail", self.url)
        if url is not None:
            self.use(url)

    def use(self, url: str) -> None:
        """Use another store. Call it before the first use."""
        self.url = url
        self.variables = {"HASTEN_URL": url}
        self.mail = Queue("mail", url)

    async def worker(self, *options: str, processes: int = 1) -> Command:
        """Start a worker and wait until it serves."""
        if processes > 1:
            options = (*options, "--processes", str(processes))
        command = Command(self.folder, "worker", "app:mail", *options, **self.variables)
        self.commands.append(command)
        await command.until_logged(SERVING, times=processes)
        return command

    def hasten(self, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
        """Run a command to its end."""
        return run(self.folder, *arguments, **self.variables, **variables)

    def held_by(self) -> set[int]:
        """The pids of the processes in which a holding job has started."""
        return {int(path.name.split()[-1]) for path in self.folder.glob("held by *")}

    async def close(self) -> None:
        for command in self.commands:
            command.end()
        await self.mail.aclose()


class Answer(NamedTuple):
    """A response of the monitor."""

    status: int
    text: str
    headers: dict[str, str]

    @property
    def body(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.text)
        return found

    def metric(self, name: str, **labels: str) -> float | None:
        """Return the value of a sample on a page of metrics."""
        for family in text_string_to_metric_families(self.text):
            for sample in family.samples:
                if sample.name == name and sample.labels == labels:
                    return sample.value
        return None


class MonitoredPlace(Place):
    """A folder with `app.py`, a worker that runs there, and its monitor."""

    def __init__(self, folder: Path, app: str, url: str) -> None:
        super().__init__(folder, app, url)
        self.port = free_port()

    async def worker(self, *options: str, processes: int = 1) -> Command:
        """Start a worker with a monitor, and wait until it serves."""
        return await super().worker("--metrics-port", str(self.port), *options, processes=processes)

    def use_kind(self, store: str) -> None:
        """Use a store of this kind: sqlite, which is the default, or redis."""
        if store == "redis":
            self.use(f"{shared_redis().url}?prefix=test-{uuid.uuid4().hex[:12]}")

    def request(self, target: str, method: str = "GET", **headers: str) -> Answer:
        with closing(HTTPConnection("127.0.0.1", self.port, timeout=DEADLINE_SECONDS)) as client:
            client.request(method, target, headers=headers)
            response = client.getresponse()
            return Answer(response.status, response.read().decode(), dict(response.getheaders()))

    async def get(self, target: str) -> Answer:
        return await asyncio.to_thread(self.request, target)

    async def until(self, target: str, condition: Callable[[Answer], object]) -> Answer:
        """Request a page until it fulfils a condition."""
        answer = await self.get(target)
        try:
            async with asyncio.timeout(DEADLINE_SECONDS):
                while not condition(answer):
                    await asyncio.sleep(0.05)
                    answer = await self.get(target)
        except TimeoutError:
            raise AssertionError(f"not in time: {answer}\n{self.commands[-1].log}") from None
        return answer

    def open_gate(self) -> None:
        (self.folder / "gate").touch()
