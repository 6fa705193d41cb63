"""Where a contestant performs: a new folder, and a process for each verb.

This module is also what those processes run: `python -m benchmarks.jobs.stage NAME VERB …`.
"""

from __future__ import annotations

import contextlib
import inspect
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from types import TracebackType
from typing import Any, Final, NoReturn, Self

from benchmarks.jobs import contestants

ROOT: Final = Path(__file__).parents[2]
TIMEOUT_SECONDS: Final = 600


class Failed(Exception):
    """A contestant's process ended with an error, or not at all."""


class Stage:
    """A context manager: the folder goes at the end, and with it whatever still runs there."""

    def __init__(self, name: str, parent: Path | None) -> None:
        self._name = name
        self._folder = Path(tempfile.mkdtemp(prefix="hasten-bench-", dir=parent))
        self._performances: list[Performance] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        for performance in self._performances:
            performance.end()
        shutil.rmtree(self._folder, ignore_errors=True)

    def run(self, verb: str, **arguments: Any) -> Any:
        """Let the contestant do something in a new process. Returns what its method returned."""
        return self.start(verb, **arguments).result()

    def start(self, verb: str, **arguments: Any) -> Performance:
        performance = Performance(self._name, verb, self._folder, arguments)
        self._performances.append(performance)
        return performance


class Performance:
    """One verb in one process."""

    def __init__(self, name: str, verb: str, folder: Path, arguments: dict[str, Any]) -> None:
        self._what = f"{name}.{verb}"
        self._errors = folder / f"{verb}.err"
        command = [sys.executable, "-m", __spec__.name, name, verb, str(folder)]
        with self._errors.open("w") as errors:
            self._process = subprocess.Popen(
                [*command, json.dumps(arguments)],
                cwd=ROOT,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
                start_new_session=True,  # a group of its own, with the processes that it starts
            )

    def wait_until_ready(self) -> None:
        """Return once the contestant has said so."""
        assert self._process.stdout is not None
        if self._process.stdout.readline() != READY:
            self._fail("ended before it was ready")

    def result(self) -> Any:
        try:
            output, _ = self._process.communicate(timeout=TIMEOUT_SECONDS)
        except subprocess.TimeoutExpired:
            self._fail(f"took longer than {TIMEOUT_SECONDS} s")
        if self._process.returncode != 0:
            self._fail(f"ended with status {self._process.returncode}")
        return json.loads(output.splitlines()[-1])

    def end(self) -> None:
        if self._process.poll() is None:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
        if self._process.stdout is not None:
            self._process.stdout.close()

    def _fail(self, reason: str) -> NoReturn:
        self.end()
        last_words = self._errors.read_text()[-2_000:]
        raise Failed(f"{self._what} {reason}\n{last_words}")


READY: Final = "ready\n"


def _say_ready() -> None:
    sys.stdout.write(READY)
    sys.stdout.flush()


def perform(name: str, verb: str, folder: str, arguments: str) -> None:
    contestant = contestants.find(name)(Path(folder))
    method = getattr(contestant, verb)
    call = json.loads(arguments)
    if "ready" in inspect.signature(method).parameters:
        call["ready"] = _say_ready
    print(json.dumps(method(**call)))


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        perform(*sys.argv[1:])
