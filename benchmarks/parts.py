"""The parts of a benchmark. Each part is one kind of measurement."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

from benchmarks.verdicts import Verdict

Report: TypeAlias = Callable[[str], None]
"""Prints what is being measured. It is called once for each step of a round."""


class Part(ABC):
    """Collects the numbers of one kind of measurement, and prints them."""

    name: str
    left_out: Mapping[str, str]
    """Contestants that are not measured, each with the reason."""

    @abstractmethod
    def show(self) -> None:
        """Print the tables, and a text that says how their numbers were measured."""

    def verdicts(self) -> Sequence[Verdict]:
        """Return the targets of this part, each with the measured value."""
        return []

    @abstractmethod
    def samples(self) -> Mapping[str, Any]:
        """Return all measured numbers as a value that can be encoded as JSON."""


class RoundPart(Part):
    """A part that is measured in rounds. In each round, all contestants are measured in turn."""

    @abstractmethod
    def steps(self) -> int:
        """Return how many times a round calls report."""

    @abstractmethod
    def round(self, number: int, report: Report) -> None:
        """Measure all contestants once. number is that of the round, from 1."""
