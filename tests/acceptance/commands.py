"""The command `hasten` as a process."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from tests.patience import DEADLINE_SECONDS

HASTEN: Final = (sys.executable, "-P", "-m", "hasten")


class Command:
    """A running `hasten`. Its log is the standard error of it and its processes."""

    def __init__(
        self, folder: Path, *arguments: str, program: Sequence[str] = HASTEN, **variables: str
    ) -> None:
        self._log = folder / f"{len(list(folder.glob('*.log')))}.log"
        with self._log.open("w") as log:
            self.process = subprocess.Popen(
                [*program, *arguments],
                cwd=folder,
                env=environment(**variables),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    @property
    def log(self) -> str:
        return self._log.read_text()

    def children(self) -> list[int]:
        """Return the pids of its processes, in the order of their starts."""
        return [int(pid) for pid in re.findall(r"process \d+ started with pid (\d+)", self.log)]

    async def until(self, condition: Callable[[], object], *, seconds: float = 0) -> None:
        try:
            async with asyncio.timeout(seconds or DEADLINE_SECONDS):
                while not condition():
                    await asyncio.sleep(0.02)  # another process gives no signal here, so poll
        except TimeoutError:
            raise AssertionError(f"not in time; its log:\n{self.log}") from None

    async def until_logged(self, pattern: str, *, times: int = 1) -> None:
        await self.until(lambda: len(re.findall(pattern, self.log)) >= times)

    async def ended(self, *, seconds: float = 0) -> int:
        await self.until(lambda: self.process.poll() is not None, seconds=seconds)
        assert self.process.returncode is not None
        return self.process.returncode

    def end(self) -> None:
        self.process.kill()
        self.process.wait()
        for pid in self.children():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


def run(
    folder: Path, *arguments: str, program: Sequence[str] = HASTEN, **variables: str
) -> subprocess.CompletedProcess[str]:
    """Run a command to its end."""
    return subprocess.run(
        [*program, *arguments],
        cwd=folder,
        env=environment(**variables),
        capture_output=True,
        text=True,
        timeout=DEADLINE_SECONDS,
        check=False,
    )


def environment(**variables: str) -> dict[str, str]:
    """Return the environment of a command, with more variables."""
    ours = ("HASTEN_URL", "DJANGO_SETTINGS_MODULE")
    return {
        **{name: value for name, value in os.environ.items() if name not in ours},
        "PYTHONWARNINGS": "error",
        "COLUMNS": "100",
        **variables,
    }
