"""What a contestant is: a queue with one task that does nothing, at its best settings."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import ClassVar

from benchmarks import contestants
from benchmarks.queues.load import Cost


class Contestant(contestants.Contestant):
    """settings are what is tried for a part before the rounds, which run with the fastest."""

    parts: ClassVar[frozenset[str]]
    settings: ClassVar[Mapping[str, tuple[str, ...]]] = {}

    # The share of the jobs that is enough for one so slow that all of them would take minutes.
    share: ClassVar[float] = 1.0

    @classmethod
    def command(cls) -> list[str]:
        """Return what runs a verb: a verb, a location and a JSON object of arguments are appended.

        It prints what the verb returns as JSON, in a line of its own: see `PythonContestant`.
        """
        raise NotImplementedError


class PythonContestant(Contestant, ABC):
    """Each object has a process of its own, in which one of its methods, a verb, is called once.

    location is where the jobs are: a folder, or the URL of a server. The processes of one run share
    it, and it is empty before the first. Jobs are numbers: the task takes one, and returns None.
    """

    @classmethod
    def command(cls) -> list[str]:
        return [cls.python(), "-m", "benchmarks.queues.run_verb", cls.__module__]

    @abstractmethod
    def __init__(self, location: str) -> None: ...

    @abstractmethod
    def fill(self, count: int) -> None:
        """Add the jobs 0 to count - 1 in the fastest way."""

    @abstractmethod
    def enqueue(self, count: int, setting: str) -> Cost:
        """Add jobs with a call for each, as 100 concurrent requests of a web application would.

        A call ends once its job is stored. setting is one of `settings`: in how many tasks or
        threads the calls are made.
        """

    @abstractmethod
    def lone(self, count: int) -> list[float]:
        """Add jobs one at a time. Return how long each call took, in ms."""

    @abstractmethod
    def drain(self, count: int, setting: str) -> Cost:
        """Run count waiting jobs. Measure from the start of the first to the end of the last."""

    @abstractmethod
    def send(self, pauses: Sequence[float]) -> None:
        """After each pause, in seconds, add a job whose number is `load.clock_ns()` then."""

    @abstractmethod
    def receive(self, count: int, ready: Callable[[], None]) -> list[float]:
        """Run count jobs of `send`. Return how many ms each had waited.

        Call ready as soon as the worker is running.
        """

    # Only some contestants have the following verbs: `parts` names the parts that need them.

    def bulk(self, count: int) -> Cost:
        """Add jobs, 1,000 with each call."""
        raise NotImplementedError

    def pick_up(self, pauses: Sequence[float]) -> list[float]:
        """Do `send` and `receive` in one process."""
        raise NotImplementedError

    def fill_delayed(self, count: int) -> None:
        """Add count jobs that are due in a day."""
        raise NotImplementedError
