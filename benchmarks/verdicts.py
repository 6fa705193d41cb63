"""How contestants compare, and whether a target is met."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from benchmarks.tables import show_table


@dataclass(frozen=True, slots=True)
class Ratios:
    """How many times better one contestant was than another, round by round."""

    by_round: Sequence[float]

    @property
    def median(self) -> float:
        return statistics.median(self.by_round)

    def __str__(self) -> str:
        lowest, highest = min(self.by_round), max(self.by_round)
        return f"{short(self.median)}× ({short(lowest)}–{short(highest)})"


@dataclass(frozen=True, slots=True)
class Verdict:
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


def short(value: float) -> str:
    """Three digits, for that is more than the measurement is worth."""
    if abs(value) >= 100:
        return f"{float(f'{value:.3g}'):,.0f}"
    return f"{value:.3g}"
