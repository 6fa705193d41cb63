"""The interface of a contestant: a job queue with one task that does nothing."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import ClassVar

from benchmarks import contestants
from benchmarks.queues.load import Cost


class Contestant(contestants.Contestant):
    """A job queue.

    settings are those to try for each part. The rounds are measured with the fastest one.
    """

    parts: ClassVar[frozenset[str]]
    settings: ClassVar[Mapping[str, tuple[str, ...]]] = {}

    # The fraction of the jobs that is measured: below 1 for a library that would take minutes.
    share: ClassVar[float] = 1.0

    @classmethod
    def command(cls) -> list[str]:
        """Return the command that runs a verb, a method of `PythonContestant`, in a process.

        The verb, a location and a JSON object of arguments are appended to the command. It prints
        the result of the verb as a line of JSON.
        """
        raise NotImplementedError


class PythonContestant(Contestant, ABC):
    """A job queue in Python. Each object is used in its own process, for one call of one verb.

    The verbs are the methods that are measured. location is where the jobs are stored: a folder, or
    the URL of a server. All processes of a run have the same location, which is empty at first. The
    only argument of the task is a number, and its result is None.
    """

    @classmethod
    def command(cls) -> list[str]:
        return [cls.python(), "-m", "benchmarks.queues.run_verb", cls.__module__]

    @abstractmethod
    def __init__(self, location: str) -> None: ...

    @abstractmethod
    def fill(self, count: int) -> None:
        """Add jobs with the numbers 0 to count - 1, in the fastest way."""

    @abstractmethod
    def enqueue(self, count: int, setting: str) -> Cost:
        """Add jobs with a call for each, as 100 concurrent requests of a web application would.

        A call returns when the job is stored. setting is one of `settings`: the number of tasks or
        threads that make the calls.
        """

    @abstractmethod
    def lone(self, count: int) -> list[float]:
        """Add jobs one at a time. Return how long each call took, in ms."""

    @abstractmethod
    def drain(self, count: int, setting: str) -> Cost:
        """Run count waiting jobs. Measure the time from the start of the first job to the last."""

    @abstractmethod
    def send(self, pauses: Sequence[float]) -> None:
        """After each pause (seconds), add a job. Its number is the time, `load.clock_ns()`."""

    @abstractmethod
    def receive(self, count: int, ready: Callable[[], None]) -> list[float]:
        """Run count jobs that `send` adds. Return how long each has waited, in ms.

        Calls ready as soon as the worker is running.
        """

    # Only some contestants have the following verbs: `parts` names the parts that need them.

    def bulk(self, count: int) -> Cost:
        """Add jobs, 1,000 in each call."""
        raise NotImplementedError

    def pick_up(self, pauses: Sequence[float]) -> list[float]:
        """Do the same as `send` and `receive`, but in one process."""
        raise NotImplementedError

    def count_runs(self, count: int) -> Cost:
        """Count the same run count times, as a worker with metrics does for each job."""
        raise NotImplementedError

    def trace_runs(self, count: int) -> tuple[Cost, Cost]:
        """Make the spans of count jobs. Returns the cost, and that of the tracing library alone."""
        raise NotImplementedError

    def fill_delayed(self, count: int) -> None:
        """Add count jobs that are due in a day."""
        raise NotImplementedError
