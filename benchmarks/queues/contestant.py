"""What a contestant is: a queue with one task that does nothing, at its best settings."""

from __future__ import annotations

import importlib.metadata
import sys
import sysconfig
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import ClassVar

from benchmarks.queues.load import Cost


class Contestant:
    """What is known of a queue before it is run.

    settings are what is tried for a part before the rounds, to run these with the fastest.
    """

    title: ClassVar[str]
    remark: ClassVar[str]  # its settings, and what they mean for the data
    packages: ClassVar[tuple[str, ...]]  # the distributions whose versions belong to the result
    parts: ClassVar[frozenset[str]]
    settings: ClassVar[Mapping[str, tuple[str, ...]]] = {}

    # The share of the jobs that is enough for it, for one so slow that all of them take minutes.
    share: ClassVar[float] = 1.0

    @classmethod
    def command(cls) -> list[str]:
        """What runs one verb. A verb, a place and a JSON object of arguments are appended.

        It prints what the verb returns as JSON, in a line of its own: see `PythonContestant`.
        """
        raise NotImplementedError

    @classmethod
    def version(cls, package: str) -> str | None:
        """The installed version of one of `packages`, None if it is not installed."""
        raise NotImplementedError


class PythonContestant(Contestant, ABC):
    """Each object has a process of its own, in which one of its verbs is called once.

    place is where it keeps its jobs: a folder, or a server's URL. The processes of one run share
    it, and it is empty before the first. Jobs are numbers: the task takes one, and returns None.

    environment names the virtual environment that its library is installed in, one of
    requirements/rivals; None is the one that this runs in.
    """

    environment: ClassVar[str | None] = None

    @classmethod
    def command(cls) -> list[str]:
        python = sys.executable
        if cls.environment is not None:
            python = str(_prefix(cls.environment) / "bin" / "python")
        return [python, "-m", "benchmarks.queues.performance", cls.__module__]

    @classmethod
    def version(cls, package: str) -> str | None:
        path = sys.path
        if cls.environment is not None:
            prefix = str(_prefix(cls.environment))
            variables = {"base": prefix, "platbase": prefix}
            path = [sysconfig.get_path(kind, vars=variables) for kind in ("purelib", "platlib")]
        found = importlib.metadata.Distribution.discover(name=package, path=path)
        return next((distribution.version for distribution in found), None)

    @abstractmethod
    def __init__(self, place: str) -> None: ...

    @abstractmethod
    def fill(self, count: int) -> None:
        """Add the jobs 0 to count - 1 in the quickest way there is."""

    @abstractmethod
    def enqueue(self, count: int, setting: str) -> Cost:
        """Add jobs with a call for each, as 100 concurrent requests of a web application would.

        A call ends once its job is stored. setting is one of `settings`: in how many tasks or
        threads the calls are made.
        """

    @abstractmethod
    def lone(self, count: int) -> list[float]:
        """Add jobs one at a time. Returns how long each call took, in ms."""

    @abstractmethod
    def drain(self, count: int, setting: str) -> Cost:
        """Run count jobs that wait, from the start of the first to the end of the last."""

    @abstractmethod
    def send(self, pauses: Sequence[float]) -> None:
        """After each pause, in seconds, add a job whose number is `load.clock_ns()` of then."""

    @abstractmethod
    def receive(self, count: int, ready: Callable[[], None]) -> list[float]:
        """Run count jobs of `send`. Returns how many ms each had waited.

        Calls ready as soon as the worker is up.
        """

    # Only some can do the following; these name the parts in `parts`.

    def bulk(self, count: int) -> Cost:
        """Add jobs, 1,000 with each call."""
        raise NotImplementedError

    def pick_up(self, pauses: Sequence[float]) -> list[float]:
        """`send` and `receive` in one process."""
        raise NotImplementedError

    def fill_delayed(self, count: int) -> None:
        """Add count jobs that are due in a day."""
        raise NotImplementedError


def _prefix(environment: str) -> Path:
    """Where `make bench` installs the rivals that need an environment of their own."""
    return Path(sys.prefix) / "rivals" / environment
