"""A part of a benchmark: one kind of measurement."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

from benchmarks.verdicts import Verdict

Report: TypeAlias = Callable[[str], None]
"""Shows what is measured now: called once for each step of a round."""


class Part(ABC):
    """Collects what is measured, and shows it."""

    name: str
    left_out: Mapping[str, str]
    """Contestants that are not measured, each with the reason."""

    @abstractmethod
    def show(self) -> None:
        """Print tables, and how their numbers were measured."""

    def verdicts(self) -> Sequence[Verdict]:
        """Return the targets of this part, each with what was measured."""
        return []

    @abstractmethod
    def samples(self) -> Mapping[str, Any]:
        """Return all that was measured, as JSON can hold it."""


class RoundPart(Part):
    """A part in whose rounds the contestants take turns, seconds apart."""

    @abstractmethod
    def steps(self) -> int:
        """Return how often a round calls report."""

    @abstractmethod
    def round(self, number: int, report: Report) -> None:
        """Measure all contestants once. The first number is 1."""
