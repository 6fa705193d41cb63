"""Compare the numbers of contestants, and check them against targets."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from benchmarks.tables import show_table


@dataclass(frozen=True, slots=True)
class Ratios:
    """How many times as good one contestant was as another one, for each round."""

    by_round: Sequence[float]

    @classmethod
    def of(cls, over: Iterable[float], under: Iterable[float]) -> Ratios | None:
        """Divide the numbers of each round. Return None if no round has both numbers."""
        by_round = [one / other for one, other in zip(over, under, strict=False)]
        return cls(by_round) if by_round else None

    @property
    def median(self) -> float:
        return statistics.median(self.by_round)

    def __str__(self) -> str:
        lowest, highest = min(self.by_round), max(self.by_round)
        return f"{short(self.median)}× ({short(lowest)}–{short(highest)})"


@dataclass(frozen=True, slots=True)
class Verdict:
    """A target, and whether it was met."""

    target: str
    measured: str
    met: bool


def show_verdicts(verdicts: Iterable[Verdict]) -> None:
    lines = [
        ["met" if verdict.met else "MISSED", verdict.target, verdict.measured]
        for verdict in verdicts
    ]
    if lines:
        show_table("Targets", ["", "target", "measured"], lines)


def to_text(ratios: Ratios | None) -> str:
    return "" if ratios is None else str(ratios)


def percentile(ordered: Sequence[float], share: float) -> float:
    """Return a percentile of values in ascending order. share is 0.95 for the 95th percentile."""
    return ordered[min(int(len(ordered) * share), len(ordered) - 1)]


def short(value: float) -> str:
    """Return a number with three significant digits."""
    if abs(value) >= 100:
        return f"{float(f'{value:.3g}'):,.0f}"
    return f"{value:.3g}"
