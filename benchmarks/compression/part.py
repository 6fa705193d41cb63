"""What is measured: each part is an object that collects rounds, and shows what they say."""

from __future__ import annotations

import statistics
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, TypeAlias

from benchmarks.compression.lineup import Lineup, find
from benchmarks.verdicts import Verdict

Tell: TypeAlias = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Sizes:
    """How much a part takes: seconds for each contestant and case, streams, repetitions."""

    pareto_seconds: float = 0.25
    overhead_repeats: int = 40
    stalls_seconds: float = 4.0
    streams: int = 1_000
    events: int = 20
    interval_seconds: float = 0.2


class Part(ABC):
    """A round measures all contestants of the line-up in turn, seconds apart."""

    name: ClassVar[str]

    def __init__(self, names: Sequence[str], folder: Path, sizes: Sizes) -> None:
        self.lineup = Lineup(names)
        self.folder = folder
        self.sizes = sizes

    @abstractmethod
    def steps(self) -> int:
        """How often a round tells what it does."""

    @abstractmethod
    def round(self, number: int, tell: Tell) -> None: ...

    @abstractmethod
    def show(self) -> None:
        """Print tables, and how their numbers were measured."""

    @abstractmethod
    def verdicts(self) -> list[Verdict]: ...

    @abstractmethod
    def samples(self) -> Mapping[str, Any]:
        """All that was measured, as what JSON can hold."""


def titles(names: Sequence[str]) -> str:
    return ", ".join(find(name).title for name in names)


def percentile(ordered: Sequence[float], share: float) -> float:
    return ordered[min(int(len(ordered) * share), len(ordered) - 1)]


def median(values: Sequence[float]) -> float:
    return statistics.median(values)
