"""Where a contestant performs: an empty place, and a process for each verb."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import tempfile
from pathlib import Path
from types import TracebackType
from typing import Any, Final, NoReturn, Self

from benchmarks.queues.contestant import Contestant
from benchmarks.queues.performance import READY
from benchmarks.queues.store import Store

ROOT: Final = Path(__file__).parents[2]
TIMEOUT_SECONDS: Final = 600


class Failed(Exception):
    """A contestant's process ended with an error, or not at all."""


class Stage:
    """A context manager: the place goes at the end, and with it whatever still runs there."""

    def __init__(self, contestant: type[Contestant], store: Store) -> None:
        self.store = store
        self._contestant = contestant
        self._exit = contextlib.ExitStack()
        self._place = ""

    def __enter__(self) -> Self:
        self._place = self._exit.enter_context(self.store.new_place())
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._exit.close()

    def run(self, verb: str, **arguments: Any) -> Any:
        """Let the contestant do something in a new process. Returns what its method returned."""
        return self.start(verb, **arguments).result()

    def start(self, verb: str, **arguments: Any) -> Performance:
        performance = Performance(self._contestant, verb, self._place, arguments)
        self._exit.callback(performance.end)
        return performance


class Performance:
    """One verb in one process."""

    def __init__(
        self, contestant: type[Contestant], verb: str, place: str, arguments: dict[str, Any]
    ) -> None:
        self._what = f"{contestant.title}: {verb}"
        self._errors = tempfile.TemporaryFile("w+")  # noqa: SIM115  # until `end`
        self._process = subprocess.Popen(
            [*contestant.command(), verb, place, json.dumps(arguments)],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=self._errors,
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
        self._errors.close()

    def _fail(self, reason: str) -> NoReturn:
        self._errors.seek(0)
        last_words = self._errors.read()[-2_000:]
        self.end()
        raise Failed(f"{self._what} {reason}\n{last_words}")
