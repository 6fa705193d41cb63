"""The place of one measurement: an empty store location, and a process for each verb."""

from __future__ import annotations

import contextlib
import json
from typing import Any, Final, Self

from benchmarks.contestants import Failed
from benchmarks.processes import Process
from benchmarks.queues.contestant import Contestant
from benchmarks.queues.run_verb import READY
from benchmarks.stores import Store

TIMEOUT_SECONDS: Final = 600


class Workspace:
    """A context manager that creates a location. At its end, the processes are killed."""

    def __init__(self, contestant: type[Contestant], store: Store) -> None:
        self.store = store
        self._contestant = contestant
        self._exit = contextlib.ExitStack()
        self._location = ""

    def __enter__(self) -> Self:
        self._location = self._exit.enter_context(self.store.new_location())
        return self

    def __exit__(self, *_: object) -> None:
        self._exit.close()

    def run(self, verb: str, **arguments: Any) -> Any:
        """Call a method of the contestant in a new process, and return its result."""
        return self.start(verb, **arguments).result()

    def start(self, verb: str, **arguments: Any) -> RunningVerb:
        command = [*self._contestant.command(), verb, self._location, json.dumps(arguments)]
        running = RunningVerb(f"{self._contestant.title}, {verb}", command)
        self._exit.callback(running.process.kill)
        return running


class RunningVerb:
    """The process that runs one verb."""

    def __init__(self, title: str, command: list[str]) -> None:
        self._title = title
        self.process = Process(command)

    def wait_until_ready(self) -> None:
        if self.process.output.readline() != READY:
            raise Failed(f"{self._title}: ended before it was ready: {self.process.last_error()}")

    def result(self) -> Any:
        try:
            return self.process.result(TIMEOUT_SECONDS)
        except Failed as failure:
            raise Failed(f"{self._title}: {failure}") from None
