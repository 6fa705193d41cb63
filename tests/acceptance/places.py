"""A folder with an application, and the commands `hasten` that run there."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Final

from hasten.jobs import Queue
from tests.acceptance.commands import Command, run

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
        self.mail = Queue("mail", f"sqlite:///{folder}/hasten.db")
        if url is not None:
            self.use(url)

    def use(self, url: str) -> None:
        """Use another store. Call it before the first use."""
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
